"""What random histories find once in 100,000 or less, as the schedules that show it, step by step."""

from random import Random

import attrs
import pytest

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.ids import NodeId, OpId, UploadId, new_data_id
from cluster.quorum import of_all
from cluster.register.acceptor import Limits
from cluster.register.anti_entropy import Have, Install, Purge, RowAt
from cluster.register.messages import Done, Learn, Query
from cluster.register.mutations import Absent, DeleteVersion, OpenUpload, PutVersion
from cluster.register.proposer import Committed, Operation, Proposer, Retry, Send, Unknown, newest
from cluster.register.records import Part, Upload, Version
from tests.register.history_clients import ROW
from tests.register.history_drive import Drive, Pull, Stage
from tests.register.mutants import MUTANTS
from tests.sim.checkers import Op, check_key

TTL = 400
T = 10_000  # ms of the hybrid clock
K, N = 2, 3
UPLOAD = Upload(upload_id=UploadId(bytes(16)), created=BALLOT_ZERO, attributes=b"", mtime_ms=0)
SCHEDULED = {
    "purge-floor-is-tombstone", "purge-floor-in-mid-millisecond", "sync-without-ceilings",
    "ceiling-of-promises-alone",
}  # fmt: skip


class Set:
    """A few drives, everything delivered at once to whom it is meant for, what clients saw noted in order."""

    def __init__(self, mutant=None, n=N):
        self.limits = Limits(op_ttl_ms=TTL, max_put_ms=TTL, ceiling_lease_ms=0)
        self.mutant, self.n, self.epoch = mutant, n, 1
        self.drives = [Drive(position, self.limits, mutant) for position in range(n)]
        self.ops, self.step = [], 0

    def ask_all(self, message, positions=None):
        asked = range(self.n) if positions is None else positions
        return {position: self.drives[position].answer(message) for position in asked}

    def attempt(self, proposer, ballot, prepare=None, accept=None):
        """One ballot of an operation, of which these positions hear; the step that ends it."""
        sent, reach = proposer.begin(ballot, self.epoch, of_all(self.n)), prepare
        while isinstance(sent, Send):
            replies = self.ask_all(sent.message, reach).items()
            steps = [proposer.on_reply(index, reply, to=ballot) for index, reply in replies]
            sent, reach = next((step for step in steps if step is not None), None), accept
        if isinstance(sent, Committed):
            self.ask_all(Learn(row=ROW, ballot=ballot), accept)
        return sent if sent is not None else proposer.on_timeout()

    def read(self, positions=None, again=None):
        """What a reader of these sees; what is not known to be chosen is written back at the ballot `again`."""
        values = self.ask_all(Query(row=ROW, epoch=self.epoch, bucket_epoch=0), positions)
        best, known = newest({i: v.register for i, v in values.items()}, of_all(self.n))
        state = best.state
        if not known:
            done = self.attempt(proposer(None, b"r", again.hlc), again, prepare=positions)
            assert isinstance(done, Committed)
            state = done.state
        self.saw("get", int(state.live.validator) if state.live else None)
        return state

    def saw(self, kind, value=None):
        self.step += 1
        self.ops.append(Op(kind, b"key", value, start=self.step, end=self.step, outcome="ok"))

    def purge(self, ballot):
        named = [RowAt(ROW, ballot)]
        held = self.ask_all(Have(rows=named, epoch=1)).values()
        assert all(one.ballots == [ballot] for one in held)
        self.ask_all(Purge(rows=named, epoch=1))

    def shards(self, state):
        return [
            sum(part.data_id in drive.shards for drive in self.drives)
            for version in state.versions
            for part in version.parts
        ]


def writer(history, op_hlc):
    """A PUT whose body is durable everywhere."""
    data_id = new_data_id(op_hlc, NodeId(1), Random(1))
    assert set(history.ask_all(Stage(data_id)).values()) == {Done()}
    part = Part(
        number=1, size=1, validator="", attributes=b"", data_id=data_id, intro=BALLOT_ZERO, codec="", set_id=0,
        k=K, m=1, block=1, staged=7, digest_root=b"",
    )  # fmt: skip
    version = Version(
        version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=op_hlc, size=1, validator="1",
        attributes=b"", mtime_ms=0, parts=(part,),
    )  # fmt: skip
    return proposer(PutVersion(version=version), b"w", op_hlc)


def proposer(mutation, name, op_hlc):
    operation = Operation(
        row=ROW, bucket_epoch=0, op_id=OpId(name * 16), op_hlc=op_hlc, mutation=mutation
    )
    return Proposer(operation, op_ttl_ms=TTL, ring_kept=8)


def slow_writer_after_a_purge(mutant, *, first, buried, again):
    """A PUT takes effect, and its writer hears nothing; the object is read, deleted, purged; the writer tries again.

    The tombstone's ring knew the operation. Without it the writer would put the object back, whose data is gone.
    """
    w = Set(mutant)
    put = writer(w, first.hlc)
    done = w.attempt(put, first)
    assert isinstance(done, Committed)  # which the writer does not hear
    putting = Op("put", b"key", 1, start=w.step)
    w.ops.append(putting)
    assert w.shards(w.read()) == [N]
    assert isinstance(w.attempt(proposer(DeleteVersion(), b"d", buried.hlc), buried), Committed)
    w.saw("delete")
    w.purge(buried)
    w.read()
    step = w.attempt(put, again)
    while isinstance(step, Retry):  # the clock sees what the drives refused
        step = w.attempt(put, Ballot(step.low.hlc + 1, 0, again.proposer))
    putting.end = w.step = w.step + 1
    putting.outcome = "unknown" if isinstance(step, Unknown) else "ok"
    state = w.read()
    return check_key(w.ops), all(shards >= K for shards in w.shards(state))


SLOW = {
    # The writer's clock is behind; that of whoever purges is ahead by more than OP_TTL.
    "purge-floor-is-tombstone": {
        "first": Ballot(T, 0, 1),
        "buried": Ballot(T + 10, 0, 2),
        "again": Ballot(T + 20, 0, 1),
    },
    # Everything in one millisecond, and the last try just OP_TTL later: still young enough, and above (b.hlc + OP_TTL, 0, 0).
    "purge-floor-in-mid-millisecond": {
        "first": Ballot(T, 0, 1),
        "buried": Ballot(T, 1, 2),
        "again": Ballot(T + TTL, 1, 1),
    },
}


@pytest.mark.parametrize("mutant", sorted(SLOW))
def test_without_the_whole_floor_a_slow_writer_brings_back_what_was_purged(mutant):
    assert mutant in MUTANTS
    assert slow_writer_after_a_purge(mutant, **SLOW[mutant]) == (False, False)
    assert slow_writer_after_a_purge(None, **SLOW[mutant]) == (True, True)


def delete_after_a_replacement(mutant):
    """2+2. A far reader writes the old state back at a high ballot, which one drive accepts, with a promise of drive 3.

    That one is given up. The new one takes its rows from two drives that know nothing of it, and votes; a delete is chosen
    with its help, at a lower ballot. A later reader meets what was written back.
    """
    w, far = Set(mutant, n=4), Ballot(T + 5000, 0, 3)
    put = writer(w, T)
    w.attempt(put, Ballot(T, 0, 1))
    w.saw("put", 1)
    rewrite = proposer(None, b"f", far.hlc)
    rewrite.operation = attrs.evolve(rewrite.operation, rewrite=True)
    assert isinstance(w.attempt(rewrite, far, prepare=[0, 3], accept=[0]), Retry)
    # Drive 3 is gone; all others adopt that.
    new, w.epoch = Drive(3, w.limits, mutant, epoch=2), 2
    new.vote(False)
    w.drives[3] = new
    for drive in w.drives[:3]:
        drive.control.epoch = 2
    # Rows of Qr = 2; what was promised, of Qw = 3.
    for position in (1, 2) if mutant else (1, 2, 0):
        found = w.drives[position].answer(Pull(2))
        held = found.rows[ROW]
        if position:
            pulled = Install(
                row=ROW, ballot=held.ballot, epoch=2, version=1, state=held.state, chosen=held.chosen
            )  # fmt: skip
            assert new.install(pulled) == Done()
        new.acceptor.raise_floor(found.floor)
    new.vote(True)
    delete = proposer(DeleteVersion(), b"d", T + 100)
    step = w.attempt(delete, Ballot(T + 100, 0, 2), prepare=[1, 2], accept=[1, 2, 3])
    if isinstance(step, Committed):
        w.saw("delete")
    w.read([0, 1], again=Ballot(T + 6000, 0, 4))
    return check_key(w.ops)


def test_without_the_ceilings_of_others_a_new_drive_helps_to_choose_what_is_outranked():
    assert not delete_after_a_replacement("sync-without-ceilings")
    assert delete_after_a_replacement(None)


def late_accept_at_a_corrupt_row(mutant):
    """2+1. Drive 2 accepts what it never promised, and loses the row: what it held is known from its ceiling alone.

    A reader's write-back of the older state, prepared before, reaches it then. Taken, it hides what was acknowledged.
    """
    w = Set(mutant)
    old, late, new = Ballot(T, 0, 1), Ballot(T + 1000, 0, 2), Ballot(T + 2000, 0, 1)
    assert isinstance(w.attempt(writer(w, T), old, prepare=[0, 1]), Committed)
    w.saw("put", 1)
    rewrite = proposer(None, b"r", late.hlc)
    rewrite.operation = attrs.evolve(rewrite.operation, rewrite=True)
    sent = rewrite.begin(late, 1, of_all(N))
    promises = w.ask_all(sent.message, [0, 1]).items()
    (sent,) = [step for i, reply in promises if (step := rewrite.on_reply(i, reply, to=late))]
    delete = proposer(DeleteVersion(), b"d", new.hlc)
    assert isinstance(w.attempt(delete, new, prepare=[0, 1], accept=[0, 2]), Committed)
    w.saw("delete")
    w.drives[2].corrupt(ROW)
    w.ask_all(sent.message, [2])
    w.read([1, 2] if mutant else [0, 1], again=Ballot(T + 3000, 0, 3))
    return check_key(w.ops)


def test_without_a_ceiling_over_accepts_a_corrupt_row_takes_less_than_it_held():
    assert not late_accept_at_a_corrupt_row("ceiling-of-promises-alone")
    assert late_accept_at_a_corrupt_row(None)


def test_an_operation_as_old_as_its_first_ballot_may_have_been_forgotten():
    """Promises that were asked for before the operation was known are of an older ballot: by that its place in the ring is judged."""
    w = Set()
    now = T + 10 * TTL
    put = writer(w, now)
    put.operation = attrs.evolve(put.operation, expect=(Absent(),))
    assert isinstance(w.attempt(put, Ballot(T, 0, 1), accept=[0]), Retry)
    other = proposer(OpenUpload(upload=UPLOAD), b"o", now)
    assert isinstance(w.attempt(other, Ballot(now, 0, 2)), Committed)
    # It took effect, and its place in the ring was too old to be kept.
    assert w.read().live is not None
    assert w.attempt(put, Ballot(now + 1, 0, 1)) == Unknown()
