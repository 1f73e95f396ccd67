"""Listing: the rows of several drives, merged by key, each key judged by its newest copy.

A page of a drive says everything about the rows below its `next`, so what Qr drives have told together is complete below
the smallest `next`. Rows that are not known to be chosen, and corrupt ones, are settled by a quorum read of their own.
With a delimiter a drive names one witness per common prefix: the first row that is live or not known to be chosen. A
witness that all asked drives agree on stands; any other is read by quorum, and when it turns out dead the prefix is searched
for a living row, because an unchosen tombstone on a minority may hide a chosen live row.
"""

import heapq
from collections.abc import Sequence

import attrs
import trio

from cluster.errors import QuorumError, StaleBucketError
from cluster.ids import BucketId, RowKey
from cluster.metadata.table import RegisterRef, Table
from cluster.register.keys import object_row, successor
from cluster.register.messages import Page, Scan, ScanRow, ScanUploads
from cluster.register.records import KeyState, decode_state

PAGE_ROWS = 1000


@attrs.frozen
class Found:
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
            async with trio.open_nursery() as nursery:
                for set_id in sets:
                    nursery.start_soon(one, set_id)
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
                pages = await self._ask(
                    set_id,
                    ScanUploads(
                        bucket=bucket,
                        start=cursor,
                        limit=limit,
                        epoch=self._table.epoch,
                        bucket_epoch=bucket_epoch,
                    ),
                )
                cursor, rows = _complete_rows(pages)
                for row in sorted(rows):
                    reading = await self._table.read(RegisterRef(row, set_id, bucket_epoch))
                    if reading.state.uploads:
                        found.append(Found(row, reading.state))
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
            pages = await self._ask(
                set_id,
                Scan(
                    start=cursor,
                    stop=span.stop,
                    limit=min(PAGE_ROWS, limit - len(found)),
                    epoch=self._table.epoch,
                    bucket_epoch=span.bucket_epoch,
                    delimiter=span.delimiter,
                    prefix_len=span.prefix_len,
                ),
            )
            cursor, rows = _complete_rows(pages)
            for row in sorted(rows):
                copies = rows[row]
                if found and found[-1].prefix_end is not None and row < found[-1].prefix_end:
                    continue
                if any(copy.rolled_up for copy in copies):
                    item = await self._settle_prefix(set_id, span, row, copies, len(pages))
                else:
                    item = await self._settle_row(set_id, span, row, copies, only_live=only_live)
                if item is not None:
                    found.append(item)
            if found and found[-1].prefix_end is not None and cursor is not None:
                cursor = max(cursor, found[-1].prefix_end)
        if cursor is not None and len(found) > limit:
            cursor = found[limit].row
        return found[:limit], cursor

    async def _ask(self, set_id: int, request: Scan | ScanUploads) -> dict[int, Page]:
        inquiry = await self._table.inquire(set_id, request)
        if inquiry.stale:
            raise StaleBucketError
        if len(inquiry.pages) < inquiry.needed:
            raise QuorumError(inquiry.needed, len(inquiry.pages))
        return inquiry.pages

    async def _settle_row(
        self, set_id: int, span: Span, row: RowKey, copies: list[ScanRow], *, only_live: bool
    ) -> Found | None:
        best = max(copies, key=lambda copy: copy.ballot or _LOWEST)
        settled = all(copy.ballot is not None for copy in copies) and any(
            copy.chosen and copy.ballot == best.ballot for copy in copies
        )
        if settled:
            if only_live and not best.live:
                return None
            state = decode_state(best.encoded)
        else:
            state = (await self._table.read(RegisterRef(row, set_id, span.bucket_epoch))).state
        if state.is_tombstone or (only_live and state.live is None):
            return None
        return Found(row, state)

    async def _settle_prefix(
        self, set_id: int, span: Span, row: RowKey, copies: list[ScanRow], asked: int
    ) -> Found | None:
        cut = row.index(span.delimiter, span.prefix_len) + len(span.delimiter)
        prefix = RowKey(row[:cut])
        end = successor(prefix)
        assert end is not None  # a row key begins with a bucket id and a kind, never only with 0xff
        agreed = len(copies) == asked and all(
            copy.chosen and copy.live and copy.ballot == copies[0].ballot for copy in copies
        )
        if not agreed:
            inside = Span(start=prefix, stop=RowKey(end), bucket_epoch=span.bucket_epoch)
            alive, _ = await self._scan_set(set_id, inside, 1, only_live=True)
            if not alive:
                return None
        return Found(prefix, None, RowKey(end))


_LOWEST = (-1, -1, -1)


def _complete_rows(pages: dict[int, Page]) -> tuple[RowKey | None, dict[RowKey, list[ScanRow]]]:
    """Up to where all pages together are complete, and the copies of every row below that."""
    bounds = [page.next for page in pages.values() if page.next is not None]
    horizon = min(bounds) if bounds else None
    rows: dict[RowKey, list[ScanRow]] = {}
    for page in pages.values():
        for copy in page.rows:
            if horizon is None or copy.row < horizon:
                rows.setdefault(copy.row, []).append(copy)
    return horizon, rows


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
