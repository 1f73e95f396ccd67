"""Pages of a drive's rows for listings: what is durable, with the chosen flags that are about to be."""

from collections.abc import Callable

from cluster.drives.group_read import GroupRead
from cluster.drives.index_rows import IndexReads
from cluster.drives.roll_up import roll_up
from cluster.drives.row_cache import Row
from cluster.ids import RowKey
from cluster.register.acceptor import Acceptor
from cluster.register.keys import object_row, successor
from cluster.register.messages import CHOSEN, Failed, Page, Reply, Scan, ScanRow, ScanUploads

ReplyTo = Callable[[Reply], None]
_DURABLE = 0  # the batch of what was read from the index


class Scans:
    """`cached` gives a row that is in memory; `when_shown` answers, unless the drive has failed while the page was read."""

    def __init__(
        self,
        acceptor: Acceptor,
        reads: GroupRead,
        cached: Callable[[RowKey], Row | None],
        when_shown: Callable[[int, ReplyTo, Reply], None],
    ) -> None:
        self._acceptor, self._reads = acceptor, reads
        self._cached, self._when_shown = cached, when_shown

    def handle(self, request: Scan | ScanUploads, reply: ReplyTo) -> None:
        """Answer one page."""
        refusal = self._acceptor.gate(request.start, request.epoch, request.bucket_epoch)
        if refusal is not None:
            reply(refusal)
        elif isinstance(request, Scan):
            self._scan(request, reply)
        else:
            self._scan_uploads(request, reply)

    def _scan(self, request: Scan, reply: ReplyTo) -> None:
        def work(index: IndexReads) -> tuple[list[ScanRow], RowKey | None]:
            if request.delimiter:
                return roll_up(
                    index.scan,
                    request.start,
                    request.stop,
                    request.limit,
                    request.delimiter,
                    request.prefix_len,
                )
            rows = index.scan(request.start, request.stop, request.limit)
            return rows, RowKey(rows[-1].row + b"\0") if len(rows) == request.limit else None

        def landed(result: tuple[list[ScanRow], RowKey | None] | None, error: str) -> None:
            if result is None:
                reply(Failed(error))
            else:
                rows = [row if row.flags & CHOSEN else self._overlay(row) for row in result[0]]
                self._when_shown(_DURABLE, reply, Page(rows, result[1]))

        self._reads.submit(work, landed)

    def _overlay(self, found: ScanRow) -> ScanRow:
        """A row as stored, with the chosen flag that may not be durable yet."""
        row = self._cached(found.row)
        if (
            row is not None
            and row.register is not None
            and row.register.chosen
            and row.register.ballot.pack() == found.ballot
        ):
            return found._replace(flags=found.flags | CHOSEN)
        return found

    def _scan_uploads(self, request: ScanUploads, reply: ReplyTo) -> None:
        stop = RowKey(successor(object_row(request.bucket, b"")) or b"")

        def landed(rows: list[RowKey] | None, error: str) -> None:
            if rows is None:
                reply(Failed(error))
            else:
                more = RowKey(rows[-1] + b"\0") if len(rows) == request.limit else None
                page = Page([ScanRow(row, None, 0, b"") for row in rows], more)
                self._when_shown(_DURABLE, reply, page)

        self._reads.submit(lambda index: index.uploads(request.start, stop, request.limit), landed)
