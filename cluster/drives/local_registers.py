"""The registers of a LocalDrive: the pure acceptor, hosted over the row cache, the index and the group commit.

A reply that shows a row waits until that row is durable. LEARN is a fact and not a promise: it shows at once and becomes durable with a
later commit; losing it costs a reader one confirmation.
"""

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import msgspec

from cluster.drives.dead_buckets import DeadBuckets
from cluster.drives.index import Index
from cluster.drives.index_rows import CHOSEN, LIVE, HeadRow, pack_bodies, unpack_bodies
from cluster.drives.index_threads import GroupCommit, Reader
from cluster.drives.row_cache import Row, RowCache
from cluster.ids import DataId, RowKey, UploadId
from cluster.register.acceptor import CORRUPT, Acceptor, Chosen, Promised, Write
from cluster.register.keys import (
    bucket_of,
    is_object,
    is_part,
    object_row,
    owner_row,
    part_row,
    successor,
)
from cluster.register.messages import (
    Accept,
    Accepted,
    Body,
    Done,
    Failed,
    Fence,
    Learn,
    NotVoting,
    Page,
    Prepare,
    Query,
    ReadBody,
    Reply,
    Request,
    Scan,
    ScanRow,
    ScanUploads,
    Value,
)
from cluster.register.mutations import record_data
from cluster.register.records import BOTTOM, BodyId, KeyState, Register, decode_parts, decode_state

ReplyTo = Callable[[Reply], None]
_LOST = Failed("the drive failed before the write was durable")


class LocalRegisters:
    """Register messages in, replies out."""

    def __init__(
        self,
        acceptor: Acceptor,
        commits: GroupCommit,
        reader: Reader,
        *,
        cache_bytes: int,
        last_body: int,
        now_ms: Callable[[], int],
        grace_ms: int,
    ) -> None:
        self._acceptor = acceptor
        self._commits = commits
        self._reader = reader
        self._cache = RowCache(cache_bytes)
        self._next_body = last_body + 1
        self._now_ms, self._grace_ms = now_ms, grace_ms
        self._loading: dict[RowKey, list[Callable[[Row], None]]] = {}
        self._failing: dict[RowKey, list[ReplyTo]] = {}
        self._ceiling_seq = 0
        self.dead_buckets = DeadBuckets(
            acceptor.control, commits, reader, forget=self._cache.drop, discard=self._discard
        )
        commits.on_durable = self._trim
        reader.set_row_sink(self._loaded)

    def handle(self, request: Request, reply: ReplyTo) -> None:
        """Decide one message and answer it, now or when what the answer shows is durable."""
        if self._commits.is_full or self._reader.is_full:
            reply(Failed("the drive is overloaded"))
        elif isinstance(request, Scan):
            self._scan(request, reply)
        elif isinstance(request, ScanUploads):
            self._scan_uploads(request, reply)
        elif isinstance(request, Fence):
            self._fence(request, reply)
        else:
            row = self._cache.get(request.row)
            if row is not None:
                self._on_row(request, reply, row)
            else:
                self._load(request.row, partial(self._on_row, request, reply), reply)

    def new_body(self) -> int:
        """A rowid for a body row."""
        self._next_body += 1
        return self._next_body - 1

    # -- rows

    def _load(self, key: RowKey, then: Callable[[Row], None], reply: ReplyTo) -> None:
        waiting = self._loading.get(key)
        if waiting is None:
            self._loading[key] = [then]
            self._failing[key] = [reply]
            self._reader.want_row(key)
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
                row = _decode_row(found[key]) if key in found else Row(BOTTOM, {}, 0, 0)
                self._cache.put(key, row)
            for then in waiting:
                then(row)
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
                self._with_body(
                    request.row,
                    row,
                    request.body,
                    lambda data: self._when_shown(row.seq, reply, Body(data)),
                )

    def _when_shown(self, seq: int, reply: ReplyTo, answer: Reply) -> None:
        """Answer when batch `seq` is durable."""
        if seq <= self._commits.durable:
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
            self._with_body(
                request.row,
                row,
                body,
                lambda data: self._answer_value(row, register, body, data, reply),
            )
        else:
            self._when_shown(row.seq, reply, Value(register))

    def _answer_value(
        self, row: Row, register: Register, body: BodyId, data: bytes | None, reply: ReplyTo
    ) -> None:
        bodies: Mapping[BodyId, bytes] = {} if data is None else {body: data}
        self._when_shown(row.seq, reply, Value(register, bodies))

    def _with_body(
        self, key: RowKey, row: Row, body: BodyId, then: Callable[[bytes | None], None]
    ) -> None:
        data = row.data.get(body)
        rowid = row.bodies.get(body)
        if data is not None or rowid is None:
            then(data)
            return

        def landed(read: bytes | None, _: str) -> None:
            if read is not None and body not in row.data and self._cache.get(key) is row:
                row.data[body] = read
                self._cache.charge(row, len(read))
                self._trim()
            then(read)

        self._reader.submit(lambda index: index.body(rowid), landed)

    def _prepare(self, request: Prepare, reply: ReplyTo, row: Row) -> None:
        decision = self._acceptor.prepare(
            request, CORRUPT if row.register is None else row.register
        )
        if not isinstance(decision, Promised):
            reply(decision)
            return
        if decision.ceiling_ms is not None:
            self._commits.batch.ctl["ceiling_ms"] = b"%d" % decision.ceiling_ms
            self._ceiling_seq = self._commits.seq
            self._commits.touch()
        self._when_shown(max(row.seq, self._ceiling_seq), reply, decision.reply)

    def _accept(self, request: Accept, reply: ReplyTo, row: Row) -> None:
        held = CORRUPT if row.register is None else row.register
        decision = self._acceptor.accept(request, held, row.bodies.keys())
        if isinstance(decision, Accepted):
            seq = max(row.seq, self._commits.durable)
            self._when_shown(seq, reply, Accepted(seq))
        elif isinstance(decision, Write):
            self._write(request.row, row, decision)
            self._when_shown(row.seq, reply, Accepted(row.seq))
        else:
            reply(decision)

    def _write(self, key: RowKey, row: Row, write: Write) -> None:
        commits, batch = self._commits, self._commits.batch
        old = row.register.state if row.register is not None else BOTTOM.state
        state, message = write.register.state, write.message
        lists = {v.body.id for v in old.versions if v.body is not None and v.body.count}
        for body in write.drop_bodies:
            rowid = row.bodies.pop(body)
            row.data.pop(body, None)
            if body in lists:
                row.list_bodies += (
                    rowid,
                )  # names data that is collectable once the new state is chosen
            elif batch.bodies.pop(rowid, None) is None:
                batch.drop_bodies.add(rowid)
        for version in state.versions:
            if version.body is not None and version.body.id not in row.bodies:
                data = message.bodies[version.body.id]
                row.bodies[version.body.id] = self._next_body
                batch.bodies[self._next_body] = data
                row.data[version.body.id] = data
                self._next_body += 1
        # What the states between removed, when this drive has missed some, only their ring remembers.
        row.missed = row.missed or row.register is None or message.base != row.register.ballot
        row.register = write.register
        row.seq = commits.seq
        row.superseded += write.superseded
        encoded = message.encoded
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
        batch = self._commits.batch
        if isinstance(decision, Chosen):
            row.register = decision.register
            head = batch.heads.get(request.row)
            if head is not None:
                batch.heads[request.row] = attrs.evolve(head, flags=head.flags | CHOSEN)
            else:
                batch.chosen.add(request.row)
            row.kept = self._commits.seq
            self._collect(request.row, row, decision.register.state)
            self._commits.touch()
        if request.acceptors != -1:
            batch.hints[request.row] = ~request.acceptors & 0xFFFFFFFF
            self._commits.touch()

    # -- what a chosen state makes superfluous

    def _collect(self, key: RowKey, row: Row, state: KeyState) -> None:
        if not is_part(key):
            referred = record_data(state)
            removed = set(row.superseded)
            for applied in state.ring if row.missed else state.ring[-1:]:
                removed.update(applied.removed)
            self._discard(removed - referred)
            for rowid in row.list_bodies:
                self._collect_list(rowid, referred)
        for upload in row.closed:
            self._close_upload(key, upload, row, state)
        row.superseded, row.list_bodies, row.closed, row.missed = (), (), (), False

    def _discard(self, data: set[DataId]) -> None:
        due = self._now_ms() + self._grace_ms
        for data_id in data:
            self._commits.batch.trash[data_id] = due
        if data:
            self._commits.touch()

    def _collect_list(self, rowid: int, referred: frozenset[DataId]) -> None:
        def landed(data: bytes | None, _: str) -> None:
            if data is not None:
                self._discard({part.data_id for part in decode_parts(data)} - referred)
            self._commits.batch.drop_bodies.add(rowid)
            self._commits.touch()

        self._reader.submit(lambda index: index.body(rowid), landed)

    def _close_upload(self, key: RowKey, upload: UploadId, row: Row, state: KeyState) -> None:
        """Drop the part rows of a closed upload, and the data of parts that the object does not use."""
        referred = set(record_data(state))
        live, bucket = state.live, bucket_of(key)
        start, stop = part_row(bucket, upload, 0), RowKey(successor(bucket + b"p" + upload) or b"")

        def landed(rows: list[ScanRow] | None, _: str) -> None:
            for found in rows or ():
                try:
                    part = decode_state(found.encoded)
                except msgspec.DecodeError:
                    continue
                data = set(record_data(part)).union(*(applied.removed for applied in part.ring))
                self._discard(data - referred)
                self._commits.batch.heads[found.row] = None
                self._cache.drop(found.row)
                self._commits.touch()

        def with_list(data: bytes | None) -> None:
            if data is not None:
                referred.update(part.data_id for part in decode_parts(data))
            self._reader.submit(lambda index: index.scan(start, stop, 10_001), landed)

        if (
            live is not None
            and live.body is not None
            and live.body.count
            and live.upload_id == upload
        ):
            self._with_body(key, row, live.body.id, with_list)
        else:
            with_list(None)

    # -- scans and fences

    def _scan(self, request: Scan, reply: ReplyTo) -> None:
        refusal = self._acceptor.gate(request.start, request.epoch, request.bucket_epoch)
        if refusal is not None:
            reply(refusal)
            return

        def work(index: Index) -> tuple[list[ScanRow], RowKey | None]:
            if request.delimiter:
                return index.scan_rolled(
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
                reply(Page([self._overlay(row) for row in result[0]], result[1]))

        self._reader.submit(work, landed)

    def _overlay(self, found: ScanRow) -> ScanRow:
        """A row as stored, with the chosen flag that may not be durable yet."""
        if not found.chosen:
            row = self._cache.get(found.row)
            if (
                row is not None
                and row.register is not None
                and row.register.chosen
                and row.register.ballot == found.ballot
            ):
                return attrs.evolve(found, chosen=True)
        return found

    def _scan_uploads(self, request: ScanUploads, reply: ReplyTo) -> None:
        refusal = self._acceptor.gate(request.start, request.epoch, request.bucket_epoch)
        if refusal is not None:
            reply(refusal)
            return
        stop = RowKey(successor(object_row(request.bucket, b"")) or b"")

        def landed(rows: list[RowKey] | None, error: str) -> None:
            if rows is None:
                reply(Failed(error))
            else:
                more = RowKey(rows[-1] + b"\0") if len(rows) == request.limit else None
                reply(Page([ScanRow(row, None, False, False, b"") for row in rows], more))

        self._reader.submit(lambda index: index.uploads(request.start, stop, request.limit), landed)

    def _fence(self, request: Fence, reply: ReplyTo) -> None:
        if self._acceptor.fence(request):
            epoch = self._acceptor.control.fences[request.bucket]
            self._commits.batch.fences[request.bucket] = (epoch, request.dead)
            self._commits.touch()
        self._commits.when_durable(self._commits.seq, lambda ok: reply(Done() if ok else _LOST))


def _flags(register: Register) -> int:
    return (CHOSEN if register.chosen else 0) | (LIVE if register.state.live is not None else 0)


def _decode_row(head: HeadRow | None) -> Row:
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
        row.closed = tuple(done.upload_id for done in state.done)
    return row
