"""The registers of a drive: the pure acceptor, hosted over the row cache, the group commit and the group reads of its index.

What the index is does not matter here: the simulator's drives run this very code over an index in memory.

A reply that shows a row waits until that row is durable. LEARN is a fact and not a promise: it shows at once and becomes durable with a
later commit; losing it costs a reader one confirmation.
"""

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import trio

from cluster.drives.anti_entropy import AntiEntropy
from cluster.drives.away_notes import AwayNotes
from cluster.drives.dead_buckets import DeadBuckets
from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.index_rows import HeadRow, pack_bodies
from cluster.drives.kept_layout import KeptLayout
from cluster.drives.leftovers import Leftovers
from cluster.drives.row_bodies import RowBodies
from cluster.drives.row_cache import Row, RowCache, decode_row
from cluster.drives.scans import Scans
from cluster.ids import DataId, RowKey
from cluster.register.acceptor import CORRUPT, Acceptor, Chosen, Promised, Write
from cluster.register.keys import (
    is_object,
    owner_row,
)
from cluster.register.messages import (
    CHOSEN,
    LIVE,
    Accept,
    Accepted,
    Body,
    Done,
    Failed,
    Fence,
    Learn,
    NotVoting,
    Prepare,
    Query,
    ReadBody,
    Reply,
    Request,
    Scan,
    ScanUploads,
    Value,
)
from cluster.register.records import BOTTOM, BodyId, KeyState, Register, encode_state

ReplyTo = Callable[[Reply], None]
_LOST = Failed("the drive failed before the write was durable")


class Registers:
    """Register messages in, replies out."""

    def __init__(
        self,
        acceptor: Acceptor,
        commits: GroupCommit,
        reads: GroupRead,
        *,
        cache_bytes: int,
        last_body: int,
        now_ms: Callable[[], int],
        grace_ms: int,
        on_layout: Callable[[bytes], None],
    ) -> None:
        self._acceptor = acceptor
        self._commits = commits
        self._reads = reads
        self._cache = RowCache(cache_bytes)
        self.bodies = RowBodies(commits, reads, self._cache, last=last_body)
        self._loading: dict[RowKey, list[Callable[[Row], None]]] = {}
        self._failing: dict[RowKey, list[ReplyTo]] = {}
        self._ceiling_seq = 0
        self.layout = KeptLayout(acceptor.control, commits, on_layout)
        self._scans = Scans(acceptor, reads, self.cached, self.when_shown)
        self._anti_entropy = AntiEntropy(self, acceptor, commits, reads)
        self.notes = AwayNotes(acceptor, commits, reads, now_ms=now_ms, grace_ms=grace_ms)
        self._leftovers = Leftovers(
            commits,
            reads,
            self.notes,
            now_ms=now_ms,
            grace_ms=grace_ms,
            forget=self._drop_row,
            with_body=self.bodies.read,
        )
        self.dead_buckets = DeadBuckets(
            acceptor.control,
            commits,
            reads,
            forget=self._drop_row,
            discard=self._leftovers.discard,
            notes=self.notes,
        )
        commits.on_durable = self._trim
        reads.set_row_sink(self._loaded)

    def handle(self, request: Request, reply: ReplyTo) -> None:
        """Decide one message and answer it, now or when what the answer shows is durable."""
        if self._commits.is_full or self._reads.is_full:
            reply(Failed("the drive is overloaded"))
            return
        match request:
            case Prepare() | Accept() | Learn() | Query() | ReadBody():
                # The hot ones, without a call between.
                row = self._cache.get(request.row)
                if row is not None:
                    self._on_row(request, reply, row)
                else:
                    self._load(request.row, partial(self._on_row, request, reply), reply)
            case Scan() | ScanUploads():
                self._scans.handle(request, reply)
            case Fence():
                self._fence(request, reply)
            case _:
                self._anti_entropy.handle(request, reply)

    def with_row(self, key: RowKey, then: Callable[[Row], None], reply: ReplyTo) -> None:
        """Call `then` with the row, now or when it is read; where it cannot be read, `reply` is told."""
        row = self._cache.get(key)
        if row is not None:
            then(row)
        else:
            self._load(key, then, reply)

    def cached(self, key: RowKey) -> Row | None:
        """The row, if it is at hand."""
        return self._cache.get(key)

    def _drop_row(self, key: RowKey) -> None:
        """A row that the filling batch deletes is not wanted or asked about any more."""
        self._anti_entropy.wants.drop(key)
        self._anti_entropy.unlearnt.drop(key)
        # Kept until that is durable: the index still has the old row, and would be believed.
        self._cache.put(key, Row(BOTTOM, {}, self._commits.seq, 0))

    # -- rows

    def _load(self, key: RowKey, then: Callable[[Row], None], reply: ReplyTo) -> None:
        waiting = self._loading.get(key)
        if waiting is None:
            self._loading[key] = [then]
            self._failing[key] = [reply]
            self._reads.want_row(key)
        else:
            waiting.append(then)
            self._failing[key].append(reply)

    def _loaded(
        self, found: dict[RowKey, HeadRow | None], wanted: list[RowKey], error: str
    ) -> None:
        for key in wanted:
            waiting, failing = self._loading.pop(key, []), self._failing.pop(key, [])
            if error:
                for reply in failing:
                    reply(Failed(error))
                continue
            row = self._cache.get(key)
            if row is None:
                row = decode_row(found[key]) if key in found else Row(BOTTOM, {}, 0, 0)
                self._cache.put(key, row)
                if row.register is None:
                    self._acceptor.note_corrupt(key)
                    self._anti_entropy.wants.note(key, None)
            for then in waiting:
                then(self._cache.get(key) or row)  # one before may have put another in its place
        self._trim()

    def _trim(self) -> None:
        self._cache.trim(self._commits.durable)

    def _on_row(
        self, request: Prepare | Accept | Learn | Query | ReadBody, reply: ReplyTo, row: Row
    ) -> None:
        match request:
            case Query():
                self._query(request, reply, row)
            case Prepare():
                self._prepare(request, reply, row)
            case Accept():
                self._accept(request, reply, row)
            case Learn():
                self._learn(request, row)
                reply(Done())
            case ReadBody():
                self.bodies.read(
                    request.row,
                    row,
                    request.body,
                    lambda data: self.when_shown(row.seq, reply, Body(data)),
                )

    def when_shown(self, seq: int, reply: ReplyTo, answer: Reply) -> None:
        """Answer when batch `seq` is durable. A drive that has failed has no say any more, whatever was durable before."""
        if self._commits.failed:
            reply(_LOST)
        elif seq <= self._commits.durable:
            reply(answer)
        else:
            self._commits.when_durable(seq, lambda ok: reply(answer if ok else _LOST))

    # -- the verbs of the register

    def _query(self, request: Query, reply: ReplyTo, row: Row) -> None:
        refusal = self._acceptor.gate(request.row, request.epoch, request.bucket_epoch)
        if refusal is not None:
            reply(refusal)
            return
        register = row.register
        if register is None:
            reply(NotVoting("the row is corrupt"))
            return
        live = register.state.live
        if request.bodies and live is not None and live.body is not None and not live.body.count:
            body = live.body.id
            self.bodies.read(
                request.row,
                row,
                body,
                lambda data: self._answer_value(row, register, body, data, reply),
            )
        else:
            self.when_shown(row.seq, reply, Value(register))

    def _answer_value(
        self, row: Row, register: Register, body: BodyId, data: bytes | None, reply: ReplyTo
    ) -> None:
        bodies: Mapping[BodyId, bytes] = {} if data is None else {body: data}
        self.when_shown(row.seq, reply, Value(register, bodies))

    def _prepare(self, request: Prepare, reply: ReplyTo, row: Row) -> None:
        decision = self._acceptor.prepare(
            request, CORRUPT if row.register is None else row.register
        )
        if not isinstance(decision, Promised):
            reply(decision)
            return
        if decision.ceiling_ms is not None:
            self._put_ceiling(decision.ceiling_ms)
            self._commits.touch()
        self.when_shown(max(row.seq, self._ceiling_seq), reply, decision.reply)

    def _put_ceiling(self, ceiling_ms: int) -> None:
        self._commits.batch.ctl["ceiling_ms"] = b"%d" % ceiling_ms
        self._ceiling_seq = self._commits.seq

    def _accept(self, request: Accept, reply: ReplyTo, row: Row) -> None:
        held = CORRUPT if row.register is None else row.register
        decision = self._acceptor.accept(request, held, row.bodies.keys())
        if isinstance(decision, Accepted | Write):
            if isinstance(decision, Write):
                self.write(request.row, row, decision)
            seq = max(row.seq, self._commits.durable)
            vote = Accepted(seq) if self._acceptor.voting else NotVoting("the drive is rebuilding")
            self.when_shown(seq, reply, vote)
        else:
            reply(decision)

    def write(self, key: RowKey, row: Row, write: Write) -> None:
        """Put a decided state into the filling batch; `row.seq` then names it."""
        commits, batch = self._commits, self._commits.batch
        old = row.register.state if row.register is not None else BOTTOM.state
        state = write.register.state
        self.bodies.write(row, old, write)
        # What the states between removed, when this drive has missed some, only their ring remembers.
        row.missed = row.missed or write.missed
        self.notes.on_write(key, row.register, state, write.register.ballot)
        row.register = write.register
        row.seq = commits.seq
        row.superseded += write.superseded
        if row.keeps_lists and write.register.chosen:
            self.bodies.drop_lists(row, state)
        encoded = write.message.encoded
        batch.heads[key] = HeadRow(
            key,
            write.register.ballot,
            _flags(write.register),
            encoded,
            pack_bodies(row.bodies.items()),
        )
        batch.chosen.discard(key)
        if is_object(key):
            self._note_uploads(key, row, old, state)
        for part in write.debt:
            batch.debt[part.data_id, self._acceptor.position] = owner_row(key)
        if write.ceiling_ms is not None:
            self._put_ceiling(write.ceiling_ms)
        if write.register.chosen:
            if write.missed:
                row.closed += tuple(done.upload_id for done in state.done)
            self._leftovers.collect(key, row, row.register)
            self._anti_entropy.unlearnt.drop(key)
        else:
            self._anti_entropy.unlearnt.note(key, write.register.ballot, trio.current_time())
        self._anti_entropy.wants.met(key, write.register.ballot)
        self._cache.drop(key)
        row.cost = len(encoded) + sum(map(len, row.data.values()))
        self._cache.put(key, row)
        commits.touch()

    def _note_uploads(self, key: RowKey, row: Row, old: KeyState, new: KeyState) -> None:
        if old.uploads == new.uploads:
            return
        still_open = {upload.upload_id for upload in new.uploads}
        row.closed += tuple(u.upload_id for u in old.uploads if u.upload_id not in still_open)
        if bool(old.uploads) != bool(new.uploads):
            self._commits.batch.uploads[key] = bool(new.uploads)

    def _learn(self, request: Learn, row: Row) -> None:
        held = CORRUPT if row.register is None else row.register
        decision = self._acceptor.learn(request, held)
        if isinstance(decision, Chosen):
            self.choose(request.row, row, decision)
        elif row.register is not None and self._acceptor.misses(request, held):
            self._anti_entropy.wants.note(request.row, request.ballot)
        register = row.register
        is_late = register is not None and register.chosen and register.ballot > request.ballot
        if request.acceptors != -1 and not is_late:  # who missed what came later counts
            self._anti_entropy.hints.note(request.row, ~request.acceptors & 0xFFFFFFFF)

    def choose(self, key: RowKey, row: Row, decision: Chosen) -> None:
        """Set a row's chosen flag, and note what that makes superfluous."""
        batch, register = self._commits.batch, decision.register
        row.register = register
        head = batch.heads.get(key)
        if row.keeps_lists and self.bodies.drop_lists(row, register.state):
            encoded, bodies = encode_state(register.state), pack_bodies(row.bodies.items())
            batch.heads[key] = HeadRow(key, register.ballot, _flags(register), encoded, bodies)
        elif head is not None:
            batch.heads[key] = attrs.evolve(head, flags=head.flags | CHOSEN)
        else:
            batch.chosen.add(key)
        self._anti_entropy.wants.met(key, register.ballot)
        self._anti_entropy.unlearnt.drop(key)
        row.kept = self._commits.seq
        self._leftovers.collect(key, row, register)
        self._commits.touch()

    def forget(self, key: RowKey, row: Row) -> None:
        """Delete a row with the filling batch."""
        batch = self._commits.batch
        batch.heads[key] = None
        batch.chosen.discard(key)
        batch.uploads[key] = False
        batch.hints[key] = 0
        self.bodies.forget(row)
        self._drop_row(key)
        self._commits.touch()

    def discard(self, data: set[DataId]) -> None:
        """Nothing refers to these bodies: they are collected after the grace."""
        self._leftovers.discard(data)

    async def sweep(self) -> None:
        """What is done now and then: rows of dead buckets go, and some rows are looked at. Raises OSError."""
        await self.dead_buckets.sweep()
        await self._anti_entropy.walk()

    # -- fences

    def _fence(self, request: Fence, reply: ReplyTo) -> None:
        if self._acceptor.fence(request):
            epoch = self._acceptor.control.fences[request.bucket]
            self._commits.batch.fences[request.bucket] = (epoch, request.dead)
            self._commits.touch()
        # One that stood before may be on its way to the disk.
        self._commits.when_durable(self._commits.newest, lambda ok: reply(Done() if ok else _LOST))


def _flags(register: Register) -> int:
    return (CHOSEN if register.chosen else 0) | (LIVE if register.state.live is not None else 0)
