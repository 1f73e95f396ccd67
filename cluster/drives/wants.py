"""What a drive knows that it lacks: rows that are corrupt, and rows of which it missed a chosen state. No I/O.

Bounded, and in memory alone: a corrupt row is found again whenever it is read, and what was missed stands as a durable
hint on those who did not miss it.
"""

from itertools import islice

from cluster.clock import Ballot
from cluster.ids import RowKey
from cluster.register.anti_entropy import Want, Wanted

ROWS_WANTED = 10_000


class WantedRows:
    """In the order in which they were noted."""

    def __init__(self, limit: int = ROWS_WANTED) -> None:
        self._limit = limit
        self._rows: dict[RowKey, Ballot | None] = {}

    def note(self, row: RowKey, ballot: Ballot | None) -> None:
        """Want what was chosen at `ballot`, or, None, a repair of what is corrupt."""
        known = self._rows.get(row)
        if row in self._rows:
            if known is not None and (ballot is None or ballot > known):
                self._rows[row] = ballot
        elif len(self._rows) < self._limit:
            self._rows[row] = ballot

    def met(self, row: RowKey, ballot: Ballot) -> None:
        """The row now stands at that ballot, sound."""
        if row in self._rows:
            wanted = self._rows[row]
            if wanted is None or wanted <= ballot:
                del self._rows[row]

    def drop(self, row: RowKey) -> None:
        """The row is no more."""
        self._rows.pop(row, None)

    def first(self, request: Wanted, limit: int) -> list[Want]:
        """Those that were noted first; whoever asks again sees the others first."""
        asked = (item for item in self._rows.items() if request.covers(item[0]))
        some = list(islice(asked, limit))
        for row, ballot in some:  # what cannot be had must not stand in the way of the rest
            del self._rows[row]
            self._rows[row] = ballot
        return [Want(row, ballot) for row, ballot in some]
