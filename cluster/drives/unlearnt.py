"""Rows that a drive has accepted, and of which no LEARN came: whether they were chosen is for a quorum to say. No I/O.

Nobody hints at them: a coordinator that died between ACCEPT and LEARN told no drive who has missed them. Bounded, and in
memory alone: what does not fit, or was accepted in another life of the drive, is found again by a walk over the index.
"""

from cluster.clock import Ballot
from cluster.ids import RowKey
from cluster.register.anti_entropy import Want, Wanted

ROWS_WATCHED = 10_000
PATIENCE_SECONDS = 10.0  # a LEARN follows its ACCEPT within milliseconds


class UnlearntRows:
    """In the order in which they were noted."""

    def __init__(self, limit: int = ROWS_WATCHED) -> None:
        self._limit = limit
        self._rows: dict[RowKey, tuple[float, Ballot]] = {}

    def note(self, row: RowKey, ballot: Ballot, now: float) -> None:
        """It was accepted at this ballot, or found so."""
        self._rows.pop(row, None)
        if len(self._rows) < self._limit:
            self._rows[row] = now, ballot

    def drop(self, row: RowKey) -> None:
        """It was learnt, or is no more."""
        self._rows.pop(row, None)

    def __contains__(self, row: RowKey) -> bool:
        return row in self._rows

    def due(self, request: Wanted, limit: int, now: float) -> list[Want]:
        """Those that have waited long enough, and will wait as long again."""
        found: list[tuple[RowKey, Ballot]] = []
        for row, (since, ballot) in self._rows.items():
            if len(found) == limit or now < since + PATIENCE_SECONDS:
                break
            if request.covers(row):
                found.append((row, ballot))
        for row, ballot in found:
            self.note(row, ballot, now)
        return [Want(row, ballot, chosen=False) for row, ballot in found]
