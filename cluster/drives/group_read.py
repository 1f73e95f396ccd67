"""Group reads: the questions of one Trio tick go to the index together, and head rows among them in one statement."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import trio

from cluster.drives.index_rows import HeadRow, IndexReads
from cluster.ids import RowKey

T = TypeVar("T")
MAX_READS = 4096  # that wait for an answer

Read: TypeAlias = tuple[Callable[[IndexReads], Any], Callable[[Any, str], None]]  # work, done
Result: TypeAlias = tuple[
    Callable[[Any, str], None], Any, str, bool
]  # done, value, error, is_broken
Deliver: TypeAlias = Callable[[list[Result]], None]
Begin: TypeAlias = Callable[
    [list[Read], Deliver], None
]  # never blocks; the call comes on the Trio thread
Soon: TypeAlias = Callable[[Callable[[], None]], None]  # call it when this tick is over
RowSink: TypeAlias = Callable[[dict[RowKey, HeadRow | None], list[RowKey], str], None]


class GroupRead:
    """`begin` hands a tick's reads to whoever has the index; it answers all of them at once."""

    def __init__(
        self, begin: Begin, soon: Soon, on_broken: Callable[[str], None] = lambda _: None
    ) -> None:
        self._begin, self._soon = begin, soon
        self._on_broken = on_broken
        self._pending = 0
        self._waiting: list[Read] = []
        self._rows: dict[RowKey, None] = {}
        self._row_sink: RowSink | None = None
        self._kicked = False

    @property
    def is_full(self) -> bool:
        """Whether more reads wait than may."""
        return self._pending + len(self._rows) >= MAX_READS

    def set_row_sink(self, sink: RowSink) -> None:
        """Who takes head rows: (found, wanted, error)."""
        self._row_sink = sink

    def want_row(self, row: RowKey) -> None:
        """Read a head row; it arrives at the row sink."""
        self._rows[row] = None
        self._kick()

    def submit(
        self, work: Callable[[IndexReads], T], done: Callable[[T | None, str], None]
    ) -> None:
        """Run `work` where the index is; `done(result, error)` is called on the Trio thread."""
        self._waiting.append((work, done))
        self._pending += 1
        self._kick()

    async def run(self, work: Callable[[IndexReads], T]) -> T:
        """Run `work` where the index is. Raises OSError where the index cannot be read."""
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
            self._soon(self._launch)

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
        self._begin(reads, self._deliver)

    def _deliver(self, results: list[Result]) -> None:
        self._pending -= len(results)
        for done, value, error, is_broken in results:
            if is_broken:
                self._on_broken(error)
            done(value, error)
