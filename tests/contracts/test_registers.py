"""What every drive promises about registers."""

import trio
from msgspec.structs import replace

from cluster.clock import BALLOT_ZERO
from cluster.drives.drive import VOTING, DriveState
from cluster.ids import BucketId, UploadId
from cluster.register.keys import object_row
from cluster.register.messages import (
    Accepted,
    Body,
    Done,
    Expired,
    Failed,
    Fence,
    Nack,
    NeedBodies,
    NotVoting,
    Page,
    Promise,
    ReadBody,
    ScanUploads,
    StaleBucket,
    StaleEpoch,
    Value,
)
from cluster.register.records import BOTTOM, BodyId, Register
from tests.contracts.benches import (
    BUCKET,
    ROW,
    Answers,
    accept,
    ask,
    at,
    expect,
    inline,
    learn,
    live,
    prepare,
    query,
    tombstone,
    uploading,
)

BODY, OTHER = BodyId(b"b" * 16), BodyId(b"o" * 16)


async def test_a_register_that_nobody_wrote_is_bottom(bench):
    async with bench.open() as drive:
        assert await ask(drive, query()) == Value(BOTTOM)
        assert await ask(drive, prepare(at(bench, 1))) == Promise(BOTTOM)


async def test_a_promise_refuses_everything_below_and_itself(bench):
    low, high = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, prepare(high), Promise)
        assert await ask(drive, prepare(high)) == Nack(high)
        assert await ask(drive, prepare(low)) == Nack(high)
        assert await ask(drive, accept(low, live(low))) == Nack(high)
        await expect(drive, accept(high, live(high)), Accepted)


async def test_what_was_accepted_is_shown(bench):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        held = Register(ballot=ballot, state=live(ballot), chosen=False)
        assert await ask(drive, query()) == Value(held)
        assert await ask(drive, prepare(at(bench, 2))) == Promise(held)


async def test_an_accept_is_durable_and_a_duplicate_changes_nothing(bench):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        first = await expect(drive, accept(ballot, live(ballot)), Accepted)
        again = await expect(drive, accept(ballot, live(ballot)), Accepted)
        assert again.commit_seq >= first.commit_seq
        bench.crash()
    async with bench.open() as drive:
        held = Register(ballot=ballot, state=live(ballot), chosen=False)
        assert await ask(drive, query()) == Value(held)


async def test_commit_numbers_rise_over_restarts(bench):
    async with bench.open() as drive:
        last = 0
        for step in (1, 2):
            ballot = at(bench, step)
            reply = await expect(drive, accept(ballot, live(ballot)), Accepted)
            assert reply.commit_seq > last
            last = reply.commit_seq
        bench.crash()
    async with bench.open() as drive:
        ballot = at(bench, 4)
        reply = await expect(drive, accept(ballot, live(ballot)), Accepted)
        assert reply.commit_seq > last


async def test_a_promise_outlives_a_crash(bench):
    async with bench.open() as drive:
        await expect(drive, prepare(at(bench, 3)), Promise)
        bench.crash()
    async with bench.open() as drive:
        refused = await expect(drive, accept(at(bench, 2), live(at(bench, 2))), Nack)
        assert refused.low >= at(bench, 3)
        await expect(drive, prepare(at(bench, 3)), Nack)
        await expect(drive, prepare(at(bench, 5)), Promise)


async def test_nothing_is_shown_before_it_is_durable(bench):
    ballot = at(bench, 1)
    order: list[str] = []
    async with bench.open() as drive:
        await ask(drive, query())
        answers = {
            "accepted": Answers(),
            "value": Answers(),
            "promise": Answers(),
            "body": Answers(),
        }

        def noting(name):
            def reply(message):
                order.append(name)
                answers[name](message)

            return reply

        drive.submit(
            accept(ballot, inline(ballot, BODY, b"data"), bodies={BODY: b"data"}),
            noting("accepted"),
        )
        drive.submit(query(bodies=True), noting("value"))
        drive.submit(prepare(at(bench, 2)), noting("promise"))
        drive.submit(ReadBody(row=ROW, body=BODY, epoch=1), noting("body"))
        replies = {name: await answer.first() for name, answer in answers.items()}
        assert order[0] == "accepted"
        assert replies["value"].register.ballot == ballot
        assert replies["promise"].register.ballot == ballot
        assert replies["body"] == Body(b"data")


async def test_a_failed_commit_takes_the_drive_out_and_shows_nothing(bench):
    before, ballot = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(before, live(before)), Accepted)
        bench.fail_commits()
        accepting, asking = Answers(), Answers()
        drive.submit(accept(ballot, live(ballot)), accepting)
        drive.submit(query(), asking)
        assert isinstance(await accepting.first(), Failed)
        assert not isinstance(await asking.first(), Value)
        assert drive.state is DriveState.FAULTY
        assert drive.state not in VOTING
        for request in (query(), prepare(at(bench, 3)), accept(ballot, live(ballot))):
            assert isinstance(await ask(drive, request), Failed | NotVoting)


async def test_learn_marks_only_the_state_it_names(bench):
    ballot, later = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        await expect(drive, learn(later), Done)
        assert not (await expect(drive, query(), Value)).register.chosen
        await expect(drive, learn(ballot), Done)
        assert (await expect(drive, query(), Value)).register.chosen
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        assert (await expect(drive, query(), Value)).register.chosen
        await expect(drive, accept(later, live(later)), Accepted)
        assert not (await expect(drive, query(), Value)).register.chosen


async def test_bodies_come_with_the_record_alone_and_go_with_it(bench):
    first, second, third = (at(bench, step) for step in (1, 2, 3))
    async with bench.open() as drive:
        assert await ask(drive, accept(first, inline(first, BODY, b"data"))) == NeedBodies()
        sent = accept(first, inline(first, BODY, b"data"), bodies={BODY: b"data"})
        await expect(drive, sent, Accepted)
        assert (await expect(drive, query(bodies=True), Value)).bodies == {BODY: b"data"}
        # The same body under a new ballot need not be sent again.
        await expect(drive, accept(second, inline(first, BODY, b"data")), Accepted)
        assert await ask(drive, ReadBody(row=ROW, body=BODY, epoch=1)) == Body(b"data")
        replaced = accept(third, inline(third, OTHER, b"more"), bodies={OTHER: b"more"})
        await expect(drive, replaced, Accepted)
        assert await ask(drive, ReadBody(row=ROW, body=BODY, epoch=1)) == Body(None)
        bench.crash()
    async with bench.open() as drive:
        assert (await expect(drive, query(bodies=True), Value)).bodies == {OTHER: b"more"}
        assert await ask(drive, ReadBody(row=ROW, body=BODY, epoch=1)) == Body(None)


async def test_what_is_too_old_to_be_introduced_is_refused(bench):
    ballot = at(bench, 20)
    async with bench.open() as drive:
        old = live(at(bench, 1)).versions[0]
        stale = replace(live(ballot), versions=(replace(old, stamp=ballot),))
        assert await ask(drive, accept(ballot, stale)) == Expired()
        # A version that stands in the register already may be carried on for ever.
        await expect(drive, accept(ballot, live(at(bench, 1))), Accepted)


async def test_another_layout_is_refused(bench):
    async with bench.open() as drive:
        assert await ask(drive, prepare(at(bench, 1), epoch=2)) == StaleEpoch(1)


async def test_a_fence_holds_for_one_bucket_and_outlives_a_crash(bench):
    other = object_row(BucketId(b"z" * 16), b"key")
    async with bench.open() as drive:
        fence = Fence(bucket=BUCKET, bucket_epoch=2)
        assert await ask(drive, fence) == Done()
        assert await ask(drive, fence) == Done()
        assert await ask(drive, query()) == StaleBucket(2)
        await expect(drive, query(other), Value)
        bench.crash()
    async with bench.open() as drive:
        assert await ask(drive, query()) == StaleBucket(2)
        assert await ask(drive, Fence(bucket=BUCKET, bucket_epoch=1)) == Done()
        assert await ask(drive, query()) == StaleBucket(2)
        await expect(drive, query(bucket_epoch=2), Value)


async def test_nothing_is_accepted_below_a_fence_that_has_answered(bench):
    ballot = at(bench, 1)
    order: list[str] = []
    async with bench.open() as drive:
        await ask(drive, query())
        accepting, fenced = Answers(), Answers()

        def accepted(reply):
            order.append(type(reply).__name__)
            accepting(reply)

        def done(reply):
            order.append("fenced")
            fenced(reply)

        drive.submit(accept(ballot, live(ballot)), accepted)
        drive.submit(Fence(bucket=BUCKET, bucket_epoch=2), done)
        await accepting.first()
        await fenced.first()
        # Before the fence, or refused; never accepted behind its back.
        assert "Accepted" not in order[order.index("fenced") :]


async def test_the_upload_index_follows_the_accepted_state(bench):
    first, second = at(bench, 1), at(bench, 2)
    listing = ScanUploads(
        bucket=BUCKET, start=object_row(BUCKET, b""), limit=10, epoch=1, bucket_epoch=1
    )
    async with bench.open() as drive:
        await expect(drive, accept(first, uploading(first, UploadId(b"u" * 16))), Accepted)
        page = await expect(drive, listing, Page)
        assert [row.row for row in page.rows] == [ROW]
        bench.crash()
    async with bench.open() as drive:
        assert [row.row for row in (await expect(drive, listing, Page)).rows] == [ROW]
        await expect(drive, accept(at(bench, 3), tombstone(second)), Accepted)
        assert list((await expect(drive, listing, Page)).rows) == []


async def test_a_corrupt_row_has_no_vote_until_a_higher_ballot_repairs_it(bench):
    ballot, other = at(bench, 1), object_row(BUCKET, b"other")
    async with bench.open() as drive:
        await expect(drive, prepare(ballot), Promise)
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        await expect(drive, accept(ballot, live(ballot), other), Accepted)
        bench.crash()
    bench.rot_row(ROW)
    async with bench.open() as drive:
        await expect(drive, query(), NotVoting)
        await expect(drive, prepare(at(bench, 3)), NotVoting)
        await expect(drive, accept(ballot, live(ballot)), NotVoting)
        await expect(drive, query(other), Value)
        repaired = at(bench, 4)
        await expect(drive, accept(repaired, live(ballot)), Accepted)
        held = Register(ballot=repaired, state=live(ballot), chosen=False)
        assert await ask(drive, query()) == Value(held)


async def test_many_rows_at_once_keep_apart(bench):
    ballot = at(bench, 1)
    rows = [object_row(BUCKET, b"%03d" % number) for number in range(200)]
    async with bench.open() as drive:
        async with trio.open_nursery() as nursery:
            for number, row in enumerate(rows):
                body = BodyId(b"%016d" % number)
                message = accept(
                    ballot, inline(ballot, body, row), row, bodies={body: row}, base=BALLOT_ZERO
                )
                nursery.start_soon(expect, drive, message, Accepted)
                nursery.start_soon(expect, drive, query(row, bodies=True), Value)
        bench.crash()
    async with bench.open() as drive:
        for number, row in enumerate(rows):
            value = await expect(drive, query(row, bodies=True), Value)
            assert value.bodies == {BodyId(b"%016d" % number): row}
