"""Listing: the rows of several drives, merged by key, each key judged by its newest copy.

A page of a drive says everything about the rows below its `next`, so what Qr drives have told together is complete below
the smallest `next`. Rows that are not known to be chosen, and corrupt ones, are settled by a quorum read of their own.
With a delimiter a drive names one witness per common prefix: the first row that is live or not known to be chosen. A
witness that all asked drives agree on stands; any other is read by quorum, and when it turns out dead the prefix is searched
for a living row, because an unchosen tombstone on a minority may hide a chosen live row.
"""

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import attrs

from cluster.errors import QuorumError
from cluster.ids import BucketId, RowKey
from cluster.metadata.table import RegisterRef, Table
from cluster.metadata.together import together
from cluster.register.keys import object_row, successor
from cluster.register.messages import CHOSEN, LIVE, Page, Request, Scan, ScanRow, ScanUploads
from cluster.register.records import KeyState, decode_state

PAGE_ROWS = 1024  # one more than S3 asks for in one round


class Found(NamedTuple):
    """A row with its settled state; with `prefix_end`, a common prefix: `row` is the prefix itself."""

    row: RowKey
    state: KeyState | None
    prefix_end: RowKey | None = None


@attrs.frozen(kw_only=True)
class Span:
    """What to scan: rows start <= row < stop of one bucket (None: to the end of everything)."""

    start: RowKey
    stop: RowKey | None
    bucket_epoch: int
    delimiter: bytes = b""
    prefix_len: int = 0


class Scanner:
    """Merged scans over the sets of a generation."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def scan(
        self, sets: Sequence[int], span: Span, limit: int, *, only_live: bool = True
    ) -> tuple[list[Found], RowKey | None]:
        """Up to `limit` rows in order, and where to go on (None: there is nothing more).

        `only_live` leaves out rows without a live version; otherwise every row that is no tombstone is returned.
        Raises QuorumError: never a partial page.
        """
        pages: dict[int, tuple[list[Found], RowKey | None]] = {}

        async def one(set_id: int) -> None:
            pages[set_id] = await self._scan_set(set_id, span, limit, only_live=only_live)

        if len(sets) == 1:
            await one(sets[0])
        else:
            await together(*(partial(one, set_id) for set_id in sets))
        return _merge_sets(list(pages.values()), limit)

    async def scan_uploads(
        self, sets: Sequence[int], bucket: BucketId, bucket_epoch: int, start: bytes, limit: int
    ) -> tuple[list[Found], RowKey | None]:
        """Object rows with open uploads, settled, in order of keys."""
        results = []
        for set_id in sets:
            found: list[Found] = []
            cursor: RowKey | None = object_row(bucket, start)
            while cursor is not None and len(found) < limit:
                ask = partial(_scan_uploads, bucket, bucket_epoch, cursor, limit)
                pages = await self._ask(set_id, ask)
                cursor, views = _complete_rows(pages)
                for view in views:
                    reading = await self._table.read(RegisterRef(view.row, set_id, bucket_epoch))
                    if reading.state.uploads:
                        found.append(Found(view.row, reading.state))
            results.append((found, cursor))
        return _merge_sets(results, limit)

    async def _scan_set(
        self, set_id: int, span: Span, limit: int, *, only_live: bool
    ) -> tuple[list[Found], RowKey | None]:
        found: list[Found] = []
        cursor: RowKey | None = span.start
        while cursor is not None and len(found) < limit:
            if span.stop is not None and cursor >= span.stop:
                return found, None
            ask = partial(_scan, span, cursor, min(PAGE_ROWS, limit - len(found)))
            pages = await self._ask(set_id, ask)
            cursor, views = _complete_rows(pages)
            for view in views:
                if found and found[-1].prefix_end is not None and view.row < found[-1].prefix_end:
                    continue
                if view.rolled_up:
                    item = await self._settle_prefix(set_id, span, view)
                elif view.settled:
                    item = _decode(view, only_live=only_live)
                else:
                    item = await self._ask_again(set_id, span, view.row, only_live=only_live)
                if item is not None:
                    found.append(item)
            if found and found[-1].prefix_end is not None and cursor is not None:
                cursor = max(cursor, found[-1].prefix_end)
        if cursor is not None and len(found) > limit:
            cursor = found[limit].row
        return found[:limit], cursor

    async def _ask(self, set_id: int, ask: Callable[[int], Request]) -> dict[int, Page]:
        inquiry = await self._table.inquire(set_id, ask)
        if len(inquiry.pages) < inquiry.needed:
            raise QuorumError(inquiry.needed, len(inquiry.pages))
        return inquiry.pages

    async def _ask_again(
        self, set_id: int, span: Span, row: RowKey, *, only_live: bool
    ) -> Found | None:
        state = (await self._table.read(RegisterRef(row, set_id, span.bucket_epoch))).state
        if state.is_tombstone or (only_live and state.live is None):
            return None
        return Found(row, state)

    async def _settle_prefix(self, set_id: int, span: Span, view: "_View") -> Found | None:
        cut = view.row.index(span.delimiter, span.prefix_len) + len(span.delimiter)
        prefix = RowKey(view.row[:cut])
        end = successor(prefix)
        assert end is not None  # a row key begins with a bucket id and a kind, never only with 0xff
        if not (view.agreed and view.newest.live):
            start = max(prefix, span.start)
            inside = Span(start=start, stop=RowKey(end), bucket_epoch=span.bucket_epoch)
            alive, _ = await self._scan_set(set_id, inside, 1, only_live=True)
            if not alive:
                return None
        return Found(prefix, None, RowKey(end))


def _scan(span: Span, start: RowKey, limit: int, epoch: int) -> Scan:
    return Scan(
        start=start, stop=span.stop, limit=limit, epoch=epoch, bucket_epoch=span.bucket_epoch,
        delimiter=span.delimiter, prefix_len=span.prefix_len,
    )  # fmt: skip


def _scan_uploads(
    bucket: BucketId, bucket_epoch: int, start: RowKey, limit: int, epoch: int
) -> ScanUploads:
    return ScanUploads(
        bucket=bucket, start=start, limit=limit, epoch=epoch, bucket_epoch=bucket_epoch
    )


class _View(NamedTuple):
    """What the asked drives together say of one row."""

    row: RowKey
    newest: ScanRow
    settled: bool  # the newest copy is known to be chosen, and none is corrupt
    agreed: bool  # every asked drive has this very copy, known to be chosen
    rolled_up: bool


def _decode(view: _View, *, only_live: bool) -> Found | None:
    if only_live and not view.newest.flags & LIVE:
        return None
    state = decode_state(view.newest.encoded)
    if state.is_tombstone or (only_live and state.live is None):
        return None
    return Found(view.row, state)


def _complete_rows(pages: dict[int, Page]) -> tuple[RowKey | None, list[_View]]:
    """Up to where all pages together are complete, and every row below that, in order."""
    bounds = [page.next for page in pages.values() if page.next is not None]
    horizon = min(bounds) if bounds else None
    first, *others = (page.rows for page in pages.values())
    if all(rows == first for rows in others):
        # The rule when nothing is being written: one comparison of whole pages instead of one of every row.
        return horizon, [_agreed(copy) for copy in first]
    rows: dict[RowKey, list[ScanRow]] = {}
    for page in pages.values():
        for copy in page.rows:
            if horizon is None or copy.row < horizon:
                rows.setdefault(copy.row, []).append(copy)
    return horizon, [_compare(row, rows[row], len(pages)) for row in sorted(rows)]


def _agreed(copy: ScanRow) -> _View:
    known = copy.ballot is not None and copy.flags & CHOSEN != 0
    return _View(copy.row, copy, known, known, copy.rolled_up)


def _compare(row: RowKey, copies: list[ScanRow], asked: int) -> _View:
    newest = max(copies, key=lambda copy: copy.ballot or b"")
    intact = all(copy.ballot is not None for copy in copies)
    return _View(
        row,
        newest,
        intact and any(copy.chosen and copy.ballot == newest.ballot for copy in copies),
        intact
        and len(copies) == asked
        and all(copy.chosen and copy.ballot == newest.ballot for copy in copies),
        any(copy.rolled_up for copy in copies),
    )


def _merge_sets(
    results: list[tuple[list[Found], RowKey | None]], limit: int
) -> tuple[list[Found], RowKey | None]:
    """Merge the sets' pages by row; a common prefix that several sets have appears once."""
    bounds = [cursor for _, cursor in results if cursor is not None]
    horizon = min(bounds) if bounds else None
    merged: list[Found] = []
    for item in heapq.merge(*(found for found, _ in results), key=lambda item: item.row):
        if horizon is not None and item.row >= horizon:
            return merged, horizon
        if merged and merged[-1].row == item.row:
            continue
        if len(merged) == limit:
            return merged, item.row
        merged.append(item)
    return merged, horizon
