"""The two threads of a SQLite index: one that commits batches, one that reads."""

import queue
import threading
from collections.abc import Callable

import apsw
import trio

from cluster.drives.group_commit import Landed
from cluster.drives.group_read import Deliver, Read, Result
from cluster.drives.index import Index
from cluster.drives.index_rows import Batch


class WriterThread:
    """Commits the batches that are handed over, in order."""

    def __init__(self, apply: Callable[[Batch], None]) -> None:
        self._apply = apply
        self._token = trio.lowlevel.current_trio_token()
        self._handed: queue.SimpleQueue[tuple[Batch, Landed] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._work, name="storectl-index-writer", daemon=True
        )
        self._thread.start()

    def begin(self, batch: Batch, landed: Landed) -> None:
        """Hand a batch over; never blocks."""
        self._handed.put((batch, landed))

    def _work(self) -> None:
        while (handed := self._handed.get()) is not None:
            batch, landed = handed
            error = ""
            try:
                self._apply(batch)
            except (apsw.Error, OSError) as caught:
                error = f"the index cannot be written: {type(caught).__name__}: {caught}"
            try:
                self._token.run_sync_soon(landed, batch, error)
            except trio.RunFinishedError:
                return

    def stop(self) -> None:
        """End the thread when it is through with its batch; never blocks."""
        self._handed.put(None)

    def join(self) -> None:
        """Wait for the thread, in a worker thread: it may hang."""
        self._thread.join()


class ReaderThread:
    """Answers reads over a connection of its own."""

    def __init__(self, open_index: Callable[[], Index]) -> None:
        self._open_index = open_index
        self._token = trio.lowlevel.current_trio_token()
        self._handed: queue.SimpleQueue[tuple[list[Read], Deliver] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._work, name="storectl-index-reader", daemon=True
        )
        self._thread.start()

    def begin(self, reads: list[Read], deliver: Deliver) -> None:
        """Hand reads over; never blocks."""
        self._handed.put((reads, deliver))

    def _work(self) -> None:
        index: Index | None = None
        while (handed := self._handed.get()) is not None:
            reads, deliver = handed
            results: list[Result] = []
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
                self._token.run_sync_soon(deliver, results)
            except trio.RunFinishedError:
                break
        if index is not None:
            index.close()

    def stop(self) -> None:
        """End the thread; never blocks."""
        self._handed.put(None)

    def join(self) -> None:
        """Wait for the thread, in a worker thread: it may hang."""
        self._thread.join()
