"""Group commit: what a tick gathers is one batch, an acknowledgement follows a commit, a failure reaches everybody."""

import contextlib
import threading

import apsw
import pytest
import trio

from cluster.drives.group_commit import COMMIT_SEQ, MAX_OPERATIONS, GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.index_threads import ReaderThread, WriterThread


class Disk:
    """Takes batches, one at a time, when it is let."""

    def __init__(self):
        self.gate = threading.Semaphore(0)
        self.batches = []
        self.error = None

    def apply(self, batch):
        self.gate.acquire()
        if self.error is not None:
            raise self.error
        self.batches.append(batch)


@pytest.fixture
async def disk():
    return Disk()


@pytest.fixture
async def failures():
    return []


@contextlib.asynccontextmanager
async def committing(disk, on_failure, *, durable=0):
    """A group commit over a thread."""
    writer = WriterThread(disk.apply)
    yield GroupCommit(writer.begin, soon(), on_failure, life=1, durable=durable)
    disk.gate.release(100)
    writer.stop()
    with trio.fail_after(5):
        await trio.to_thread.run_sync(writer.join, abandon_on_cancel=True)


@contextlib.asynccontextmanager
async def reading(index, on_broken=print):
    """Group reads over a thread."""
    reader = ReaderThread(lambda: index)
    yield GroupRead(reader.begin, soon(), on_broken)
    reader.stop()
    with trio.fail_after(5):
        await trio.to_thread.run_sync(reader.join, abandon_on_cancel=True)


def soon():
    return trio.lowlevel.current_trio_token().run_sync_soon


@pytest.fixture
async def commits(disk, failures):
    async with committing(disk, failures.append) as group:
        yield group


def write(group, name, told):
    """One operation that wants to know."""
    group.batch.ctl[name] = b""
    group.touch()
    group.when_durable(group.seq, lambda durable: told.append((name, durable)))


async def until(condition):
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what happens in a thread sets no event
            await trio.sleep(0.001)


async def test_a_tick_is_one_batch_and_what_comes_during_the_commit_is_the_next(commits, disk):
    told = []
    write(commits, "a", told)
    write(commits, "b", told)
    await until(lambda: commits.flying)
    write(commits, "c", told)
    await trio.sleep(0.02)
    write(commits, "d", told)
    assert told == []
    disk.gate.release()
    await until(lambda: len(told) == 2)
    assert told == [("a", True), ("b", True)]
    disk.gate.release()
    await until(lambda: len(told) == 4)
    assert [set(batch.ctl) for batch in disk.batches] == [
        {"a", "b", COMMIT_SEQ},
        {"c", "d", COMMIT_SEQ},
    ]
    assert [batch.ctl[COMMIT_SEQ] for batch in disk.batches] == [b"1", b"2"]


async def test_numbers_go_on_where_they_stopped(disk):
    async with committing(disk, print, durable=41) as group:
        disk.gate.release(10)
        told = []
        group.when_durable(41, told.append)
        assert told == [True]
        write(group, "a", told)
        assert group.seq == 42
        await group.drain()
        assert group.durable == 42
        assert disk.batches[0].ctl[COMMIT_SEQ] == b"42"


async def test_waiting_for_the_filling_batch_commits_it_even_when_empty(commits, disk):
    disk.gate.release(10)
    with trio.fail_after(5):
        assert await commits.committed(commits.seq)
    assert len(disk.batches) == 1


@pytest.mark.parametrize("error", [apsw.IOError("disk I/O error"), OSError(5, "bad")])
async def test_a_failed_commit_tells_everybody_and_nothing_is_written_after_it(
    commits, disk, failures, error
):
    told = []
    disk.error = error
    write(commits, "a", told)
    await until(lambda: commits.flying)
    write(commits, "b", told)
    disk.gate.release()
    await until(lambda: len(told) == 2)
    assert told == [("a", False), ("b", False)]
    assert len(failures) == 1
    disk.error = None
    disk.gate.release(10)
    write(commits, "c", told)
    assert told[2] == ("c", False)
    await trio.sleep(0.02)
    assert disk.batches == []
    await commits.drain()


async def test_giving_up_on_a_hanging_commit_tells_its_waiters_once(commits, disk, failures):
    told = []
    write(commits, "a", told)
    await until(lambda: commits.flying)
    write(commits, "b", told)
    commits.fail("it hangs")
    commits.fail("again")
    assert told == [("a", False), ("b", False)]
    assert failures == ["it hangs"]
    disk.gate.release(10)
    await until(lambda: disk.batches)
    await trio.sleep(0.02)
    assert told == [("a", False), ("b", False)]
    assert commits.durable == 0


async def test_the_queue_is_bounded(commits):
    for _ in range(MAX_OPERATIONS):
        assert not commits.is_full
        commits.touch()
    assert commits.is_full


class Rows:
    """An index that counts its questions."""

    def __init__(self):
        self.asked = []
        self.error = None

    def heads(self, rows):
        if self.error is not None:
            raise self.error
        self.asked.append(sorted(rows))
        return dict.fromkeys(rows)

    def close(self):
        pass


async def test_rows_of_a_tick_are_read_by_one_question():
    rows, landed = Rows(), []
    async with reading(rows) as reader:
        reader.set_row_sink(lambda found, wanted, error: landed.append((found, wanted, error)))
        for row in (b"b", b"a", b"b"):
            reader.want_row(row)
        assert await reader.run(lambda _: "value") == "value"
        assert rows.asked == [[b"a", b"b"]]
        assert landed == [({b"a": None, b"b": None}, [b"b", b"a"], "")]


@pytest.mark.parametrize(
    ("error", "is_broken"),
    [
        (apsw.CorruptError("malformed"), True),
        (apsw.IOError("bad page"), True),
        (apsw.BusyError("busy"), False),
    ],
)
async def test_a_broken_index_is_reported_and_a_busy_one_is_not(error, is_broken):
    rows, broken, landed = Rows(), [], []
    rows.error = error
    async with reading(rows, broken.append) as reader:
        reader.set_row_sink(lambda found, wanted, error: landed.append(error))
        reader.want_row(b"a")
        await until(lambda: landed)
        assert landed[0]
        assert bool(broken) == is_broken
        with pytest.raises(OSError, match="cannot be read"):
            await reader.run(lambda index: index.heads([b"a"]))


async def test_who_waits_for_a_batch_that_is_empty_is_told_though_nothing_is_put_into_it(
    disk, failures
):
    """A fence that stands already is asked for while a commit is in flight, and nobody writes any more."""
    async with committing(disk, failures.append) as commits:
        commits.touch()
        await trio.sleep(0.05)
        assert commits.flying is not None
        told = trio.Event()
        commits.when_durable(commits.seq, lambda _: told.set())
        disk.gate.release(2)
        with trio.fail_after(5):
            await told.wait()
