"""Listing with a delimiter: each common prefix costs one witness row, not all of its rows. Pure."""

from collections.abc import Callable
from typing import TypeAlias

import attrs

from cluster.ids import RowKey
from cluster.register.keys import successor
from cluster.register.messages import ScanRow

ROWS_SEEN = 16_384  # that one rolled-up page may cost: it then holds fewer rows than were asked for
_PAGE_ROWS = 128  # that a rolled-up scan reads at a time

ScanPage: TypeAlias = Callable[[RowKey, RowKey | None, int], list[ScanRow]]  # start, stop, limit


def roll_up(
    scan: ScanPage,
    start: RowKey,
    stop: RowKey | None,
    limit: int,
    delimiter: bytes,
    prefix_len: int,
) -> tuple[list[ScanRow], RowKey | None]:
    """Like scan, each common prefix shown by one witness: its first row that is live or not known chosen.

    Returns the rows and where to go on; None: `stop` is reached.
    """
    found: list[ScanRow] = []
    cursor: RowKey | None = start
    seen = 0
    while cursor is not None and len(found) < limit and seen < ROWS_SEEN:
        page = scan(cursor, stop, _PAGE_ROWS)
        seen += len(page)
        cursor = RowKey(page[-1].row + b"\0") if len(page) == _PAGE_ROWS else None
        skip_to = b""
        for row in page:
            if row.row < skip_to:
                continue
            if len(found) == limit:
                return found, row.row
            cut = row.row.find(delimiter, prefix_len)
            if cut < 0:
                found.append(row)
            elif row.live or not row.chosen or row.ballot is None:
                found.append(attrs.evolve(row, rolled_up=True))
                end = successor(row.row[: cut + len(delimiter)])
                if end is None:
                    return found, None
                skip_to = end
        if cursor is not None and cursor < skip_to:
            cursor = RowKey(skip_to)
    return found, cursor
