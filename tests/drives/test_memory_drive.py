"""The faults of a MemoryDrive are those of real drives: lost, torn, wrong or late, but never wrong bytes."""

import pytest
import trio
import trio.testing

from cluster.drives.drive import DriveError, DriveState, ShardCorruptError, ShardMissingError
from cluster.register.keys import object_row
from cluster.register.messages import Accepted, Failed, Value
from cluster.register.records import BOTTOM
from tests.contracts.benches import (
    BLOCK,
    BUCKET,
    Answers,
    MemoryBench,
    accept,
    ask,
    at,
    expect,
    header,
    live,
    query,
    stage,
)
from tests.sim.run import SimRuntime, simulate

BLOCKS = [bytes([number]) * BLOCK for number in range(4)]


async def read_each(drive, shard, blocks):
    """How many blocks are served; each of them must be right."""
    good = 0
    for number, block in enumerate(blocks):
        try:
            views = await drive.read_blocks(shard, number, [len(block)])
        except (ShardCorruptError, ShardMissingError):
            continue
        assert bytes(views[0]) == block
        good += 1
    return good


async def test_what_is_pending_at_a_crash_is_lost_and_nobody_is_answered():
    bench = MemoryBench()
    async with bench.open() as drive:
        answers = Answers()
        drive.submit(accept(at(bench, 1), live(at(bench, 1))), answers)
        drive.crash()
        await trio.sleep(0.02)
        assert answers.replies == []
        assert await ask(drive, query()) == Value(BOTTOM)


async def test_a_batch_that_nobody_was_told_of_is_wholly_lost_or_wholly_there():
    rows = [object_row(BUCKET, b"%d" % number) for number in range(3)]
    seen = set()
    for seed in range(20):
        bench = MemoryBench()
        bench.runtime.rng.seed(seed)
        ballot = at(bench, 1)
        async with bench.open() as drive:
            for row in rows:
                await expect(drive, query(row), Value)
            writing, answers = drive.open_stage(header(), 0), Answers()
            await writing.write(BLOCKS)
            drive.faults.commit_seconds = 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refused, writing)
                for row in rows:
                    drive.submit(accept(ballot, live(ballot), row), answers)
                await trio.testing.wait_all_tasks_blocked()
                flying = drive._commits.flying
                drive.crash()
            drive.faults.commit_seconds = 0.002
            assert answers.replies == []
            there = [(await expect(drive, query(row), Value)).register for row in rows]
            is_shard_there = await drive.stat_shard(header().data_id, 0) is not None
            parts = [
                (row in flying.heads, held != BOTTOM) for row, held in zip(rows, there, strict=True)
            ]
            parts.append((bool(flying.shards), is_shard_there))
            kept = {is_there for is_flying, is_there in parts if is_flying}
            assert len(kept) == 1
            assert not any(is_there for is_flying, is_there in parts if not is_flying)
            seen |= kept
            bench.crash()
        async with bench.open() as drive:  # what was there once stays
            assert [(await expect(drive, query(row), Value)).register for row in rows] == there
    assert seen == {False, True}


async def refused(writing):
    with pytest.raises(DriveError):
        await writing.close(bytes(64))


async def test_a_write_that_fails_takes_the_drive_out():
    failed = set()
    for seed in range(30):
        bench = MemoryBench()
        bench.runtime.rng.seed(seed)
        async with bench.open() as drive:
            await stage(drive, header(1), BLOCKS)
            drive.faults.eio_rate = 0.2
            try:
                for number in range(2, 100):
                    await stage(drive, header(number), BLOCKS)
            except DriveError:
                failed.add(drive.reason)
            assert drive.state is DriveState.FAULTY
            assert isinstance(await ask(drive, query()), Failed)
            with pytest.raises(DriveError):
                drive.open_stage(header(100), 0)
    assert len(failed) == 2  # blocks of a shard, and batches of the index


async def test_a_lying_fsync_shows_at_the_crash_as_a_torn_shard():
    served = set()
    for _ in range(20):
        bench = MemoryBench()
        bench.runtime.rng.seed(_)
        async with bench.open() as drive:
            drive.faults.fsync_lies = True
            await stage(drive, header(1), BLOCKS)
            assert await read_each(drive, header(1), BLOCKS) == 4
            drive.faults.fsync_lies = False
            await stage(drive, header(2), BLOCKS)
            drive.crash()
            served.add(await read_each(drive, header(1), BLOCKS))
            assert await read_each(drive, header(2), BLOCKS) == 4
    assert len(served) > 2


async def test_rotten_and_misdirected_blocks_are_noticed():
    bench = MemoryBench()
    async with bench.open() as drive:
        assert not drive.platter.rot(bench.runtime.rng)
        assert not drive.platter.misdirect(bench.runtime.rng)
        assert not drive.platter.corrupt_row(bench.runtime.rng)
        for number in (1, 2):
            await stage(drive, header(number), BLOCKS)
        assert drive.platter.rot(bench.runtime.rng)
        served = [await read_each(drive, header(number), BLOCKS) for number in (1, 2)]
        assert sorted(served) == [3, 4]
        assert drive.platter.misdirect(bench.runtime.rng)
        assert sum([await read_each(drive, header(number), BLOCKS) for number in (1, 2)]) <= 7


async def test_a_hung_drive_answers_nothing_and_a_vanished_one_has_nothing():
    bench = MemoryBench()
    async with bench.open() as drive:
        await expect(drive, accept(at(bench, 1), live(at(bench, 1))), Accepted)
        await stage(drive, header(), BLOCKS)
        drive.faults.hung = True
        answers = Answers()
        drive.submit(query(), answers)
        with trio.move_on_after(0.05) as scope:
            await drive.read_blocks(header(), 0, [BLOCK])
        assert scope.cancelled_caught
        assert answers.replies == []
        drive.faults.hung = False
        drive.vanish()
        assert drive.state is DriveState.MISSING
        assert not drive.platter.index.rows
        assert not drive.platter.shards


@pytest.mark.sim
def test_a_run_is_a_function_of_its_seed():
    def run(seed):
        async def main(rng, trace):
            bench = MemoryBench(runtime=SimRuntime(rng))
            async with bench.open() as drive, trio.open_nursery() as nursery:

                async def one(number):
                    ballot = at(bench, number)
                    reply = await ask(drive, accept(ballot, live(ballot)))
                    trace.say(number, reply)

                for number in range(1, 20):
                    nursery.start_soon(one, number)

        return simulate(main, seed=seed).digest

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("moment", [0.5, 1.5])
def test_a_shard_that_is_taken_back_is_never_called_present_and_is_owed(moment):
    """Cancelled while its row commits: the file goes after the row, whenever the power fails."""

    async def main(rng, trace):
        bench = MemoryBench(runtime=SimRuntime(rng))
        async with bench.open() as drive:
            drive.faults.commit_seconds = 1.0
            shard = header()
            writing = drive.open_stage(shard, 0)
            await writing.write(BLOCKS)
            with trio.move_on_after(moment):
                await writing.close(b"")
            await trio.sleep(rng.uniform(0, 3))
            drive.crash()
            key = (shard.data_id, shard.position)
            present = key in drive.platter.index.shards
            assert key in drive.platter.shards or not present

    for seed in range(30):
        simulate(main, seed=seed)


async def test_what_a_shard_owed_is_owed_again_when_it_is_taken_back(autojump_clock):
    bench = MemoryBench()
    async with bench.open() as drive:
        shard = header()
        drive.note_bad_shard(shard, "missing")
        await trio.sleep(1)
        drive.faults.commit_seconds = 1.0
        writing = drive.open_stage(shard, 0)
        await writing.write(BLOCKS)
        with trio.move_on_after(0.3):
            await writing.close(b"")
        await trio.sleep(5)
        assert (await drive.status()).heal_debt == 1
        assert not drive.platter.holds(shard.data_id, shard.position)
        assert (shard.data_id, shard.position) not in drive.platter.shards
