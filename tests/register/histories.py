"""Thousands of short faulty histories a second over the real acceptor and proposer, without Trio.

One key, n drives, several coordinators with skewed clocks; messages are delayed, lost and duplicated; drives crash and forget
their promises; coordinators pause and die at any step. Every history is checked: linearizable, no operation applied twice, and the
data of the final state is still held by enough drives. `python -m tests.register.histories SEED COUNT [MUTANT]`.
"""

import heapq
import itertools
import sys
from random import Random

import attrs

from cluster.clock import BALLOT_ZERO, HybridClock
from cluster.ids import DataId, OpId, new_data_id
from cluster.quorum import Electorate, Group, durable_shards, of_all
from cluster.register.acceptor import Acceptor, Control, Limits, Promised, Write, collectable
from cluster.register.keys import object_row
from cluster.register.messages import Accept, Accepted, Learn, Prepare, Query, Value
from cluster.register.mutations import Absent, DeleteVersion, PutVersion, ValidatorIn
from cluster.register.proposer import (
    Committed,
    Declined,
    Operation,
    Proposer,
    Retry,
    Send,
    TooOld,
    Unknown,
    newest,
)
from cluster.register.records import BOTTOM, KeyState, Part, Register, Version
from tests.sim.checkers import Op, check_key

ROW = object_row(bytes(16), b"key")
MUTANTS = (
    "no-confirm",
    "no-ring",
    "collect-at-accept",
    "propose-unstaged",
    "no-ceiling",
    "no-bury",
    "small-quorum",
)


@attrs.define
class Drive:
    """The durable side of one drive, and its acceptor."""

    index: int
    limits: Limits
    control: Control = attrs.field(factory=Control)
    held: Register = BOTTOM
    shards: set[DataId] = attrs.field(factory=set)
    seen_chosen: set[DataId] = attrs.field(factory=set)
    up: bool = True
    acceptor: Acceptor = attrs.field(init=False)

    def __attrs_post_init__(self):
        self.boot()

    def boot(self):
        self.acceptor = Acceptor(self.control, set_id=0, position=self.index, limits=self.limits)
        self.up = True


class History:
    """One seed."""

    def __init__(self, seed, mutant=None):
        self.rng = rng = Random(seed)
        self.mutant = mutant
        k, m = rng.choice([(1, 0), (1, 1), (2, 1), (2, 2), (4, 2)])
        self.k, n = k, k + m
        self.electorate = of_all(n)
        if mutant == "small-quorum" and n > 2:
            self.electorate = _one_accept_too_few(n)
        self.needed_shards = durable_shards(k, n)
        ttl = rng.choice([400, 1500, 4000])
        self.ring = rng.choice([2, 8])
        self.limits = Limits(op_ttl_ms=ttl, max_put_ms=ttl, ceiling_lease_ms=rng.choice([0, 200]))
        self.drives = [Drive(i, self.limits) for i in range(n)]
        self.now = 0
        self.queue = []
        self.order = itertools.count()
        nodes = rng.randint(1, 3)
        skews = [rng.randint(0, 3000) for _ in range(nodes)]
        self.clocks = [
            HybridClock(lambda skew=skew: 10_000 + self.now + skew, rng.getrandbits(64))
            for skew in skews
        ]
        self.loss = rng.choice([0, 0.02, 0.1, 0.25])
        self.lag = rng.choice([20, 200, 1500])
        self.values = itertools.count(1)
        self.ops: list[Op] = []
        self.violations: list[str] = []

    # -- time and network

    def at(self, delay, call, *arguments):
        heapq.heappush(self.queue, (self.now + delay, next(self.order), call, arguments))

    def delay(self):
        return (
            self.rng.randint(1, 10) if self.rng.random() < 0.8 else self.rng.randint(10, self.lag)
        )

    def send(self, index, message, back):
        def deliver():
            drive = self.drives[index]
            if drive.up:
                reply = self.handle(drive, message)
                if reply is not None and self.rng.random() >= self.loss:
                    self.at(self.delay(), back, index, reply)

        if self.rng.random() >= self.loss:
            self.at(self.delay(), deliver)
        if self.rng.random() < 0.05:
            self.at(self.delay() * 5, deliver)

    def handle(self, drive, message):
        acceptor = drive.acceptor
        match message:
            case Query():
                return Value(drive.held)
            case Prepare():
                decision = acceptor.prepare(message, drive.held)
                return decision.reply if isinstance(decision, Promised) else decision
            case Accept():
                decision = acceptor.accept(message, drive.held, ())
                if isinstance(decision, Write):
                    old = drive.held
                    drive.held = decision.register
                    if self.mutant == "collect-at-accept":
                        drive.shards -= _refs(old.state) - _refs(drive.held.state)
                    return Accepted(1)
                return decision
            case Learn():
                chosen = acceptor.learn(message, drive.held)
                if chosen is not None:
                    drive.held = chosen.register
                    self.collect(drive)
                return None
            case ("stage", data_id):
                drive.shards.add(data_id)
                return "staged"

    def collect(self, drive):
        for data_id in list(drive.shards):
            seen = data_id in drive.seen_chosen
            if collectable(drive.held, data_id, seen_chosen=seen, limits=self.limits):
                drive.shards.discard(data_id)
        drive.seen_chosen |= _refs(drive.held.state)

    # -- clients

    def client(self, kind, *, immortal=False):
        node = self.rng.randrange(len(self.clocks))
        value = next(self.values) if kind in {"put", "create", "replace"} else None
        expected = None
        if kind == "replace":
            seen = [d.held.state.live.validator for d in self.drives if d.held.state.live]
            expected = int(self.rng.choice(seen)) if seen else 0
        op = Op(kind=kind, key=b"key", value=value, expected=expected, start=self.now)
        self.ops.append(op)
        dies = (
            self.now + self.rng.randint(1, 400)
            if self.rng.random() < 0.15 and not immortal
            else None
        )
        client = Client(self, op, self.clocks[node], dies)
        if kind == "get":
            client.query()
        elif value is not None:
            client.stage()
        else:
            client.commit(DeleteVersion())

    def run(self):
        rng, time = self.rng, 0
        self.hot = hot = rng.random() < 0.4
        for _ in range(rng.randint(4, 14)):
            time += rng.choice([1, 3, 10, 30] if hot else [1, 5, 50, 300, 1500])
            kind = rng.choices(["put", "delete", "create", "replace", "get"], [35, 15, 8, 10, 32])[
                0
            ]
            self.at(time, self.client, kind)
        for _ in range(rng.randint(0, 40 if hot else 8)):
            self.at(rng.randint(0, time + 400), self.crash)
        end = time + 15_000

        def calm():
            self.loss, self.lag = 0, 20
            for drive in self.drives:
                if not drive.up:
                    self.boot(drive)

        self.at(end, calm)
        for turn in range(3):
            self.at(end + 3000 + 2000 * turn, lambda: self.client("get", immortal=True))
        while self.queue:
            self.now, _, call, arguments = heapq.heappop(self.queue)
            if self.now > end + 20_000:
                break
            call(*arguments)
        self.check()
        return self.violations

    def crash(self):
        up = [drive for drive in self.drives if drive.up]
        if len(up) > len(self.drives) - max(1, len(self.drives) - self.k):
            drive = self.rng.choice(up)
            drive.up = False
            # In a hot history a drive is back while proposals that it promised for are still on their way.
            self.at(
                self.rng.randint(1, 15) if self.hot else self.rng.randint(10, 3000),
                self.boot,
                drive,
            )

    def boot(self, drive):
        if self.mutant == "no-ceiling":
            drive.control.ceiling_ms = 0
        drive.boot()

    def check(self):
        if not check_key(self.ops):
            self.violations.append("not linearizable")
        final, _ = newest(dict(enumerate(d.held for d in self.drives)), of_all(len(self.drives)))
        for data_id in _refs(final.state):
            if sum(data_id in drive.shards for drive in self.drives) < self.k:
                self.violations.append("data lost")
        for op in self.ops[-3:]:
            if op.kind == "get" and op.outcome != "ok":
                self.violations.append("a calm read failed")


class Client:
    """One operation: stage, commit or read."""

    def __init__(self, history, op, clock, dies):
        self.h, self.op, self.clock, self.dies = history, op, clock, dies
        self.proposer = None
        self.replies = {}
        self.round = 0

    @property
    def alive(self):
        return self.dies is None or self.h.now < self.dies

    def end(self, outcome, value=None):
        if self.alive and self.op.end == float("inf"):
            self.op.end, self.op.outcome = self.h.now, outcome
            if self.op.kind == "get":
                self.op.value = value

    def stage(self):
        self.data_id = new_data_id(self.clock.tick().hlc, 1, self.h.rng)
        staged = set()

        def back(index, _):
            staged.add(index)

        for index in range(len(self.h.drives)):
            self.h.send(index, ("stage", self.data_id), back)

        def go():
            if not self.alive:
                return
            if len(staged) < self.h.needed_shards and self.h.mutant != "propose-unstaged":
                self.end("failed")
                return
            part = Part(
                number=1, size=1, validator="", attributes=b"", data_id=self.data_id, intro=BALLOT_ZERO, codec="", set_id=0,
                k=self.h.k, m=0, block=1, staged=sum(1 << i for i in staged), digest_root=b"",
            )  # fmt: skip
            version = Version(
                version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=self.clock.tick().hlc, size=1,
                validator=str(self.op.value), attributes=b"", mtime_ms=0, parts=(part,),
            )  # fmt: skip
            self.commit(PutVersion(version=version))

        self.h.at(self.h.rng.choice([30, 60, 500]), go)

    def commit(self, mutation):
        expect = ()
        if self.op.kind == "create":
            expect = (Absent(),)
        elif self.op.kind == "replace":
            expect = (ValidatorIn(validators=(str(self.op.expected),)),)
        hlc = mutation.version.op_hlc if isinstance(mutation, PutVersion) else self.clock.tick().hlc
        operation = Operation(
            row=ROW,
            bucket_epoch=0,
            op_id=OpId(self.h.rng.randbytes(16)),
            op_hlc=hlc,
            mutation=mutation,
            expect=expect,
        )
        self.start(operation)

    def start(self, operation):
        self.proposer = _proposer(self.h.mutant)(
            operation, op_ttl_ms=self.h.limits.op_ttl_ms, ring_kept=self.h.ring
        )
        self.attempt()

    def attempt(self):
        if self.alive:
            self.round += 1
            ballot = self.clock.tick()
            self.broadcast(self.proposer.begin(ballot, 1, self.h.electorate), ballot, self.round)

    def broadcast(self, send: Send, ballot, number):
        def back(index, reply):
            if self.alive and number == self.round:
                self.step(self.proposer.on_reply(index, reply, to=ballot), ballot, number)

        def late():
            if self.alive and number == self.round and self.op.end == float("inf"):
                self.step(self.proposer.on_timeout(), ballot, number)

        for index in range(len(self.h.drives)):
            self.h.send(index, send.message, back)
        self.h.at(300, late)

    def step(self, step, ballot, number):
        match step:
            case Send():
                self.broadcast(step, ballot, number)
            case Committed():
                self.round += 1
                if step.ballot == ballot:
                    for index in range(len(self.h.drives)):
                        self.h.send(index, Learn(row=ROW, ballot=ballot), lambda *_: None)
                live = step.state.live
                self.end("ok", int(live.validator) if live else None)
            case Declined():
                self.round += 1
                self.end("refused")
            case Retry(low=low):
                self.round += 1
                self.clock.see(low)
                if self.proposer.tries >= 12:
                    self.end("unknown" if self.proposer.first_accept else "failed")
                else:
                    pause = self.h.rng.choice([0, 0, 0, 0, 600, 5000])
                    self.h.at(self.h.rng.randint(5, 60) * self.proposer.tries + pause, self.attempt)
            case Unknown():
                self.round += 1
                self.end("unknown")
            case TooOld():
                self.round += 1
                self.end("failed")

    def query(self):
        self.replies = {}
        started = self.round = self.round + 1
        query = Query(row=ROW, epoch=1, bucket_epoch=0)

        def back(index, reply):
            if not self.alive or started != self.round:
                return
            self.replies[index] = reply.register
            if len(self.replies) >= self.h.electorate.read.needed:
                self.round += 1
                best, known = newest(self.replies, self.h.electorate)
                if known or self.h.mutant == "no-confirm":
                    live = best.state.live
                    self.end("ok", int(live.validator) if live else None)
                else:
                    hlc = self.clock.tick().hlc
                    self.start(
                        Operation(
                            row=ROW,
                            bucket_epoch=0,
                            op_id=OpId(self.h.rng.randbytes(16)),
                            op_hlc=hlc,
                            mutation=None,
                        )
                    )

        for index in range(len(self.h.drives)):
            self.h.send(index, query, back)

        def late():
            if self.alive and started == self.round:
                if self.h.now < self.op.start + 5000:
                    self.query()
                else:
                    self.end("failed")

        self.h.at(300, late)


def _refs(state: KeyState):
    return {part.data_id for version in state.versions for part in version.parts}


def _one_accept_too_few(n):
    """A mutant."""
    full = of_all(n)
    accept = full.accept[0]
    return Electorate(full.read, (Group(accept.members, accept.needed - 1),))


class _Ringless(Proposer):
    """A mutant: no memory of applied operations."""

    def _ring(self, old, new):
        return ()

    def _may_have_been_forgotten(self, state):
        return False


class _Hasty(Proposer):
    """A mutant: a definite refusal although an earlier attempt may still surface."""

    def _decide(self):
        sent, self.first_accept = self.first_accept, None
        try:
            return super()._decide()
        finally:
            self.first_accept = self.first_accept or sent


def _proposer(mutant):
    return {"no-ring": _Ringless, "no-bury": _Hasty}.get(mutant, Proposer)


def run(seeds, mutant=None):
    """(number of histories, first violating seed and what was violated) — stops at the first violation of a mutant."""
    for count, seed in enumerate(seeds, 1):
        violations = History(seed, mutant).run()
        if violations:
            return count, (seed, violations)
    return len(seeds), None


if __name__ == "__main__":
    first, number = int(sys.argv[1]), int(sys.argv[2])
    print(run(range(first, first + number), sys.argv[3] if len(sys.argv) > 3 else None))
