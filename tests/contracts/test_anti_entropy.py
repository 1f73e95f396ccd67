"""What every drive promises about coming to hold what the others hold: have, purge, install, sync, and its own wants."""

import attrs
import pytest
import trio

from cluster.clock import BALLOT_ZERO, Ballot, floor_at
from cluster.ids import BucketId, DataId, RowKey
from cluster.layout import encode_layout
from cluster.register.acceptor import OP_TTL_MS
from cluster.register.anti_entropy import (
    Changed,
    Discard,
    DropHints,
    FenceAt,
    Have,
    Held,
    Hints,
    Install,
    Known,
    Purge,
    RaiseFloor,
    RowAt,
    RowPage,
    ShardOf,
    ShardPage,
    StrayParts,
    Sync,
    SyncPage,
    Unneeded,
    Unreferenced,
    Want,
    Wanted,
    Wants,
)
from cluster.register.keys import object_row
from cluster.register.messages import (
    CHOSEN,
    Accepted,
    Body,
    Done,
    Fence,
    Learn,
    Nack,
    NeedBodies,
    NotVoting,
    Page,
    Promise,
    ReadBody,
    Scan,
    StaleBucket,
    StaleEpoch,
    Value,
)
from cluster.register.records import BOTTOM, BodyId, Register, decode_state
from tests.contracts.benches import (
    BUCKET,
    ROW,
    Answers,
    accept,
    ask,
    at,
    expect,
    header,
    inline,
    learn,
    live,
    prepare,
    query,
    stage,
    stored,
    tombstone,
)
from tests.topology.layouts import make_layout

OTHERS = encode_layout(make_layout(3, 1, 2, 1))  # it gives the drive no vote
FIRST = RowKey(b"")
NO_DATA, ALL_DATA = DataId(bytes(16)), DataId(b"\xff" * 16)
BODY = BodyId(b"b" * 16)
OTHER = object_row(BUCKET, b"other")
DEAD = object_row(BucketId(b"z" * 16), b"key")


def have(*rows, epoch=1):
    return Have(rows=[RowAt(row, ballot) for row, ballot in rows], epoch=epoch)


def purge(ballot, row=ROW, epoch=1):
    return Purge(rows=[RowAt(row, ballot)], epoch=epoch)


def install(ballot, state, version, row=ROW, *, chosen=True, bodies=None, epoch=1):
    return Install(
        row=row, ballot=ballot, epoch=epoch, version=version, state=state, chosen=chosen, bodies=bodies or {}
    )  # fmt: skip


def sync(start=FIRST, stop=None, limit=100, max_bytes=1 << 20, epoch=1, fences=False):
    return Sync(
        start=start, stop=stop, limit=limit, max_bytes=max_bytes, epoch=epoch, fences=fences
    )


def unreferenced(after=NO_DATA, before=ALL_DATA, limit=10, epoch=1):
    return Unreferenced(after=after, before=before, limit=limit, epoch=epoch)


async def version_of(drive):
    return (await expect(drive, Wanted(limit=1, epoch=1), Wants)).version


async def wants_of(drive):
    return (await expect(drive, Wanted(limit=10, epoch=1), Wants)).rows


async def bury(drive, ballot, row=ROW):
    """A chosen tombstone."""
    await expect(drive, accept(ballot, tombstone(ballot), row), Accepted)
    await expect(drive, learn(ballot, row), Done)


# -- have


async def test_have_shows_what_was_accepted_row_by_row(bench):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        held = await expect(drive, have((OTHER, BALLOT_ZERO), (ROW, BALLOT_ZERO)), Held)
        assert held.ballots == [BALLOT_ZERO, ballot]
        assert (await expect(drive, have(), Held)).ballots == []
        bench.crash()
    bench.rot_row(ROW)
    async with bench.open() as drive:
        held = await expect(drive, have((ROW, ballot), (OTHER, BALLOT_ZERO)), Held)
        assert held.ballots == [None, BALLOT_ZERO]


async def test_have_shows_nothing_that_is_not_durable(bench):
    ballot = at(bench, 1)
    order = []
    async with bench.open() as drive:
        await ask(drive, query())
        accepting, asking = Answers(), Answers()
        drive.submit(
            accept(ballot, live(ballot)), lambda m: (order.append("accepted"), accepting(m))
        )
        drive.submit(have((ROW, ballot)), lambda m: (order.append("held"), asking(m)))
        assert (await asking.first()).ballots == [ballot]
        await accepting.first()
        assert order == ["accepted", "held"]


# -- purge


async def test_only_a_chosen_tombstone_at_that_very_ballot_is_purged(bench):
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(first, tombstone(first)), Accepted)
        await expect(drive, purge(first), Done)  # not known to be chosen
        assert (await expect(drive, query(), Value)).register.ballot == first
        await expect(drive, learn(first), Done)
        await expect(drive, purge(second), Done)
        assert (await expect(drive, query(), Value)).register.ballot == first
        await expect(drive, accept(second, live(second)), Accepted)
        await expect(drive, learn(second), Done)
        await expect(drive, purge(second), Done)  # no tombstone
        await expect(drive, purge(first), Done)
        assert (await expect(drive, query(), Value)).register.ballot == second
        await expect(drive, prepare(at(bench, 3)), Promise)  # and no floor went up


async def test_a_purged_row_is_bottom_and_the_floor_outlives_a_crash(bench):
    ballot = at(bench, 1)
    floor = floor_at(ballot.hlc + OP_TTL_MS)
    async with bench.open() as drive:
        await bury(drive, ballot)
        await expect(drive, purge(ballot), Done)
        assert await ask(drive, query()) == Value(BOTTOM)
        bench.crash()
    async with bench.open() as drive:
        assert await ask(drive, query()) == Value(BOTTOM)
        assert (await expect(drive, sync(), SyncPage)).rows == []
        for row in (ROW, OTHER):
            assert await ask(drive, prepare(floor, row)) == Nack(floor)
            assert await ask(drive, accept(floor, live(floor), row)) == Nack(floor)
        above = Ballot(floor.hlc + 1, 0, 0)
        assert await ask(drive, prepare(above)) == Promise(BOTTOM)
        await expect(drive, accept(above, live(above)), Accepted)
        await expect(drive, purge(ballot), Done)
        assert (await expect(drive, query(), Value)).register.ballot == above


# -- install


async def test_what_was_chosen_elsewhere_is_taken_whatever_was_promised_or_fenced(bench):
    old, ballot = at(bench, 1), at(bench, 2)
    state = inline(ballot, BODY, b"data")
    async with bench.open() as drive:
        await expect(drive, accept(old, live(old)), Accepted)
        await expect(drive, prepare(at(bench, 4)), Promise)
        await expect(drive, RaiseFloor(floor=at(bench, 3), epoch=1), Done)
        version = await version_of(drive)
        assert await ask(drive, install(ballot, state, version)) == NeedBodies()
        await expect(drive, install(ballot, state, version, bodies={BODY: b"data"}), Done)
        held = Register(ballot=ballot, state=state, chosen=True)
        assert await ask(drive, query(bodies=True)) == Value(held, {BODY: b"data"})
        assert await ask(drive, prepare(at(bench, 4))) == Nack(at(bench, 4))
        bench.crash()
    async with bench.open() as drive:
        assert await ask(drive, query(bodies=True)) == Value(held, {BODY: b"data"})


async def test_install_never_goes_back_and_says_only_what_is_new(bench):
    low, ballot = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        version = await version_of(drive)
        assert await ask(drive, install(low, live(low), version)) == Nack(ballot)
        assert not (await expect(drive, query(), Value)).register.chosen
        await expect(drive, install(ballot, live(ballot), version), Done)
        assert (await expect(drive, query(), Value)).register.chosen
        await expect(drive, install(ballot, live(ballot), version), Done)


@pytest.mark.parametrize("crash", [False, True])
async def test_a_state_that_was_read_before_a_purge_does_not_come_back(bench, crash):
    """The row looks as it did when the pull was issued: absent, then buried and purged, absent again."""
    old, buried = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        version = await version_of(drive)
        await bury(drive, buried)
        await expect(drive, purge(buried), Done)
        assert await ask(drive, install(old, live(old), version)) == Changed()
        if crash:
            bench.crash()
    async with bench.open() as drive:
        assert await ask(drive, install(old, live(old), version)) == Changed()
        assert await ask(drive, query()) == Value(BOTTOM)
        fresh = await version_of(drive)
        await expect(drive, install(buried, tombstone(buried), fresh), Done)


async def test_a_dead_bucket_takes_nothing_and_a_corrupt_row_neither(bench):
    ballot, later = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        bench.crash()
    bench.rot_row(ROW)
    async with bench.open() as drive:
        version = await version_of(drive)
        await expect(drive, install(later, live(later), version), NotVoting)
        await expect(drive, Fence(bucket=DEAD[:16], bucket_epoch=3, dead=True), Done)
        refused = await ask(drive, install(later, live(later), version, DEAD))
        assert refused == StaleBucket(3)


async def test_only_a_rebuilding_drive_takes_what_is_not_known_chosen(bench):
    ballot = at(bench, 1)
    pulled = install(ballot, live(ballot), 0, chosen=False)
    async with bench.open() as drive:
        await expect(drive, pulled, Nack)
        await bench.drive.layout.keep(1, OTHERS)
        await expect(drive, pulled, Done)
        await bench.drive.layout.keep(1, b"")
        held = Register(ballot=ballot, state=live(ballot), chosen=False)
        assert await ask(drive, query()) == Value(held)


async def test_an_installed_state_owes_its_shards_and_frees_those_it_replaced(bench):
    first, second = at(bench, 1), at(bench, 2)
    old, new = header(1, first), header(2, second)
    blocks = [bytes(100)]
    async with bench.open() as drive:
        await stage(drive, old, blocks)
        await expect(drive, accept(first, stored(first, old)), Accepted)
        await expect(drive, learn(first), Done)
        # Staged says that position 0 has it: that was another drive, or this one lost it.
        pulled = install(second, stored(second, new, staged=1), await version_of(drive))
        await expect(drive, pulled, Done)
        assert (await drive.status()).heal_debt == 1
        with trio.fail_after(5):
            while await drive.stat_shard(old.data_id, 0) is not None:
                await trio.sleep(0.01)
                await drive.collect()
        await stage(drive, new, blocks)
        assert (await drive.status()).heal_debt == 0


# -- sync


async def test_a_sync_page_holds_whole_states_and_says_what_is_corrupt(bench):
    ballot = at(bench, 1)
    state = inline(ballot, BODY, b"data")
    async with bench.open() as drive:
        await expect(drive, accept(ballot, state, bodies={BODY: b"data"}), Accepted)
        await expect(drive, learn(ballot), Done)
        await expect(drive, accept(ballot, tombstone(ballot), OTHER), Accepted)
        await expect(drive, accept(ballot, live(ballot), DEAD), Accepted)
        bench.crash()
    bench.rot_row(OTHER)
    async with bench.open() as drive:
        page = await expect(drive, sync(), SyncPage)
        assert [row.row for row in page.rows] == [ROW, OTHER, DEAD]
        assert [row.ballot for row in page.rows] == [ballot.pack(), None, ballot.pack()]
        assert [bool(row.flags & CHOSEN) for row in page.rows] == [True, False, False]
        assert decode_state(page.rows[0].encoded) == state
        assert page.rows[0].bodies == {BODY: b"data"}
        assert page.next is None
        assert await wants_of(drive) == [Want(OTHER, None)]
        part = await expect(drive, sync(start=OTHER, stop=DEAD), SyncPage)
        assert [row.row for row in part.rows] == [OTHER]


async def test_sync_pages_meet_and_are_cut_by_rows_and_by_bytes(bench):
    ballot = at(bench, 1)
    rows = [object_row(BUCKET, b"%03d" % number) for number in range(150)]
    async with bench.open() as drive:
        for number, row in enumerate(rows):
            body = BodyId(b"%016d" % number)
            state = inline(ballot, body, bytes(1000))
            await expect(drive, accept(ballot, state, row, bodies={body: bytes(1000)}), Accepted)
        for limit, max_bytes, at_most in ((1, 1 << 20, 1), (64, 1 << 20, 64), (200, 5000, 6)):
            found, cursor = [], RowKey(b"")
            while cursor is not None:
                page = await expect(
                    drive, sync(start=cursor, limit=limit, max_bytes=max_bytes), SyncPage
                )
                assert len(page.rows) <= at_most
                found += [row.row for row in page.rows]
                cursor = page.next
            assert found == rows
        # A row that is larger than the page comes alone, with the bodies that fit; the others are read.
        page = await expect(drive, sync(max_bytes=1), SyncPage)
        (first,) = page.rows
        assert page.next == rows[1]
        body = BodyId(b"%016d" % 0)
        answer = Body(first.bodies.get(body))
        if answer.data is None:
            answer = await ask(drive, ReadBody(row=first.row, body=body, epoch=1))
        assert answer == Body(bytes(1000))


async def test_floor_and_fences_come_along(bench):
    floor = at(bench, 1)
    async with bench.open() as drive:
        await expect(drive, RaiseFloor(floor=floor, epoch=1), Done)
        await expect(drive, RaiseFloor(floor=BALLOT_ZERO, epoch=1), Done)
        await expect(drive, Fence(bucket=BUCKET, bucket_epoch=2), Done)
        await expect(drive, Fence(bucket=DEAD[:16], bucket_epoch=3, dead=True), Done)
        bench.crash()
    async with bench.open() as drive:
        page = await expect(drive, sync(fences=True), SyncPage)
        assert page.gc_floor == floor
        assert sorted(page.fences) == [
            FenceAt(BUCKET, 2, False),
            FenceAt(BucketId(DEAD[:16]), 3, True),
        ]
        other = object_row(BucketId(b"y" * 16), b"key")
        assert (await expect(drive, prepare(floor, other), Nack)).low >= floor
        for step, request in (
            (3, prepare(at(bench, 3), other)),
            (5, accept(at(bench, 5), live(at(bench, 5)), other)),
        ):
            await ask(drive, request)
            later = await expect(drive, sync(start=ROW), SyncPage)
            assert later.ceiling_ms >= at(bench, step).hlc
        assert later.gc_floor == floor
        assert later.fences == []


async def test_what_was_accepted_under_the_old_layout_is_on_a_page_under_the_new_one(bench):
    """It may be acknowledged after the page was made, and its coordinator then counts on it."""
    ballot = at(bench, 1)
    async with bench.open():
        drive = bench.drive  # the layout changes between two messages, on its own node
        await ask(drive, query())
        accepting, syncing = Answers(), Answers()
        drive.submit(accept(ballot, live(ballot)), accepting)
        drive._acceptor.control.epoch = 2
        drive.submit(sync(epoch=2), syncing)
        page, verdict = await syncing.first(), await accepting.first()
        assert isinstance(verdict, Accepted) == bool(bench.cache_bytes)
        expected = [ballot.pack()] if isinstance(verdict, Accepted) else []
        assert [row.ballot for row in page.rows] == expected


# -- a drive without a vote


async def test_a_rebuilding_drive_takes_accepts_and_says_nothing_that_counts(bench):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        await bench.drive.layout.keep(1, OTHERS)
        everything = Scan(start=ROW, stop=None, limit=10, epoch=1, bucket_epoch=1)
        for request in (query(), prepare(ballot), have((ROW, ballot)), sync(), everything):
            await expect(drive, request, NotVoting)
        await expect(drive, purge(ballot), NotVoting)
        await expect(drive, accept(ballot, live(ballot)), NotVoting)
        bench.crash()
    async with bench.open() as drive:
        await bench.drive.layout.keep(1, b"")
        assert (await expect(drive, query(), Value)).register.ballot == ballot


# -- wants


async def test_a_drive_wants_what_it_hears_that_it_missed_until_it_has_it(bench):
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, learn(first), Done)
        await expect(drive, have((OTHER, second)), Held)
        assert await wants_of(drive) == [Want(ROW, first), Want(OTHER, second)]
        await expect(drive, accept(first, live(first)), Accepted)
        assert await wants_of(drive) == [Want(OTHER, second)]
        pulled = install(second, tombstone(second), await version_of(drive), OTHER)
        await expect(drive, pulled, Done)
        assert await wants_of(drive) == []


async def test_a_corrupt_row_is_wanted_until_a_higher_ballot_has_repaired_it(bench):
    ballot, later = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        bench.crash()
    bench.rot_row(ROW)
    async with bench.open() as drive:
        await expect(drive, query(), NotVoting)
        assert await wants_of(drive) == [Want(ROW, None)]
        await expect(drive, accept(later, live(ballot)), Accepted)
        assert await wants_of(drive) == []


async def test_a_corrupt_row_is_repaired_above_what_it_can_have_held_and_not_above_all_others(
    bench,
):
    """Promises to other rows go on raising the ceiling; nothing of the lost row is above what it was at first."""
    ballot = at(bench, 5)
    async with bench.open() as drive:
        # Without a promise before: the ceiling has to cover what was accepted, too.
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        bench.crash()
    bench.rot_row(ROW)
    async with bench.open() as drive:
        await expect(drive, query(), NotVoting)
        await expect(drive, accept(at(bench, 4), live(ballot)), NotVoting)
        await expect(drive, prepare(at(bench, 9), OTHER), Promise)
        await expect(drive, accept(at(bench, 7), live(at(bench, 7))), Accepted)


# -- hints


async def test_hints_are_durable_and_name_what_is_chosen(bench):
    first, second = at(bench, 1), at(bench, 2)
    hints = Hints(position=2, after=FIRST, stop=None, limit=10, epoch=1)
    async with bench.open() as drive:
        for row in (ROW, OTHER):
            await expect(drive, accept(first, live(first), row), Accepted)
            await expect(drive, Learn(row=row, ballot=first, acceptors=0b011), Done)
        await expect(drive, accept(second, live(second), DEAD), Accepted)
        bench.crash()
    async with bench.open() as drive:
        page = await expect(drive, hints, RowPage)
        assert page == RowPage([RowAt(ROW, first), RowAt(OTHER, first)], None)
        assert (await expect(drive, attrs.evolve(hints, position=0), RowPage)).rows == []
        part = await expect(drive, attrs.evolve(hints, limit=1), RowPage)
        assert part == RowPage([RowAt(ROW, first)], ROW)
        rest = await expect(drive, attrs.evolve(hints, after=ROW), RowPage)
        assert rest.rows == [RowAt(OTHER, first)]
        span = await expect(drive, attrs.evolve(hints, stop=OTHER), RowPage)
        assert span == RowPage([RowAt(ROW, first)], None)
        drop = DropHints(position=2, places=3, rows=[RowAt(ROW, first)], epoch=1)
        await expect(drive, drop, Done)
        later = at(bench, 4)
        await expect(drive, accept(later, live(later), DEAD), Accepted)  # a later commit
        assert (await expect(drive, hints, RowPage)).rows == [RowAt(OTHER, first)]
        bench.crash()
    async with bench.open() as drive:
        assert (await expect(drive, hints, RowPage)).rows == [RowAt(OTHER, first)]


async def test_a_hint_that_comes_late_does_not_hide_that_another_drive_missed_what_came_after(
    bench,
):
    first, second = at(bench, 1), at(bench, 2)
    hints = Hints(position=2, after=FIRST, stop=None, limit=10, epoch=1)
    async with bench.open() as drive:
        await expect(drive, accept(first, live(first)), Accepted)
        await expect(drive, accept(second, live(second), base=first), Accepted)
        await expect(drive, Learn(row=ROW, ballot=second, acceptors=0b011), Done)
        await expect(drive, Learn(row=ROW, ballot=first, acceptors=0b101), Done)
        await expect(drive, accept(at(bench, 3), live(first), OTHER), Accepted)  # a later commit
        assert (await expect(drive, hints, RowPage)).rows == [RowAt(ROW, second)]


async def test_a_hint_that_comes_while_an_older_one_is_dropped_stays(bench):
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(first, live(first)), Accepted)
        await expect(drive, Learn(row=ROW, ballot=first, acceptors=0b011), Done)
        await expect(drive, accept(first, live(first), OTHER), Accepted)  # a later commit
        dropping, accepting, learning = Answers(), Answers(), Answers()
        drive.submit(DropHints(position=2, places=3, rows=[RowAt(ROW, first)], epoch=1), dropping)
        drive.submit(accept(second, live(second), base=first), accepting)
        drive.submit(Learn(row=ROW, ballot=second, acceptors=0b101), learning)
        for answers in (dropping, accepting, learning):
            await answers.first()
        await expect(drive, accept(at(bench, 3), live(second), OTHER), Accepted)
        page = await ask(drive, Hints(position=1, after=FIRST, stop=None, limit=10, epoch=1))
        assert page == RowPage([RowAt(ROW, second)], None)


async def test_rows_of_a_dead_bucket_are_not_wanted(bench):
    """Nobody has them any more, and the room for wanted rows is bounded."""
    async with bench.open() as drive:
        await expect(drive, learn(at(bench, 1), DEAD), Done)
        await expect(drive, learn(at(bench, 1)), Done)
        assert [want.row for want in await wants_of(drive)] == sorted([ROW, DEAD])[::-1]
        await expect(drive, Fence(bucket=DEAD[:16], bucket_epoch=3, dead=True), Done)
        assert [want.row for want in await wants_of(drive)] == [ROW]


async def test_what_is_known_to_be_chosen_is_shown_row_by_row(bench):
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        for row in (ROW, OTHER):
            await expect(drive, accept(first, live(first), row), Accepted)
        page = await ask(drive, Known(after=FIRST, stop=None, limit=10, epoch=1))
        assert page == RowPage([], None)
        await expect(drive, learn(first), Done)
        await expect(drive, accept(second, live(second), OTHER), Accepted)
        await expect(drive, accept(at(bench, 3), live(second), DEAD), Accepted)
        page = await ask(drive, Known(after=FIRST, stop=None, limit=10, epoch=1))
        assert page == RowPage([RowAt(ROW, first)], None)
        page = await ask(drive, Known(after=FIRST, stop=None, limit=1, epoch=1))
        assert page.next is not None
        page = await ask(drive, Known(after=FIRST, stop=ROW, limit=10, epoch=1))
        assert page == RowPage([], None)


# -- shards


async def test_shards_that_no_chosen_state_refers_to_are_shown_with_their_owners(bench):
    ballot = at(bench, 1)
    orphan, kept, undecided = header(1), header(2, ballot), header(3, ballot)
    async with bench.open() as drive:
        for shard in (orphan, kept, undecided):
            await stage(drive, shard, [bytes(10)])
        await expect(drive, accept(ballot, stored(ballot, kept)), Accepted)
        await expect(drive, learn(ballot), Done)
        await expect(drive, accept(ballot, stored(ballot, undecided), OTHER), Accepted)
        page = await expect(drive, unreferenced(), ShardPage)
        orphans = [ShardOf(orphan.data_id, ROW), ShardOf(undecided.data_id, ROW)]
        assert page == ShardPage(orphans, None)
        older = unreferenced(before=DataId(ballot.hlc.to_bytes(6, "big") + bytes(10)))
        assert (await expect(drive, older, ShardPage)).shards == orphans[:1]
        first = await expect(drive, unreferenced(limit=1), ShardPage)
        assert first == ShardPage(orphans[:1], orphan.data_id)
        after = await expect(drive, unreferenced(after=orphan.data_id, limit=1), ShardPage)
        assert after == ShardPage([], kept.data_id)


async def test_discarded_shards_go_and_those_of_dead_buckets_too(bench):
    shards = [header(1), header(2)]
    async with bench.open() as drive:
        for shard in shards:
            await stage(drive, shard, [bytes(10)])
        await expect(drive, Discard(data=[shards[0].data_id], epoch=1), Done)
        bench.crash()
    async with bench.open() as drive:

        async def until_gone(shard):
            with trio.fail_after(5):
                while await drive.stat_shard(shard.data_id, 0) is not None:
                    await trio.sleep(0.01)
                    await drive.collect()

        await until_gone(shards[0])
        assert await drive.stat_shard(shards[1].data_id, 0) is not None
        await expect(drive, Fence(bucket=BUCKET, bucket_epoch=2, dead=True), Done)
        assert await ask(drive, unreferenced()) == ShardPage([], None)
        await until_gone(shards[1])


# -- the layout


async def test_another_layout_is_refused(bench):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        for request in (
            have(epoch=2),
            purge(ballot, epoch=2),
            install(ballot, live(ballot), 0, epoch=2),
            sync(epoch=2),
            Wanted(limit=1, epoch=2),
            RaiseFloor(floor=ballot, epoch=2),
            unreferenced(epoch=2),
            Discard(data=[DataId(bytes(16))], epoch=2),
            Hints(position=0, after=FIRST, stop=None, limit=1, epoch=2),
            DropHints(position=0, places=1, rows=[], epoch=2),
            StrayParts(after=FIRST, limit=1, epoch=2),
            Known(after=FIRST, stop=None, limit=1, epoch=2),
            Unneeded(rows=[], epoch=2),
        ):
            assert await ask(drive, request) == StaleEpoch(1)
        assert await ask(drive, query()) == Value(BOTTOM)


async def test_pages_of_listings_tell_of_corrupt_rows_as_before(bench):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        page = await expect(
            drive, Scan(start=ROW, stop=None, limit=10, epoch=1, bucket_epoch=1), Page
        )
        assert [row.row for row in page.rows] == [ROW]
