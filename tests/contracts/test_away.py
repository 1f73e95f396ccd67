"""What every drive promises about notes on bodies in other sets than their registers: durable, asked once, kept with the shard."""

import attrs
import msgspec
import pytest
import trio

from cluster.clock import BALLOT_ZERO
from cluster.drives.drive import DriveError
from cluster.drives.index_rows import NoteKind
from cluster.ids import DataId
from cluster.register.anti_entropy import ShardPage, Unreferenced
from cluster.register.away import Note, Verdict
from cluster.register.messages import Accepted, Done, Fence
from tests.contracts.benches import (
    BUCKET,
    ROW,
    accept,
    at,
    expect,
    header,
    learn,
    stage,
    stored,
    tombstone,
)
from tests.contracts.test_shards import SMALL, until

HOME = 7  # another set than the drive's, which is 0
FAR = 10**9


def note(shard, ballot, *, seen=False, set_id=0, positions=0b1):
    return Note(
        shard.data_id, set_id, HOME, shard.owner, ballot.pack(), b"", seen, False, positions
    )


def notes_of(bench):
    return bench.drive.notes


async def looks(bench):
    return [due.note for due in await notes_of(bench).due(NoteKind.LOOK)]


async def hints(bench):
    # A hint is told when its state has had time to be chosen.
    notes = notes_of(bench)
    now_ms, notes._now_ms = notes._now_ms, lambda: now_ms() + 5_000
    try:
        return [due.note for due in await notes.due(NoteKind.HINT)]
    finally:
        notes._now_ms = now_ms


async def settle(bench, verdict, again_ms=FAR):
    notes = notes_of(bench)
    for due in await notes.due(NoteKind.LOOK):
        notes.settle(due, verdict, again_ms)

    async def is_settled():
        return not await looks(bench)

    await until(is_settled)


async def test_looks_are_shown_in_order_whether_they_are_due_or_not(bench):
    ballot = at(bench, 1)
    noted = [note(header(number), ballot) for number in (1, 2, 3)]
    async with bench.open() as drive:
        await drive.look(noted)
        await settle(bench, Verdict.LATER)
        notes = notes_of(bench)
        first = await notes.looks_after(DataId(bytes(16)), 2)
        assert first == noted[:2]
        assert await notes.looks_after(DataId(first[-1].data_id), 2) == noted[2:]


async def test_a_look_is_durable_and_what_concerns_another_drive_is_passed_over(bench):
    mine = note(header(1), at(bench, 1))
    others = [
        note(header(2), at(bench, 1), set_id=1),
        note(header(3), at(bench, 1), positions=0b10),
    ]
    async with bench.open() as drive:
        await drive.look([mine, *others])
        assert await looks(bench) == [mine]
        await drive.look([mine])
        bench.crash()
    async with bench.open():
        assert await looks(bench) == [mine]


async def test_a_look_is_not_acknowledged_by_a_drive_that_fails(bench):
    async with bench.open() as drive:
        bench.fail_commits()
        with pytest.raises(DriveError):
            await drive.look([note(header(1), at(bench, 1))])
        with pytest.raises(DriveError):
            await drive.look([note(header(1), at(bench, 1))])


async def test_of_two_looks_the_one_that_says_more_stays(bench):
    less, more = (note(header(1), at(bench, 1), seen=seen) for seen in (False, True))
    async with bench.open() as drive:
        await drive.look([more])
        await drive.look([less])
        assert await looks(bench) == [more]


async def test_a_shard_that_is_collected_goes_with_its_look(bench):
    shard = attrs.evolve(header(1, at(bench, 1)), home=HOME)
    async with bench.open() as drive:
        await stage(drive, shard, SMALL)
        assert await looks(bench) == []  # nobody asks before its age
        await drive.look([note(shard, at(bench, 2))])
        await settle(bench, Verdict.COLLECT)

        async def is_gone():
            await drive.collect()
            return await drive.stat_shard(shard.data_id, 0) is None

        await until(is_gone)


async def test_a_shard_that_is_kept_is_owed_where_it_is_not(bench):
    here, lacking = header(1), header(2)
    async with bench.open() as drive:
        await stage(drive, here, SMALL)
        await drive.look([note(here, at(bench, 1)), note(lacking, at(bench, 1))])
        await settle(bench, Verdict.KEEP)

        async def is_owed():
            return (await drive.status()).heal_debt == 1

        await until(is_owed)
        # What comes later is looked at, however little it says.
        again = note(here, BALLOT_ZERO)
        await drive.look([again])
        assert await looks(bench) == [again]


async def test_a_look_that_must_wait_comes_again(bench):
    async with bench.open() as drive:
        await drive.look([note(header(1), at(bench, 1))])
        await settle(bench, Verdict.LATER, again_ms=60_000)
        await settle(bench, Verdict.OPEN, again_ms=1)
        bench.crash()
    async with bench.open():
        assert await looks(bench) == []


async def test_a_body_whose_register_is_elsewhere_is_no_orphan_of_this_set(bench):
    mine, away = header(1), attrs.evolve(header(2), home=HOME)
    after, before = header(0).data_id, header(9).data_id
    async with bench.open() as drive:
        await stage(drive, mine, SMALL)
        await stage(drive, away, SMALL)
        bench.crash()
    async with bench.open() as drive:
        question = Unreferenced(after=after, before=before, limit=10, epoch=1)
        page = await expect(drive, question, ShardPage)
        assert [shard.data_id for shard in page.shards] == [mine.data_id]
        assert [found.home for found in await looks(bench)] == [HOME]  # it is old enough


def elsewhere(ballot, shard, staged):
    state = stored(ballot, shard, staged=staged)
    (version,) = state.versions
    (part,) = version.parts
    part = msgspec.structs.replace(part, set_id=1, k=2, m=1)
    return msgspec.structs.replace(
        state, versions=(msgspec.structs.replace(version, parts=(part,)),)
    )


async def test_a_register_keeps_hints_until_they_are_told(bench):
    first, second = at(bench, 1), at(bench, 2)
    shard = header(1, first)
    async with bench.open() as drive:
        await expect(drive, accept(first, elsewhere(first, shard, 0b101)), Accepted)
        (found,) = await hints(bench)
        assert (found.set_id, found.home, found.owner, found.positions) == (1, 0, ROW, 0b010)
        await expect(drive, learn(first), Done)
        await expect(drive, accept(second, tombstone(second), base=first), Accepted)
        bench.crash()
    async with bench.open() as drive:
        (found,) = await hints(bench)
        assert (found.positions, found.seen) == (0b111, True)
        notes = notes_of(bench)
        notes._now_ms = lambda: FAR * 10_000
        (due,) = await notes.due(NoteKind.HINT)
        notes.told(due, 0b101, 0)

        async def is_told():
            left = await notes.due(NoteKind.HINT)
            return [due.note.positions for due in left] == [0b010]

        await until(is_told)
        (left,) = await notes.due(NoteKind.HINT)
        notes.told(due, -1, 0)  # an old answer does not remove what is left
        await trio.sleep(0.02)
        assert await notes.due(NoteKind.HINT) == [left]
        notes.told(left, 0b010, 0)

        async def is_forgotten():
            return not await notes.due(NoteKind.HINT)

        await until(is_forgotten)


async def test_the_hints_of_a_dead_bucket_say_so(bench):
    ballot = at(bench, 1)
    shard = header(1, ballot)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, elsewhere(ballot, shard, 0b111)), Accepted)
        assert await hints(bench) == []
        await expect(drive, Fence(bucket=BUCKET, bucket_epoch=2, dead=True), Done)

        async def is_told():
            await drive.collect()
            found = await hints(bench)
            return [(n.dead, n.positions) for n in found] == [(True, 0b111)]

        await until(is_told)
