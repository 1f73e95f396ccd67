"""A disk that does not answer: the drive is out after a while, whoever waits is told, and nobody's stop waits for it."""

import threading

import attrs
import pytest
import trio

from cluster.drives.drive import DriveError, DriveState
from cluster.drives.file_threads import THREADS, FileThreads
from cluster.drives.local_stage import LocalStage
from cluster.drives.shard_files import list_shards
from cluster.register.messages import Failed
from tests.contracts.benches import BLOCK, LocalBench, ask, header, query, stage

LARGE = [bytes(BLOCK), b"the rest"]
QUICK = {"guard_seconds": 0.02, "hung_seconds": 0.1}


@pytest.fixture
def bench(tmp_path):
    return LocalBench(tmp_path)


@pytest.fixture
def gate():
    """Closed until the test opens it; the thread that hangs there ends with the test."""
    event = threading.Event()
    yield event
    event.set()


def hang(tools, verb, gate):
    """From now on this file function does not return before the gate is open; an event tells that it hangs."""
    do, arrived = getattr(tools, verb), threading.Event()

    def hanging(*arguments):
        arrived.set()
        gate.wait(20)
        return do(*arguments)

    setattr(tools, verb, hanging)
    return arrived


async def until(condition):
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what happens in a thread sets no event
            await trio.sleep(0.005)


@pytest.mark.parametrize("verb", ["append", "sync_file", "sync_directory"])
async def test_a_write_or_sync_that_hangs_takes_the_drive_out_and_lets_everybody_go(
    bench, gate, verb
):
    bench.settings = attrs.evolve(bench.settings, **QUICK)
    told = []
    with trio.fail_after(5):  # the stop included: the gate is closed all the time
        async with bench.open() as drive:
            hang(bench.tools, verb, gate)

            async def staging(number):
                with pytest.raises(DriveError, match="hung"):
                    await stage(drive, header(number), LARGE)
                told.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(THREADS + 2):  # more than there are threads
                    nursery.start_soon(staging, number)
            assert drive.state is DriveState.FAULTY
            assert sorted(told) == list(range(THREADS + 2))
            assert isinstance(await ask(drive, query()), Failed)
            assert (await drive.status()).state is DriveState.FAULTY


async def test_a_read_that_hangs_takes_the_drive_out(bench, gate):
    bench.settings = attrs.evolve(bench.settings, **QUICK)
    with trio.fail_after(5):
        async with bench.open() as drive:
            await stage(drive, header(), LARGE)
            hang(bench.tools, "read", gate)
            with pytest.raises(DriveError, match="hung"):
                await drive.read_blocks(header(), 0, [BLOCK])
            assert drive.state is DriveState.FAULTY


async def test_a_folder_whose_look_hangs_is_noticed_though_the_guard_hangs(bench, gate):
    bench.settings = attrs.evolve(bench.settings, **QUICK)
    with trio.fail_after(5):
        async with bench.open() as drive:
            hang(drive.folder.guard, "check", gate)
            await until(lambda: drive.state is DriveState.FAULTY)


async def test_a_stop_does_not_wait_for_a_write_that_hangs_and_is_not_clean(bench, gate):
    with trio.fail_after(10):
        async with bench.open() as drive, trio.open_nursery() as nursery:
            arrived = hang(bench.tools, "sync_file", gate)
            nursery.start_soon(stage, drive, header(), LARGE)
            await until(arrived.is_set)
            nursery.cancel_scope.cancel()
    gate.set()
    async with bench.open() as drive:
        assert not drive.was_clean
        # The thread may have finished the file by now; without a row it is no shard.
        assert await drive.stat_shard(header().data_id, 0) is None


@pytest.mark.parametrize("verb", ["create", "append", "sync_file"])
async def test_a_cancelled_write_goes_at_once_and_its_file_when_the_thread_is_through(
    bench, gate, verb
):
    def files():
        return list(list_shards(bench.root))

    async with bench.open() as drive:
        arrived, begun = hang(bench.tools, verb, gate), trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage, drive, header(), LARGE)
            await until(arrived.is_set)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - begun < 5  # the gate would open by itself after 20
        assert len(files()) == (0 if verb == "create" else 1)
        gate.set()
        await trio.sleep(0.2)
        await until(lambda: not files())
        assert drive.state is DriveState.ACTIVE
        await stage(drive, header(2), LARGE)
    async with bench.open() as drive:
        assert drive.was_clean
        assert len(files()) == 1


async def test_files_of_aborted_stages_are_gone_after_a_stop(bench):
    bench.settings = attrs.evolve(bench.settings, free_seconds=60)
    async with bench.open() as drive:
        writing = drive.open_stage(header(), 0)
        await writing.write(LARGE)
        writing.abort()
    assert list(list_shards(bench.root)) == []


class SlowStart:
    """A drive whose threads begin when the test says so."""

    state, reason = DriveState.ACTIVE, ""

    def __init__(self):
        self.works, self.discards = [], []

    async def offload(self, work):
        self.works.append(work)
        await trio.sleep_forever()

    def discard_later(self, discard):
        self.discards.append(discard)


async def test_a_thread_that_begins_after_the_stage_was_given_up_writes_nothing(bench):
    drive = SlowStart()
    stage = LocalStage(drive, bench.root, bench.plan.cluster, header(), bench.tools)
    with trio.move_on_after(0.01):
        await stage.write(LARGE)
    stage.abort()
    assert len(drive.discards) == 1
    for discard in drive.discards:
        discard()
    for work in drive.works:
        work()
    assert list(list_shards(bench.root)) == []
    with pytest.raises(DriveError):
        await stage.close(bytes(32))


# -- opening


async def test_a_drive_is_opened_off_the_trio_thread(bench):
    gate, passed = threading.Event(), []
    bench.tools.sync_directory = lambda _: passed.append(gate.wait(2))

    async def meanwhile():
        gate.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(meanwhile)
        async with bench.open():
            pass
    assert passed
    assert all(passed)


async def test_an_opening_that_hangs_can_be_cancelled_and_keeps_nothing(bench, gate):
    arrived, begun = hang(bench.tools, "sync_directory", gate), trio.current_time()
    async with trio.open_nursery() as nursery:

        async def opening():
            async with bench.open():
                raise AssertionError("it was given up")

        nursery.start_soon(opening)
        await until(arrived.is_set)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - begun < 5  # the gate would open by itself after 20
    gate.set()
    await trio.sleep(0.2)
    async with bench.open() as drive:
        assert drive.state is DriveState.ACTIVE


# -- the threads alone


async def test_work_returns_its_result_or_its_error():
    threads = FileThreads()
    assert await threads.run(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert threads.longest(5.0) == 0
    with trio.fail_after(1):
        await threads.settle()


async def test_the_age_of_work_counts_from_when_it_runs_and_not_from_when_it_waits(gate):
    threads = FileThreads()
    second = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(THREADS):
            nursery.start_soon(threads.run, lambda: gate.wait(5))
        await until(lambda: len(threads._running) == THREADS)
        assert threads.longest(10.0) == 0
        assert threads.longest(13.0) == 3
        nursery.start_soon(threads.run, lambda: second.wait(5))
        assert threads.longest(14.0) == 4
        gate.set()
        await until(lambda: len(threads._running) == 1)
        assert threads.longest(15.0) == 0
        assert threads.longest(16.0) == 1
        second.set()


async def test_long_work_is_not_watched_and_abandoned_work_still_is(gate):
    threads = FileThreads()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: threads.run(lambda: gate.wait(5), may_take_long=True))
        await trio.sleep(0.02)
        assert threads.longest(1.0) == 0
        assert threads.longest(9.0) == 0
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, lambda: gate.wait(5))
        await until(lambda: len(threads._running) == 1)
        nursery.cancel_scope.cancel()
    assert threads.longest(10.0) == 0
    assert threads.longest(12.0) == 2
    with trio.move_on_after(0.05) as scope:
        await threads.settle()
    assert scope.cancelled_caught


async def test_a_drive_that_is_given_up_begins_nothing_more():
    threads = FileThreads()
    threads.fail("worn out")
    threads.fail("again")
    with pytest.raises(DriveError, match="worn out"):
        await threads.run(lambda: 1)
