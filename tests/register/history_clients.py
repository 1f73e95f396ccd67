"""Clients of a history: scripts that wait for answers, over the real proposer. One may die, or pause, at any step."""

from functools import partial

from msgspec.structs import replace

from cluster.clock import BALLOT_ZERO
from cluster.ids import OpId, UploadId, new_data_id
from cluster.register.keys import object_row, part_row
from cluster.register.messages import (
    Learn,
    Page,
    Query,
    Scan,
    StaleEpoch,
    Value,
)
from cluster.register.mutations import (
    AbortUpload,
    Absent,
    CompleteUpload,
    DeleteVersion,
    OpenUpload,
    PutVersion,
    UploadOpen,
    ValidatorIn,
)
from cluster.register.proposer import (
    Behind,
    Committed,
    Declined,
    Operation,
    Retry,
    Send,
    TooOld,
    Unknown,
    newest,
)
from cluster.register.records import Part, Register, Upload, Version
from tests.register.history_drive import Stage
from tests.register.mutants import proposer_of

BUCKET = bytes(16)
KEY = b"d/key"
ROW = object_row(BUCKET, KEY)
_ROUND_MS = 300


class Client:
    """Runs one script. `op` is what the checker sees of it; None for the cluster's own work."""

    def __init__(self, history, node, op=None, dies=None):
        self.h, self.node, self.op, self.dies = history, node, op, dies
        self.clock = node.clock
        self.staged = {}  # drives that hold our shards
        self._script, self._waits = None, 0

    # -- the script

    def run(self, script):
        self._script = script
        self._go_on(None)

    def _go_on(self, value):
        if self.dies is not None and self.h.now >= self.dies:
            return
        self._waits += 1
        try:
            wait = self._script.send(value)
        except StopIteration as stop:
            self._end(stop.value)
        else:
            wait(partial(self._resume, self._waits))

    def _resume(self, waits, value=None):
        if waits == self._waits:
            self._go_on(value)

    def _end(self, result):
        if self.op is not None:
            self.op.end = self.h.now
            self.op.outcome, value = result if isinstance(result, tuple) else (result, None)
            if self.op.kind == "get":
                self.op.value = value

    def sleep(self, ms):
        return lambda resume: self.h.at(ms, resume)

    # -- asking

    def ask(self, drives, message, is_enough, timeout=_ROUND_MS):
        """Wait for answers by drive; those that have come when it is enough, or too late."""

        def wait(resume):
            replies = {}

            def back(index, reply):
                replies[index] = reply
                if isinstance(reply, StaleEpoch):
                    self.node.epoch = max(self.node.epoch, reply.epoch)
                if is_enough(replies):
                    resume(dict(replies))  # more may come

            for index, drive in enumerate(drives):
                self.h.send(self.node, drive, message, partial(back, index))
            self.h.at(timeout, lambda: resume(dict(replies)))

        return wait

    def ask_one(self, drive, message):
        replies = yield self.ask([drive], message, bool)
        return replies.get(0)

    def read(self, row, *, is_list=False):
        """The register, known to be chosen; None: there was no quorum for long."""
        began = self.h.now
        while self.h.now < began + 5000:
            layout = self.h.layouts[self.node.epoch]
            question = Query(row=row, epoch=layout.epoch, bucket_epoch=0)
            if is_list:
                question = Scan(
                    start=object_row(BUCKET, b""), stop=None, limit=10, epoch=layout.epoch, bucket_epoch=0,
                    delimiter=b"/", prefix_len=17,
                )  # fmt: skip

            def is_enough(replies, layout=layout):
                heard = sum(1 << i for i, r in replies.items() if isinstance(r, Value | Page))
                return layout.electorate.read.is_met(heard)

            replies = yield self.ask(layout.drives, question, is_enough)
            if not is_enough(replies):
                continue
            if is_list:
                if not any(r.rows for r in replies.values() if isinstance(r, Page)):
                    return Register()  # no witness of the prefix anywhere
                is_list = False
                continue
            values = {i: r.register for i, r in replies.items() if isinstance(r, Value)}
            best, known = newest(values, layout.electorate)
            if known or self.h.mutant == "no-confirm":
                return best
            if self.h.rng.random() < 0.5:
                yield self.sleep(30)
            step = yield from self.commit(row, None)
            done = isinstance(step, Committed)
            return Register(ballot=step.ballot, state=step.state, chosen=True) if done else None
        return None

    # -- committing

    def commit(self, row, mutation, expect=(), *, op_hlc=None, rewrite=False, tries=12):
        operation = Operation(
            row=row, bucket_epoch=0, op_id=OpId(self.h.rng.randbytes(16)),
            op_hlc=self.clock.tick().hlc if op_hlc is None else op_hlc,
            mutation=mutation, expect=expect, rewrite=rewrite,
        )  # fmt: skip
        proposer = proposer_of(self.h.mutant)(
            operation, op_ttl_ms=self.h.limits.op_ttl_ms, ring_kept=self.h.ring
        )
        while proposer.tries < tries:
            layout = self.h.layouts[self.node.epoch]
            if not self._holds(layout):
                break
            ballot = self.clock.tick()
            step = yield partial(self._attempt, proposer, layout, ballot)
            if isinstance(step, Committed) and step.ballot == ballot:
                for drive in layout.drives:
                    self.h.send(self.node, drive, Learn(row=row, ballot=ballot), _ignore)
            if isinstance(step, Behind):
                self.node.epoch = max(self.node.epoch, step.epoch)
            elif isinstance(step, Retry):
                self.clock.see(step.low)
                pause = self.h.rng.choice([0, 0, 0, 0, 600, 5000])
                yield self.sleep(self.h.rng.randint(5, 60) * proposer.tries + pause)
            else:
                return step
        return Unknown() if proposer.first_accept else TooOld()

    def _attempt(self, proposer, layout, ballot, resume):
        sent, is_over = [0], [False]

        def take(step):
            if isinstance(step, Send):
                broadcast(step.message)
            elif step is not None and not is_over[0]:
                is_over[0] = True
                resume(step)

        def back(index, reply):
            if not is_over[0]:
                take(proposer.on_reply(index, reply, to=ballot))

        def broadcast(message):
            sent[0] += 1
            for index, drive in enumerate(layout.drives):
                self.h.send(self.node, drive, message, partial(back, index))
            self.h.at(_ROUND_MS, late, sent[0])

        def late(number):
            if number == sent[0] and not is_over[0]:
                take(proposer.on_timeout())

        broadcast(proposer.begin(ballot, layout.epoch, layout.electorate).message)

    def _holds(self, layout):
        """Whether enough of the drives that hold our shards still have their places."""
        kept = all(
            sum(drive in layout.drives for drive in drives) >= self.h.needed_shards
            for drives in self.staged.values()
        )
        return kept or self.h.mutant == "propose-unstaged"

    # -- what clients do

    def get(self, *, is_list=False):
        found = yield from self.read(ROW, is_list=is_list)
        if found is None:
            return "failed"
        live = found.state.live
        return "ok", int(live.validator) if live else None

    def delete(self):
        return _outcome((yield from self.commit(ROW, DeleteVersion())))

    def put(self):
        part = yield from self.stage()
        if part is None:
            return "failed"
        expect = ()
        if self.op.kind == "create":
            expect = (Absent(),)
        elif self.op.kind == "replace":
            expect = (ValidatorIn(validators=(str(self.op.expected),)),)
        return _outcome((yield from self._put(ROW, part, expect)))

    def _put(self, row, part, expect=()):
        version = self.version(part)
        return self.commit(row, PutVersion(version=version), expect, op_hlc=version.op_hlc)

    def version(self, *parts):
        value = str(self.op.value)
        return Version(
            version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=self.clock.tick().hlc, size=1,
            validator=value, attributes=b"", mtime_ms=0, parts=parts,
        )  # fmt: skip

    def stage(self):
        """A body on enough drives; None: on too few."""
        data_id = new_data_id(self.clock.tick().hlc, 1, self.h.rng)
        layout = self.h.layouts[self.node.epoch]
        rng, needed = self.h.rng, self.h.needed_shards
        replies = yield self.ask(
            layout.drives, Stage(data_id), lambda r: len(r) >= needed, rng.choice([500, 4000])
        )
        on = list(replies)
        # A slow client, or a coordinator that pauses.
        yield self.sleep(
            rng.choice([0, 0, 0, 30] if self.h.hot else [0, 0, 0, 0, 0, 100, 1000, 4000])
        )
        if len(on) < self.h.needed_shards and self.h.mutant != "propose-unstaged":
            return None
        self.staged[data_id] = [layout.drives[i] for i in on]
        return Part(
            number=1, size=1, validator="", attributes=b"", data_id=data_id, intro=BALLOT_ZERO, codec="", set_id=0,
            k=self.h.k, m=0, block=1, staged=sum(1 << i for i in on), digest_root=b"",
        )  # fmt: skip

    def upload(self):
        """A multipart upload: its completion is what the checker sees as a put."""
        rng = self.h.rng
        upload = UploadId(rng.randbytes(16))
        opening = Upload(upload, BALLOT_ZERO, b"", 0)
        step = yield from self.commit(ROW, OpenUpload(upload=opening))
        if not isinstance(step, Committed):
            return "failed"
        row = part_row(BUCKET, upload, 1, KEY)
        for _ in range(rng.choice([1, 1, 2])):
            yield self.sleep(rng.choice([0, 30, 600, 3000, 6000]))
            found = yield from self.read(ROW)
            if found is None or all(u.upload_id != upload for u in found.state.uploads):
                return "failed"
            part = yield from self.stage()
            if part is None:
                return "failed"
            if not isinstance((yield from self._put(row, part)), Committed):
                return "failed"
        self.staged.clear()  # they are named by a chosen record: nobody counts them again
        yield self.sleep(rng.choice([0, 30, 600, 6000]))
        if rng.random() < 0.2:
            yield from self.commit(
                ROW, AbortUpload(upload_id=upload), (UploadOpen(upload_id=upload),)
            )
            return "failed"
        self.op.start = self.h.now
        found = yield from self.read(row)
        if found is None or found.state.live is None:
            return "failed"
        version = replace(self.version(*found.state.live.parts), upload_id=upload)
        complete = CompleteUpload(upload_id=upload, version=version)
        step = yield from self.commit(
            ROW, complete, (UploadOpen(upload_id=upload),), op_hlc=version.op_hlc
        )
        return "failed" if isinstance(step, Declined) else _outcome(step)


def _outcome(step):
    match step:
        case Committed():
            return "ok"
        case Declined():
            return "refused"
        case Unknown():
            return "unknown"
        case _:
            return "failed"


def _ignore(*_):
    pass
