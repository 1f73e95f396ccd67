"""The two threads of an index: one that writes by group commit, one that reads.

Operations of one Trio tick are gathered and handed over with one wake-up; results of one batch come back with one wake-up. While
the writer commits, the next batch fills: at most one is in flight and one is filling, so the queue is bounded by the number of
operations a batch may hold.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import apsw
import trio

from cluster.drives.index import Index
from cluster.drives.index_rows import Batch, HeadRow
from cluster.ids import RowKey

T = TypeVar("T")
MAX_OPERATIONS = 4096  # in the filling batch; beyond, the drive says that it is overloaded
MAX_READS = 4096  # that wait for an answer
COMMIT_SEQ = "commit_seq"  # the control value that names the last durable batch

_Read = tuple[Callable[[Index], Any], Callable[[Any, str], None]]
_Result = tuple[Callable[[Any, str], None], Any, str, bool]  # done, value, error, broken


class GroupCommit:
    """Fills batches on the Trio thread, commits them on its own. `seq` names the filling batch, `durable` the last committed.

    Both go on rising where the index left off: a drive whose numbers fall has forgotten something.
    """

    def __init__(
        self,
        apply: Callable[[Batch], None],
        on_failure: Callable[[str], None],
        *,
        durable: int = 0,
    ) -> None:
        self._apply = apply
        self._on_failure = on_failure
        self._token = trio.lowlevel.current_trio_token()
        self._handed: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._flying: Batch | None = None
        self._kicked = False
        self.flying_since = 0.0
        self.batch = Batch()
        self.seq = durable + 1
        self.durable = durable
        self.failed = ""
        self.on_durable: Callable[[], None] = lambda: None
        self._thread = threading.Thread(
            target=self._work, name="storectl-index-writer", daemon=True
        )
        self._thread.start()
        self._idle = trio.Event()

    @property
    def is_full(self) -> bool:
        """Whether more operations wait than a batch may hold."""
        return self.batch.operations >= MAX_OPERATIONS

    @property
    def is_flying(self) -> bool:
        """Whether a batch is being committed."""
        return self._flying is not None

    def touch(self) -> None:
        """Something was put into `batch`: it is committed when the tick is over and the writer is free."""
        self.batch.operations += 1
        if self._flying is None and not self._kicked:
            self._kicked = True
            self._token.run_sync_soon(self._launch)

    def when_durable(self, seq: int, call: Callable[[bool], None]) -> None:
        """Call back when batch `seq` is durable (True) or lost (False); at once where that is known."""
        if seq <= self.durable:
            call(True)
        elif self.failed:
            call(False)
        elif seq == self.seq:
            self.batch.done.append(call)
            if self._flying is None and not self._kicked:
                self.touch()
        else:
            assert self._flying is not None
            self._flying.done.append(call)

    def _launch(self) -> None:
        self._kicked = False
        if self._flying is None and not self.failed and self.batch.operations:
            self._flying, self.batch = self.batch, Batch()
            self._flying.ctl[COMMIT_SEQ] = b"%d" % self.seq
            self.seq += 1
            self.flying_since = trio.current_time()
            self._handed.put(self._flying)

    def _work(self) -> None:
        while (batch := self._handed.get()) is not None:
            error = ""
            try:
                self._apply(batch)
            except (apsw.Error, OSError) as caught:
                error = f"the index cannot be written: {type(caught).__name__}: {caught}"
            try:
                self._token.run_sync_soon(self._landed, batch, error)
            except trio.RunFinishedError:
                return

    def _landed(self, batch: Batch, error: str) -> None:
        if self._flying is not batch:
            return  # given up meanwhile, and its waiters were told
        if error:
            self.fail(error)
            return
        self._flying = None
        self.durable += 1
        for call in batch.done:
            call(True)
        self.on_durable()
        self._launch()

    def fail(self, reason: str) -> None:
        """Nothing will be committed any more: whoever waits is told."""
        if self.failed:
            return
        self.failed = reason
        lost = [] if self._flying is None else self._flying.done  # it may hang for ever
        lost += self.batch.done
        self._flying, self.batch = None, Batch()
        self._on_failure(reason)
        for call in lost:
            call(False)

    async def drain(self) -> None:
        """Until everything that was put in is durable."""
        while not self.failed and (self._flying is not None or self.batch.operations):
            await self.committed(self.seq if self.batch.operations else self.seq - 1)

    async def committed(self, seq: int) -> bool:
        """Wait until batch `seq` is durable; False: it is lost."""
        landed = trio.Event()
        verdict: list[bool] = []

        def call(is_durable: bool) -> None:
            verdict.append(is_durable)
            landed.set()

        self.when_durable(seq, call)
        await landed.wait()
        return verdict[0]

    def stop(self) -> None:
        """End the thread when it is through with its batch; never blocks."""
        self._handed.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the thread (in a worker thread)."""
        self._thread.join(seconds)


class Reader:
    """Reads of one index on a thread of its own. Head rows that are wanted in one tick are read by one statement."""

    def __init__(
        self, open_index: Callable[[], Index], on_broken: Callable[[str], None] = lambda _: None
    ) -> None:
        self._open_index = open_index
        self._on_broken = on_broken
        self._pending = 0
        self._token = trio.lowlevel.current_trio_token()
        self._handed: queue.SimpleQueue[list[_Read] | None] = queue.SimpleQueue()
        self._waiting: list[_Read] = []
        self._rows: dict[RowKey, None] = {}
        self._row_sink: Callable[[dict[RowKey, HeadRow | None], list[RowKey], str], None] | None = (
            None
        )
        self._kicked = False
        self._thread = threading.Thread(
            target=self._work, name="storectl-index-reader", daemon=True
        )
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether more reads wait than may."""
        return self._pending + len(self._rows) >= MAX_READS

    def set_row_sink(
        self, sink: Callable[[dict[RowKey, HeadRow | None], list[RowKey], str], None]
    ) -> None:
        """Who takes head rows: (found, wanted, error)."""
        self._row_sink = sink

    def want_row(self, row: RowKey) -> None:
        """Read a head row; it arrives at the row sink."""
        self._rows[row] = None
        self._kick()

    def submit(self, work: Callable[[Index], T], done: Callable[[T | None, str], None]) -> None:
        """Run `work` on the reading thread; `done(result, error)` is called on the Trio thread."""
        self._waiting.append((work, done))
        self._pending += 1
        self._kick()

    async def run(self, work: Callable[[Index], T]) -> T:
        """Run `work` on the reading thread. Raises OSError where the index cannot be read."""
        landed = trio.Event()
        result: list[Any] = []

        def done(value: T | None, error: str) -> None:
            result.extend((value, error))
            landed.set()

        self.submit(work, done)
        await landed.wait()
        if result[1]:
            raise OSError(result[1])
        value: T = result[0]
        return value

    def _kick(self) -> None:
        if not self._kicked:
            self._kicked = True
            self._token.run_sync_soon(self._launch)

    def _launch(self) -> None:
        self._kicked = False
        reads, self._waiting = self._waiting, []
        if self._rows and self._row_sink is not None:
            wanted, self._rows = list(self._rows), {}
            sink = self._row_sink

            def land(found: dict[RowKey, HeadRow | None] | None, error: str) -> None:
                sink(found or {}, wanted, error)

            self._pending += 1
            reads.insert(0, (lambda index: index.heads(wanted), land))
        self._handed.put(reads)

    def _work(self) -> None:
        index: Index | None = None
        while (reads := self._handed.get()) is not None:
            results: list[_Result] = []
            for work, done in reads:
                try:
                    if index is None:
                        index = self._open_index()
                    results.append((done, work(index), "", False))
                except (apsw.BusyError, apsw.NoMemError, apsw.CantOpenError) as error:
                    results.append((done, None, f"the index cannot be read now: {error}", False))
                except (apsw.Error, OSError) as error:
                    results.append((done, None, f"the index cannot be read: {error}", True))
            try:
                self._token.run_sync_soon(self._deliver, results)
            except trio.RunFinishedError:
                break
        if index is not None:
            index.close()

    def _deliver(self, results: list[_Result]) -> None:
        self._pending -= len(results)
        for done, value, error, is_broken in results:
            if is_broken:
                self._on_broken(error)
            done(value, error)

    def stop(self) -> None:
        """End the thread; never blocks."""
        self._handed.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the thread (in a worker thread)."""
        self._thread.join(seconds)
