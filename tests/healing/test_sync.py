"""A drive that comes empty takes every row from a read quorum of the others before it votes."""

import attrs
import pytest
import trio
import xxhash

from cluster.clock import BALLOT_ZERO, Ballot, floor_at
from cluster.drives.drive import DriveState
from cluster.healing.sync import Progress, sync
from cluster.layout import encode_layout
from cluster.register.anti_entropy import Install, RaiseFloor
from cluster.register.messages import (
    Accept,
    Body,
    Failed,
    Fence,
    NotVoting,
    ReadBody,
    StaleBucket,
    Value,
)
from cluster.register.records import BodyId, BodyRef, KeyState, Register
from cluster.topology.changes import Evidence, Place, activate, replace_drive
from cluster.topology.refusals import NotSyncedError
from tests.contracts.benches import live, version
from tests.healing.world import BUCKET, world
from tests.topology.layouts import seat

PLACE = Place(0, 3)
PAGES = 1000


async def replace_last(w, adopted=(0, 1, 2)):
    """Position 3 gets an empty drive; what was there is gone. These drives adopt that."""
    layout = replace_drive(w.layout, PLACE, seat(4, 9))
    new = w.make(layout.sets[0].positions[3].drive, 3)
    w.drives = [*w.drives[:3], new]
    await new.layout.keep(layout.epoch, encode_layout(layout))
    await w.adopt(layout, adopted)
    return new, Progress(since=layout.epoch)


async def go_on(w, progress):
    """The new drive votes."""
    evidence = Evidence(
        epochs={drive.drive_id: w.layout.epoch for drive in w.drives},
        synced={w.drives[3].drive_id: progress.synced},
    )
    await w.adopt(activate(w.layout, PLACE, evidence))


async def test_a_new_drive_has_every_row_and_may_vote(autojump_clock):
    async with world(rows=3) as w:
        for number in range(8):
            await w.put(b"%d" % number, inline=b"data %d" % number)
        await w.delete(b"0")
        await trio.sleep(1)
        new, progress = await replace_last(w)
        assert isinstance(await w.held(3), NotVoting)
        await sync(w.copier, new, w.drives[:3], progress, pages=PAGES)
        assert progress.synced == {drive.drive_id for drive in w.drives[:3]}
        await go_on(w, progress)
        assert new.state is DriveState.ACTIVE
        for number in range(8):
            assert await w.held(3, b"%d" % number) == await w.held(0, b"%d" % number)


async def test_it_takes_the_highest_ballot_also_where_nobody_knows_it_chosen(autojump_clock):
    """The lost drive and one other may have chosen it, with a third that is never asked."""
    async with world() as w:
        await w.put()
        await trio.sleep(1)
        ballot = w.clock.tick()
        state = live(ballot)
        accept = Accept(
            row=w.ref().row, ballot=ballot, epoch=1, bucket_epoch=1, base=BALLOT_ZERO, state=state
        )
        await w.ask(2, accept)
        new, progress = await replace_last(w)
        await sync(w.copier, new, w.drives[:3], progress, pages=PAGES)
        await go_on(w, progress)
        held = Register(ballot=ballot, state=state, chosen=False)
        assert await w.held(3) == Value(held)


async def test_a_source_of_an_older_layout_does_not_count(autojump_clock):
    async with world() as w:
        await w.put()
        new, progress = await replace_last(w, adopted=(0,))
        await sync(w.copier, new, w.drives[:3], progress, pages=PAGES)
        assert progress.synced == {w.drives[0].drive_id}
        evidence = Evidence(
            epochs={drive.drive_id: w.layout.epoch for drive in w.drives},
            synced={new.drive_id: progress.synced},
        )
        with pytest.raises(NotSyncedError):
            activate(w.layout, PLACE, evidence)
        # Nor does this node, while it goes by the old one itself.
        behind = Progress(since=w.layout.epoch + 1)
        await sync(w.copier, new, w.drives[:1], behind, pages=PAGES)
        assert not behind.synced


async def test_floor_and_fences_come_along(autojump_clock):
    async with world() as w:
        await w.put()
        floors = [Ballot(w.clock.tick().hlc + step, 0, 0) for step in (1, 3, 2)]
        for position, floor in enumerate(floors):
            await w.ask(position, RaiseFloor(floor=floor, epoch=1))
        await w.ask(1, Fence(bucket=BUCKET, bucket_epoch=5))
        new, progress = await replace_last(w)
        await sync(w.copier, new, w.drives[:3], progress, pages=PAGES)
        new.crash()
        await go_on(w, progress)
        assert await w.held(3) == StaleBucket(5)
        # The sources' ceilings are a floor, too: one of them is above those of the collector.
        ceiling = max(drive.platter.index.control().ceiling_ms for drive in w.drives[:3])
        expected = max(*floors, floor_at(ceiling))
        assert new.platter.index.control().gc_floor == expected


async def test_a_row_that_is_corrupt_at_a_source_is_repaired_and_not_left_out(autojump_clock):
    async with world() as w:
        await w.put(inline=b"data")
        await w.put(b"other")
        await trio.sleep(1)
        w.drives[1].crash()
        w.drives[1].platter.index.corrupt.add(w.ref().row)
        await trio.sleep(2)
        new, progress = await replace_last(w)
        await sync(w.copier, new, w.drives[:3], progress, pages=PAGES)
        assert len(progress.synced) == 3
        await go_on(w, progress)
        assert isinstance(await w.held(1), Value)
        assert list((await w.held(3)).bodies.values()) == [b"data"]


async def test_a_corrupt_row_that_cannot_be_repaired_holds_its_source_up(autojump_clock):
    async with world() as w:
        await w.put()
        await trio.sleep(1)
        w.drives[1].crash()
        w.drives[1].platter.index.corrupt.add(w.ref().row)
        new, progress = await replace_last(w)
        with w.hung(2):  # no accept quorum is left
            await sync(w.copier, new, w.drives[:2], progress, pages=PAGES)
        assert progress.synced == {w.drives[0].drive_id}


async def test_it_goes_on_where_it_stopped(autojump_clock):
    async with world(rows=2) as w:
        for number in range(7):
            await w.put(b"%d" % number)
        new, progress = await replace_last(w)
        rounds = 0
        while len(progress.synced) < 2:
            await sync(w.copier, new, w.drives[:2], progress, pages=1)
            rounds += 1
            if rounds == 3:  # the process is started again; what it kept is what it goes by
                progress = attrs.evolve(progress)
                new.crash()
        assert rounds == 8
        await sync(w.copier, new, w.drives[:2], progress, pages=0)
        assert len(new.platter.index.rows) == 7


async def test_a_drive_that_bears_one_row_at_a_time_gets_them_all(autojump_clock):
    """One that is busy refuses what is too much; always the same rows, where each try is the same."""
    async with world() as w:
        for number in range(8):
            await w.put(b"%d" % number)
        await trio.sleep(1)
        new, progress = await replace_last(w)
        submit, open_now = new.submit, 0

        def refuse_some(request, reply):
            nonlocal open_now
            if not isinstance(request, Install):
                submit(request, reply)
            elif open_now:
                reply(Failed("the drive is overloaded"))
            else:
                open_now += 1
                submit(request, done_with(reply))

        def done_with(reply):
            def done(message):
                nonlocal open_now
                open_now -= 1
                reply(message)

            return done

        new.submit = refuse_some
        await sync(w.copier, new, w.drives[:3], progress, pages=3)
        assert progress.synced == {drive.drive_id for drive in w.drives[:3]}


async def test_bodies_that_do_not_fit_a_page_are_fetched_one_by_one(autojump_clock):
    async with world(page_bytes=1) as w:
        ballot = w.clock.tick()
        bodies = {BodyId(bytes([i]) * 16): b"data %d" % i for i in (1, 2, 3)}
        refs = [
            BodyRef(id=body, size=len(data), digest=xxhash.xxh3_128_digest(data))
            for body, data in bodies.items()
        ]
        state = KeyState(versions=tuple(version(ballot, body=ref) for ref in refs))
        for position in range(4):
            accept = Accept(
                row=w.ref().row, ballot=ballot, epoch=1, bucket_epoch=1, base=BALLOT_ZERO,
                state=state, bodies=bodies,
            )  # fmt: skip
            await w.ask(position, accept)
            await w.learn(position, ballot)
        new, progress = await replace_last(w)
        await sync(w.copier, new, w.drives[:3], progress, pages=PAGES)
        assert len(progress.synced) == 3
        await go_on(w, progress)
        for body, data in bodies.items():
            assert await w.ask(
                3, ReadBody(row=w.ref().row, body=body, epoch=w.layout.epoch)
            ) == Body(data)


async def test_what_it_accepted_itself_is_not_overwritten(autojump_clock):
    async with world() as w:
        await w.put()
        await trio.sleep(1)
        new, progress = await replace_last(w)
        done = await w.put()
        await trio.sleep(1)
        await sync(w.copier, new, w.drives[:3], progress, pages=PAGES)
        await go_on(w, progress)
        assert (await w.held(3)).register.ballot == done.ballot


async def test_a_voting_drive_that_was_away_gets_what_is_chosen_and_nothing_else(autojump_clock):
    async with world() as w:
        for number in range(3):
            await w.put(b"%d" % number)
        with w.hung(3):
            done = await w.put(b"1", inline=b"new")
            await trio.sleep(1)
        ballot = w.clock.tick()
        accept = Accept(
            row=w.ref(b"2").row, ballot=ballot, epoch=1, bucket_epoch=1, base=BALLOT_ZERO, state=live(ballot)
        )  # fmt: skip
        await w.ask(0, accept)
        progress = Progress(since=1)
        await sync(w.copier, w.drives[3], w.drives[:2], progress, pages=PAGES)
        assert len(progress.synced) == 2
        assert (await w.held(3, b"1")).register.ballot == done.ballot
        # Whether the open one was completed or not: what the drive took is chosen.
        assert (await w.held(3, b"2")).register.chosen
        assert (await w.table.read(w.ref(b"2"))).ballot == (await w.held(3, b"2")).register.ballot
