"""The rows that a drive knows in memory: its newest word on each, durable or about to be. Bounded by bytes.

The drive has one writer, so the cache is coherent by construction. A row that is not durable yet stays until it is.
"""

from collections import OrderedDict

import msgspec

from cluster.drives.index_rows import HeadRow, unpack_bodies
from cluster.ids import DataId, RowKey, UploadId
from cluster.register.messages import CHOSEN
from cluster.register.records import BodyId, Register, decode_state

_ROW_OVERHEAD = 400  # bytes of Python objects around a row, measured roughly


class Row:
    """One register on this drive. `register` None: the stored row is corrupt."""

    __slots__ = (
        "bodies",
        "closed",
        "cost",
        "data",
        "keeps_lists",
        "kept",
        "list_bodies",
        "missed",
        "register",
        "seq",
        "superseded",
    )

    def __init__(
        self, register: Register | None, bodies: dict[BodyId, int], seq: int, cost: int
    ) -> None:
        self.register = register
        self.bodies = bodies  # body id -> rowid
        self.seq = seq  # the batch that makes it durable
        self.kept = seq  # the batch that makes its chosen flag durable, too: not forgotten before
        self.cost = cost
        self.data: dict[BodyId, bytes] = {}  # bodies at hand
        # What became superfluous with the accepted state, once that is chosen:
        self.superseded: tuple[DataId, ...] = ()
        # Part lists that name superfluous data, their rowids, and the uploads that made them:
        self.list_bodies: tuple[tuple[BodyId, int, UploadId | None], ...] = ()
        self.keeps_lists = False  # of a state before: until this one is chosen
        self.closed: tuple[UploadId, ...] = ()
        self.missed = False  # states between the last chosen one here and this one were missed


class RowCache:
    """Least recently used rows go first, but never one whose batch is not durable."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._rows: OrderedDict[RowKey, Row] = OrderedDict()
        self._bytes = 0

    def get(self, row: RowKey) -> Row | None:
        """A row at hand."""
        found = self._rows.get(row)
        if found is not None:
            self._rows.move_to_end(row)
        return found

    def put(self, key: RowKey, row: Row) -> None:
        """Keep a row; `trim` afterwards."""
        old = self._rows.pop(key, None)
        if old is not None:
            self._bytes -= old.cost
        row.cost += _ROW_OVERHEAD + len(key)
        self._rows[key] = row
        self._bytes += row.cost

    def charge(self, row: Row, cost: int) -> None:
        """A row has grown."""
        row.cost += cost
        self._bytes += cost

    def drop(self, key: RowKey) -> None:
        """Forget a row."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._bytes -= row.cost

    def trim(self, durable: int) -> None:
        """Forget the oldest rows until the budget holds."""
        while self._bytes > self._budget and self._rows:
            key = next(iter(self._rows))
            row = self._rows[key]
            if max(row.seq, row.kept) > durable:
                return  # the next commit trims again
            del self._rows[key]
            self._bytes -= row.cost


def decode_row(head: HeadRow | None) -> Row:
    """A row as the index has it; None, or a state that is none, is a corrupt one."""
    if head is None:
        return Row(None, {}, 0, 0)
    try:
        state = decode_state(head.state)
    except msgspec.DecodeError:
        return Row(None, {}, 0, 0)
    register = Register(ballot=head.ballot, state=state, chosen=bool(head.flags & CHOSEN))
    bodies = {BodyId(body): rowid for body, rowid in unpack_bodies(head.bodies).items()}
    row = Row(register, bodies, 0, len(head.state))
    if not register.chosen:
        # What it made superfluous was forgotten with the cached row: its own memory says enough.
        row.missed = True
        row.keeps_lists = len(bodies) > len(state.body_ids())
        row.closed = tuple(done.upload_id for done in state.done)
    return row
