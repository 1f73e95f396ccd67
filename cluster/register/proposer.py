"""The coordinator's side of one operation on one register, as a state machine without I/O.

The driver draws a ballot and calls `begin`, sends what it is told to every home drive, feeds each answer to
`on_reply`, and acts on the step that comes back: send the ACCEPT, back off and begin again, or finish. An operation carries
its id through every attempt, and every state remembers the last operations applied to it, so that a repeated proposal
takes effect at most once; a definite refusal is given only when no earlier attempt of ours can still take effect.
"""

from collections.abc import Mapping
from typing import TypeAlias

import attrs
from msgspec.structs import replace

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.ids import OpId, RowKey
from cluster.quorum import Electorate
from cluster.register.acceptor import OP_TTL_MS
from cluster.register.messages import (
    Accept,
    Accepted,
    Expired,
    Nack,
    NeedBodies,
    Prepare,
    Promise,
    Reply,
    StaleBucket,
    StaleEpoch,
)
from cluster.register.mutations import (
    Mutation,
    Precondition,
    Refused,
    Unchanged,
    apply,
    check,
    removed_data,
)
from cluster.register.records import BOTTOM, Applied, BodyId, KeyState, Register

RING_KEPT = 64
MAX_TRIES = 12


@attrs.frozen(kw_only=True)
class Operation:
    """What a client asked for, fixed through all attempts. `mutation` None: confirm what is there (a read's write-back)."""

    row: RowKey
    bucket_epoch: int
    op_id: OpId
    op_hlc: int
    mutation: Mutation | None
    expect: tuple[Precondition, ...] = ()
    bodies: Mapping[BodyId, bytes] = attrs.field(factory=dict)
    rewrite: bool = False  # what is there, at a fresh ballot even where it is known to be chosen


@attrs.frozen
class Send:
    """Send this to every home drive and feed the answers in."""

    message: Prepare | Accept


@attrs.frozen
class Retry:
    """No quorum at this ballot. Merge `low` into the clock, back off, and begin again."""

    low: Ballot


@attrs.frozen(kw_only=True)
class Committed:
    """The operation is part of a chosen state (or nothing had to be written). `base` is what it was applied to.

    `stamp` is the ballot at which the operation was applied: later operations may be part of `state` as well.
    """

    ballot: Ballot
    state: KeyState
    base: KeyState
    wrote: bool
    stamp: Ballot | None = None  # None: nothing was written


@attrs.frozen
class Declined:
    """A definite no: nothing of the operation took effect, nor will."""

    refusal: Refused


@attrs.frozen
class Unknown:
    """An ACCEPT went out and it can no longer be found out what became of it."""


@attrs.frozen
class Behind:
    """A drive goes by a newer layout: fetch that, and begin again under it."""

    epoch: int


@attrs.frozen
class Stale:
    """The bucket is fenced at a higher epoch: look it up again. `sent`: an ACCEPT had gone out before."""

    sent: bool


@attrs.frozen
class TooOld:
    """The age rule refused the data: nothing took effect."""


Outcome: TypeAlias = Committed | Declined | Unknown | Stale | TooOld
Step: TypeAlias = Send | Retry | Behind | Committed | Declined | Unknown | Stale | TooOld


class Proposer:
    """One operation. `first_accept` is the ballot of its first ACCEPT, None while none was sent."""

    def __init__(
        self, operation: Operation, *, op_ttl_ms: int = OP_TTL_MS, ring_kept: int = RING_KEPT
    ) -> None:
        self.operation = operation
        self.tries = 0
        self.first_accept: Ballot | None = None
        self._op_ttl_ms, self._ring_kept = op_ttl_ms, ring_kept
        self._ballot, self._epoch = BALLOT_ZERO, 0
        self._electorate: Electorate  # since `begin`
        self._accepting: Committed | Declined | None = None  # what to say when the ACCEPT is chosen
        self._promises: dict[int, Register] = {}
        self._promised = self._accepted = self._refused = 0  # bitmaps of drives
        self._expired = False
        self._low = BALLOT_ZERO

    @property
    def ballot(self) -> Ballot:
        """The ballot of the attempt that runs."""
        return self._ballot

    def also_accepted(self, index: int) -> None:
        """A straggler accepted after the decision."""
        self._accepted |= 1 << index

    @property
    def promised(self) -> int:
        """Bitmap of the drives that promised the last ballot."""
        return self._promised

    @property
    def accepted(self) -> int:
        """Bitmap of the drives that accepted the last proposal."""
        return self._accepted

    def begin(self, ballot: Ballot, epoch: int, electorate: Electorate) -> Send:
        """A new attempt, at a ballot above all that was seen, under a layout and its electorate for the register."""
        assert ballot > self._ballot
        self.tries += 1
        self._ballot, self._low = ballot, ballot
        # A promise of one epoch allows no ACCEPT of another: each attempt has one layout from end to end.
        self._epoch, self._electorate = epoch, electorate
        self._accepting = None
        self._promises.clear()
        self._promised = self._accepted = self._refused = 0
        op = self.operation
        return Send(Prepare(row=op.row, ballot=ballot, epoch=epoch, bucket_epoch=op.bucket_epoch))

    def on_reply(self, index: int, reply: Reply, *, to: Ballot) -> Step | None:
        """Take drive `index`'s answer to the message of ballot `to`; None: go on waiting."""
        if to != self._ballot:
            return None
        if isinstance(reply, StaleBucket):
            return Stale(sent=self.first_accept is not None)
        if self._accepting is None:
            return self._on_promise(index, reply)
        return self._on_accepted(index, reply)

    def on_timeout(self) -> Step:
        """The drives that are needed have not answered in time."""
        return self._retry()

    def _on_promise(self, index: int, reply: Reply) -> Step | None:
        if isinstance(reply, Promise):
            self._promises[index] = reply.register
            self._promised |= 1 << index
            return self._decide() if self._electorate.read.is_met(self._promised) else None
        if isinstance(reply, StaleEpoch) and reply.epoch > self._epoch:
            return Behind(reply.epoch)
        if self._note_refusal(index, reply) and self._electorate.read.is_lost(self._refused):
            return self._retry()
        return None

    def _on_accepted(self, index: int, reply: Reply) -> Step | None:
        assert self._accepting is not None
        if isinstance(reply, Accepted):
            self._accepted |= 1 << index
            return self._accepting if self._electorate.have_accepted(self._accepted) else None
        if isinstance(reply, Promise | NeedBodies):
            return (
                None  # a late promise; or the driver sends the bodies and the drive answers again
            )
        if isinstance(reply, Expired):
            self._expired = True
        if self._note_refusal(index, reply) and self._electorate.cannot_accept(self._refused):
            return self._retry()
        return None

    def _note_refusal(self, index: int, reply: Reply) -> bool:
        if self._accepted >> index & 1:
            return False  # a duplicate of an earlier message was refused
        if isinstance(reply, Nack):
            self._low = max(self._low, reply.low)
        self._refused |= 1 << index
        return True

    def _retry(self) -> Step:
        if self._expired:
            # Some drive has judged the introduction too old; every later ballot is older still.
            return Unknown() if self._accepted or self.tries > 1 else TooOld()
        return Retry(self._low)

    def _decide(self) -> Step:
        base, known = newest(self._promises, self._electorate)
        op, state = self.operation, base.state
        if op.mutation is None:
            done = Committed(ballot=base.ballot, state=state, base=state, wrote=False)
            return done if known and not op.rewrite else self._propose(state, base, done)
        applied = next((entry for entry in state.ring if entry.op_id == op.op_id), None)
        if applied is not None:
            done = Committed(
                ballot=base.ballot, state=state, base=state, wrote=True, stamp=applied.ballot
            )
            return done if known else self._propose(state, base, done)
        if self.first_accept is not None and self._may_have_been_forgotten(state):
            return Unknown()
        clean = known and self.first_accept is None
        refusal = check(op.expect, state)
        if refusal is not None:
            declined = Declined(refusal)
            # An earlier attempt of ours, or of somebody else, may still surface: bury it before saying no.
            return declined if clean else self._propose(state, base, declined)
        changed = apply(op.mutation, state, self._ballot)
        if isinstance(changed, Unchanged):
            done = Committed(ballot=base.ballot, state=state, base=state, wrote=False)
            return done if clean else self._propose(state, base, done)
        new = replace(changed, ring=self._ring(state, changed))
        done = Committed(ballot=self._ballot, state=new, base=state, wrote=True, stamp=self._ballot)
        return self._propose(new, base, done, op.bodies)

    def _may_have_been_forgotten(self, state: KeyState) -> bool:
        """Whether the ring of `state` may have dropped our operation after it was applied."""
        assert self.first_accept is not None
        wrapped = len(state.ring) >= self._ring_kept and state.ring[0].ballot > self.first_accept
        # The ring drops entries by their ballots, and promises may have been asked for before the operation began.
        since = min(self.operation.op_hlc, self.first_accept.hlc)
        return wrapped or self._ballot.hlc - since > self._op_ttl_ms

    def _ring(self, old: KeyState, new: KeyState) -> tuple[Applied, ...]:
        horizon = self._ballot.hlc - self._op_ttl_ms
        kept = tuple(applied for applied in old.ring if applied.ballot.hlc >= horizon)
        mine = Applied(
            op_id=self.operation.op_id, ballot=self._ballot, removed=removed_data(old, new)
        )
        return (*kept, mine)[-self._ring_kept :]

    def _propose(
        self,
        state: KeyState,
        base: Register,
        then: Committed | Declined,
        bodies: Mapping[BodyId, bytes] | None = None,
    ) -> Send:
        # After an identity write the state stands at our ballot.
        if isinstance(then, Committed):
            then = attrs.evolve(then, ballot=self._ballot)
        self._accepting = then
        self._refused = 0
        if self.first_accept is None:
            self.first_accept = self._ballot
        op = self.operation
        return Send(
            Accept(
                row=op.row,
                ballot=self._ballot,
                epoch=self._epoch,
                bucket_epoch=op.bucket_epoch,
                base=base.ballot,
                state=state,
                bodies=bodies if bodies is not None else {},
            )
        )


def newest(registers: Mapping[int, Register], electorate: Electorate) -> tuple[Register, bool]:
    """The register of the highest ballot among a read quorum's, by drive, and whether it is known to be chosen."""
    best = max(registers.values(), key=lambda register: register.ballot, default=BOTTOM)
    if best.ballot == BALLOT_ZERO:
        return BOTTOM, True  # no accept quorum can have avoided all of them
    same = 0
    for index, register in registers.items():
        if register.ballot == best.ballot:
            if register.chosen:
                return best, True
            same |= 1 << index
    return best, electorate.have_accepted(same)
