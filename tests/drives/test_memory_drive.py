"""The faults of a MemoryDrive are those of real drives: lost, torn, wrong or late, but never wrong bytes."""

import pytest
import trio

from cluster.drives.drive import DriveState, ShardCorruptError, ShardMissingError
from cluster.register.messages import Accepted, Value
from cluster.register.records import BOTTOM
from tests.contracts.benches import (
    BLOCK,
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
from tests.sim.run import simulate

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
            bench = MemoryBench()
            bench.runtime.rng = rng
            bench.started_ms = 1
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
