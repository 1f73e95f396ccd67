"""A drive's part in making all drives of a set hold the same: have, purge, install, sync, and what it wants itself."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

import trio

from cluster.clock import Ballot
from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.hint_book import HintBook
from cluster.drives.index_pages import IndexPages
from cluster.drives.index_rows import HeadRow, IndexReads, unpack_bodies
from cluster.drives.row_cache import Row
from cluster.drives.unlearnt import UnlearntRows
from cluster.drives.wants import WantedRows
from cluster.ids import DataId, RowKey
from cluster.register.acceptor import CORRUPT, Acceptor, Chosen, Write
from cluster.register.anti_entropy import (
    FIRST_ROW,
    Discard,
    DropHints,
    FenceAt,
    Have,
    Held,
    Hints,
    Install,
    Known,
    Purge,
    RaiseFloor,
    RowAt,
    StrayParts,
    Sync,
    SyncPage,
    SyncRow,
    Unneeded,
    Unreferenced,
    Want,
    Wanted,
    Wants,
)
from cluster.register.keys import bucket_of, is_part
from cluster.register.messages import CHOSEN, Done, Failed, Reply
from cluster.register.records import BOTTOM, BodyId

ReplyTo = Callable[[Reply], None]
PURGES_KEPT = (
    65_536  # rows whose purge is remembered; of all others the youngest that was forgotten
)
_ROWS_AT_A_TIME = 64
_ROWS_WALKED = 256
_LOST = Failed("the drive failed before the write was durable")


AntiEntropyRequest: TypeAlias = (
    Have | Purge | Install | Sync | Wanted | RaiseFloor | Unreferenced | Discard | Hints | DropHints
    | StrayParts | Unneeded | Known
)  # fmt: skip
NamesRows: TypeAlias = Have | Purge | DropHints | Unneeded


class RegisterHost(Protocol):
    """The registers of the drive."""

    def with_row(self, key: RowKey, then: Callable[[Row], None], reply: ReplyTo) -> None:
        """Call `then` with the row; where it cannot be read, `reply` is told."""
        ...

    def cached(self, key: RowKey) -> Row | None:
        """The row, if it is at hand."""
        ...

    def write(self, key: RowKey, row: Row, write: Write) -> None:
        """Put a decided state into the filling batch."""
        ...

    def choose(self, key: RowKey, row: Row, decision: Chosen) -> None:
        """Set a row's chosen flag."""
        ...

    def forget(self, key: RowKey, row: Row) -> None:
        """Delete a row."""
        ...

    def discard(self, data: set[DataId]) -> None:
        """Nothing refers to these bodies: they are collected after the grace."""
        ...

    def when_shown(self, seq: int, reply: ReplyTo, answer: Reply) -> None:
        """Answer when batch `seq` is durable."""
        ...


class AntiEntropy:
    """Messages of register.anti_entropy in, replies out.

    A row's version is the number of the batch that changed it last, as far as that is remembered, and never too low; what a
    drive gives out as `version` is the number of its last durable batch. Whatever changed the row after that, in
    this life of the process or in another, has a higher number.
    """

    def __init__(
        self, host: RegisterHost, acceptor: Acceptor, commits: GroupCommit, reads: GroupRead
    ) -> None:
        self._host, self._acceptor = host, acceptor
        self._commits, self._reads = commits, reads
        self.wants = WantedRows()
        self.unlearnt = UnlearntRows()
        self._walked_to = FIRST_ROW  # looking for rows that were not learnt
        self.hints = HintBook(commits, reads)
        self._pages = IndexPages(acceptor.control, reads, host.discard)
        self._purged: OrderedDict[RowKey, int] = OrderedDict()
        self._forgotten = commits.durable  # no purge that is not in `_purged` came later

    def handle(
        self,
        request: AntiEntropyRequest,
        reply: ReplyTo,
    ) -> None:
        """Decide one message and answer it, now or when what the answer shows is durable."""
        gate = self._acceptor.gate_epoch
        if isinstance(request, Have | Purge | Sync):
            gate = self._acceptor.gate_vote
        refusal = gate(request.epoch)
        if refusal is not None:
            reply(refusal)
            return
        match request:
            case Have() | Purge() | DropHints() | Unneeded():
                _Rows(self, request, reply).begin(self._host)
            case Install():
                then = partial(self._install, request, reply)
                self._host.with_row(request.row, then, reply)
            case Sync():
                # What was accepted before this drive went over to the epoch must be on the page.
                self._commits.when_durable(
                    self._commits.newest,
                    lambda ok: self._sync(request, reply) if ok else reply(_LOST),
                )
            case Wanted():
                reply(Wants(self._first_wanted(request), self._commits.durable))
            case RaiseFloor():
                if self._acceptor.raise_floor(request.floor):
                    self._put_floor()
                self.answer_durable(self._commits.newest, reply, Done())
            case Hints():
                self.hints.show(request, reply)
            case Unreferenced() | StrayParts() | Known():
                self._pages.show(request, reply)
            case Discard():
                self._host.discard(set(request.data))
                self.answer_durable(self._commits.newest, reply, Done())

    def refusal(self, request: NamesRows) -> Reply | None:
        """Of a message whose rows have come: the layout may have changed since it was taken."""
        is_vote = isinstance(request, Have | Purge)
        gate = self._acceptor.gate_vote if is_vote else self._acceptor.gate_epoch
        return gate(request.epoch)

    def answer_durable(self, seq: int, reply: ReplyTo, answer: Reply) -> None:
        """Answer when batch `seq` is durable."""
        self._host.when_shown(seq, reply, answer)

    def _first_wanted(self, request: Wanted) -> list[Want]:
        """Without rows of dead buckets: nobody has them any more, and they would fill the room for others."""
        dead, wanted = self._acceptor.control.dead, []
        # Half of the room for each, so that neither starves the other.
        asked = self.unlearnt.due(request, (request.limit + 1) // 2, trio.current_time())
        for want in asked + self.wants.first(request, request.limit - len(asked)):
            if bucket_of(want.row) in dead:
                self.wants.drop(want.row)
                self.unlearnt.drop(want.row)
            else:
                wanted.append(want)
        return wanted

    async def walk(self) -> None:
        """Look at some stored rows, the next ones at every call, for those that were not learnt. Raises OSError."""
        start = self._walked_to
        rows = await self._reads.run(lambda index: index.flags_from(start, None, _ROWS_WALKED))
        now = trio.current_time()
        for row, ballot, flags in rows:
            if not flags & CHOSEN and row not in self.unlearnt and self._is_newest(row, ballot):
                self.unlearnt.note(row, ballot, now)
        self._walked_to = RowKey(rows[-1][0] + b"\0") if len(rows) == _ROWS_WALKED else FIRST_ROW

    def _is_newest(self, key: RowKey, ballot: Ballot) -> bool:
        """Whether a stored row that was not learnt is what it is now: what is about to be durable is in the cache."""
        row = self._host.cached(key)
        if row is None or row.register is None:
            return row is None
        return row.register.ballot == ballot and not row.register.chosen

    # -- have and purge: several rows at once

    def held(self, named: RowAt, row: Row) -> Ballot | None:
        """What a row stands at; below the named ballot it is wanted."""
        if row.register is None:
            return None
        if row.register.ballot < named.ballot:
            self.wants.note(named.row, named.ballot)
        return row.register.ballot

    def purge(self, named: RowAt, row: Row) -> None:
        """Forget a row, if its state allows it."""
        held = CORRUPT if row.register is None else row.register
        if not self._acceptor.purge(named, held):
            return
        self._host.forget(named.row, row)
        self._put_floor()
        self._purged[named.row] = self._commits.seq
        self._purged.move_to_end(named.row)
        if len(self._purged) > PURGES_KEPT:
            _, seq = self._purged.popitem(last=False)
            self._forgotten = max(self._forgotten, seq)

    def drop_hints(self, request: DropHints, rows: Sequence[RowKey], reply: ReplyTo) -> None:
        """Forget that a drive missed these rows."""
        self.hints.drop(request, rows, reply)

    def release(self, named: RowAt, row: Row) -> None:
        """Want a row no more, and drop that of a part. What is corrupt is repaired first; what is newer is looked at again."""
        if row.register is None or row.register.ballot > named.ballot:
            return
        self.wants.met(named.row, named.ballot)
        if is_part(named.row) and row.register != BOTTOM:
            self._host.forget(named.row, row)

    def version(self) -> int:
        """What a later Install is measured by."""
        return self._commits.durable

    def newest(self) -> int:
        """The batch with which all that was decided is durable."""
        return self._commits.newest

    def _put_floor(self) -> None:
        self._commits.batch.ctl["gc_floor"] = self._acceptor.control.gc_floor.pack()
        self._commits.touch()

    # -- install

    def _install(self, request: Install, reply: ReplyTo, row: Row) -> None:
        held = CORRUPT if row.register is None else row.register
        changed_at = max(row.seq, self._purged.get(request.row, self._forgotten))
        decision = self._acceptor.install(
            request, held, row.bodies.keys(), changed=changed_at > request.version
        )
        if isinstance(decision, Write):
            self._host.write(request.row, row, decision)
            self.answer_durable(row.seq, reply, Done())
        elif isinstance(decision, Chosen):
            self._host.choose(request.row, row, decision)
            self.answer_durable(row.kept, reply, Done())
        else:
            if row.register is not None and row.register.chosen:
                self.unlearnt.drop(request.row)
            self._host.when_shown(row.seq, reply, decision)

    # -- sync

    def _sync(self, request: Sync, reply: ReplyTo) -> None:
        def landed(result: tuple[list[SyncRow], RowKey | None] | None, error: str) -> None:
            if result is None:
                reply(Failed(error))
                return
            rows, following = result
            for row in rows:
                if row.ballot is None:
                    self.wants.note(row.row, None)
            control = self._acceptor.control
            fences = control.fences.items() if request.fences else []
            reply(
                SyncPage(
                    rows,
                    following,
                    control.gc_floor,
                    control.ceiling_ms,
                    [FenceAt(bucket, epoch, bucket in control.dead) for bucket, epoch in fences],
                )
            )

        self._reads.submit(partial(_read_page, request), landed)


class _Rows:
    """A message that names several rows: each is dealt with when it is at hand, and then answered together."""

    def __init__(self, owner: AntiEntropy, request: NamesRows, reply: ReplyTo) -> None:
        self._owner, self._request, self._reply = owner, request, reply
        self._ballots: list[Ballot | None] = [None] * len(request.rows)
        self._known: list[RowKey] = []
        self._left = len(request.rows)
        self._seq = 0
        self._is_over = False

    def begin(self, host: RegisterHost) -> None:
        """Ask for the rows."""
        if not self._left:
            self._conclude()
        for place, named in enumerate(self._request.rows):
            host.with_row(named.row, partial(self._take, place, named), self._fail)

    def _fail(self, reply: Reply) -> None:
        if not self._is_over:
            self._is_over = True
            self._reply(reply)

    def _take(self, place: int, named: RowAt, row: Row) -> None:
        refusal = self._owner.refusal(self._request)
        if refusal is not None:
            self._fail(refusal)
            return
        match self._request:
            case Have():
                self._ballots[place] = self._owner.held(named, row)
                self._seq = max(self._seq, row.seq)
            case Purge():
                self._owner.purge(named, row)
                self._seq = self._owner.newest()
            case Unneeded():
                self._owner.release(named, row)
                self._seq = self._owner.newest()
            case DropHints():
                # What was noted about something newer stands.
                if row.register is not None and row.register.ballot <= named.ballot:
                    self._known.append(named.row)
        self._left -= 1
        if not self._left and not self._is_over:
            self._conclude()

    def _conclude(self) -> None:
        if isinstance(self._request, DropHints):
            self._owner.drop_hints(self._request, self._known, self._reply)
            return
        is_have = isinstance(self._request, Have)
        answer = Held(self._ballots, self._owner.version()) if is_have else Done()
        self._owner.answer_durable(self._seq, self._reply, answer)


def _read_page(request: Sync, index: IndexReads) -> tuple[list[SyncRow], RowKey | None]:
    """Rows with their bodies until the page is full; one row at least, however large."""
    rows: list[SyncRow] = []
    cursor, size = request.start, 0
    while len(rows) < request.limit:
        asked = min(_ROWS_AT_A_TIME, request.limit - len(rows))
        heads = index.checked_heads(cursor, request.stop, asked)
        for key, head in heads:
            if rows and size >= request.max_bytes:
                return rows, key
            row = _sync_row(key, head, index, request.max_bytes - size)
            size += len(key) + len(row.encoded) + sum(map(len, row.bodies.values())) + 64
            rows.append(row)
        if len(heads) < asked:
            return rows, None
        cursor = RowKey(rows[-1].row + b"\0")
    return rows, cursor


def _sync_row(key: RowKey, head: HeadRow | None, index: IndexReads, room: int) -> SyncRow:
    if head is None:
        return SyncRow(key, None, 0, b"", {})
    bodies: dict[BodyId, bytes] = {}
    for body, rowid in unpack_bodies(head.bodies).items():
        data = index.body(rowid) if room > 0 else None
        if data is not None:
            bodies[BodyId(body)] = data
            room -= len(data)
    return SyncRow(key, head.ballot.pack(), head.flags, head.state, bodies)
