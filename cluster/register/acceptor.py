"""The acceptor: what one drive may promise, accept and show. Pure; the drive owns the rows and makes them durable.

The rules are those of CASPaxos (Rystsov, 2018) with three additions that real drives need: a durable ceiling over
promises that were made but not stored, so that a restart cannot forget them; a floor that fences what was collected; an age
rule that makes it decidable when data can no longer be introduced.

    low(row) = max(promised, accepted, gc_floor, boot_floor)
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextlib import suppress

import attrs
import msgspec

from cluster.clock import BALLOT_ZERO, Ballot, floor_at
from cluster.ids import BucketId, DataId, RowKey, data_id_hlc
from cluster.register.anti_entropy import Changed, Install, RowAt
from cluster.register.keys import bucket_of
from cluster.register.messages import (
    Accept,
    Accepted,
    Done,
    Expired,
    Fence,
    Learn,
    Nack,
    NeedBodies,
    NotVoting,
    Prepare,
    Promise,
    Reply,
    StaleBucket,
    StaleEpoch,
)
from cluster.register.mutations import record_data
from cluster.register.records import BodyId, KeyState, Part, Register, decode_parts

OP_TTL_MS = (
    5 * 60 * 1000
)  # from the start of a commit to the last ballot that may introduce its version
MAX_PUT_MS = 24 * 60 * 60 * 1000  # from drawing a data id to the start of the commit that names it
CEILING_LEASE_MS = (
    1000  # promises up to this far ahead share one durable ceiling: at most one renewal a second
)
PROMISES_KEPT = 65_536


@attrs.frozen(kw_only=True)
class Limits:
    """The age rule's bounds, in ms of the hybrid clock; the simulator makes them tiny."""

    op_ttl_ms: int = OP_TTL_MS
    max_put_ms: int = MAX_PUT_MS
    ceiling_lease_ms: int = CEILING_LEASE_MS
    promises_kept: int = PROMISES_KEPT


@attrs.define(kw_only=True)
class Control:
    """The acceptor's durable values: read at open, made durable by the drive when a reply says so."""

    epoch: int = 1
    layout: bytes = b""  # of that epoch, as it is stored; empty: it was never told one
    ceiling_ms: int = 0  # every promise ever given has a ballot of at most this hybrid time
    gc_floor: Ballot = BALLOT_ZERO
    fences: dict[BucketId, int] = attrs.field(factory=dict)  # bucket -> lowest epoch that is served
    dead: set[BucketId] = attrs.field(factory=set)


@attrs.frozen(kw_only=True)
class Promised:
    """Reply `reply`, after `ceiling_ms` is durable where one is given."""

    reply: Promise
    ceiling_ms: int | None


@attrs.frozen(kw_only=True)
class Write:
    """Make this durable in one transaction, then reply Accepted (Done for an Install)."""

    message: Accept | Install
    register: Register
    missed: (
        bool  # the replaced state is not the one that this was made of: some in between were missed
    )
    ceiling_ms: int | None
    drop_bodies: frozenset[BodyId]  # body rows of the replaced state that the new one does not use
    debt: tuple[Part, ...]  # heal debt rows, for those whose shard is not on this drive
    superseded: tuple[
        DataId, ...
    ]  # of the replaced state, where that was known chosen: collectable when this one is


@attrs.frozen(kw_only=True)
class Chosen:
    """Set the row's chosen flag (no reply waits for it); then what `collectable` says may go after the grace."""

    register: Register


CORRUPT_KEPT = 1024  # corrupt rows whose ceiling is remembered; of others the present one counts
CORRUPT = object()  # what a drive passes as `held` for a row that failed its checksum


class Acceptor:
    """One drive's side of every register it holds. All methods are synchronous decisions.

    `held` is what the row says, durable or about to be: the drive must not let a reply out before everything that
    the reply shows is durable.
    """

    def __init__(
        self, control: Control, *, set_id: int, position: int, limits: Limits | None = None
    ) -> None:
        self.control = control
        self.set_id, self.position = set_id, position
        self.limits = limits if limits is not None else Limits()
        # Promises die with the process. Everything up to the ceiling may have been promised before this start.
        self.boot_floor = floor_at(control.ceiling_ms) if control.ceiling_ms else BALLOT_ZERO
        self._promises: OrderedDict[RowKey, Ballot] = OrderedDict()
        self._promise_floor = BALLOT_ZERO  # forgotten promises of this process are all below
        self._corrupt: OrderedDict[RowKey, Ballot] = OrderedDict()  # what was lost is below
        self.voting = True  # False: it rebuilds itself, takes accepts, and counts for nobody

    def gate_epoch(self, epoch: int) -> Reply | None:
        """The refusal that every request meets whose layout epoch is not served; None: go on."""
        return None if epoch == self.control.epoch else StaleEpoch(self.control.epoch)

    def gate_vote(self, epoch: int) -> Reply | None:
        """The refusal of what only a drive with a vote may say."""
        if epoch == self.control.epoch and not self.voting:
            return NotVoting("the drive is rebuilding")
        return self.gate_epoch(epoch)

    def gate(self, row: RowKey, epoch: int, bucket_epoch: int) -> Reply | None:
        """The refusal of a data request: the layout epoch, the vote, the bucket's epoch; None: go on."""
        return self.gate_vote(epoch) or self._gate_bucket(row, bucket_epoch)

    def _gate_bucket(self, row: RowKey, bucket_epoch: int) -> Reply | None:
        """A bucket that is gone takes nothing at any epoch: its rows are swept once."""
        fences = self.control.fences
        if fences:
            bucket = bucket_of(row)
            fence = fences.get(bucket)
            if fence is not None and (bucket_epoch < fence or bucket in self.control.dead):
                return StaleBucket(fence)
        return None

    def low(self, row: RowKey, held: Register) -> Ballot:
        """Only a ballot above this can be promised."""
        promised = self._promises.get(row, self._promise_floor)
        return max(promised, held.ballot, self.control.gc_floor, self.boot_floor)

    def prepare(self, message: Prepare, held: Register | object) -> Promised | Reply:
        """Decide a PREPARE."""
        refusal = self.gate(message.row, message.epoch, message.bucket_epoch)
        if refusal is not None:
            return refusal
        if not isinstance(held, Register):
            return NotVoting("the row is corrupt")
        low = self.low(message.row, held)
        if message.ballot <= low:
            return Nack(low)
        ceiling = self._raise_ceiling(message.ballot)
        self._promise(message.row, message.ballot)
        return Promised(reply=Promise(held), ceiling_ms=ceiling)

    def _raise_ceiling(self, ballot: Ballot) -> int | None:
        """Everything promised or accepted stays below the ceiling: of a row that is lost, nothing else is known."""
        if ballot.hlc <= self.control.ceiling_ms:
            return None
        self.control.ceiling_ms = ballot.hlc + self.limits.ceiling_lease_ms
        return self.control.ceiling_ms

    def _promise(self, row: RowKey, ballot: Ballot) -> None:
        promises = self._promises
        promises[row] = ballot
        promises.move_to_end(row)
        if len(promises) > self.limits.promises_kept:
            _, forgotten = promises.popitem(last=False)
            self._promise_floor = max(self._promise_floor, forgotten)

    def accept(
        self, message: Accept, held: Register | object, bodies_held: Collection[BodyId]
    ) -> Write | Reply:
        """Decide an ACCEPT; `bodies_held` are the row's body rows on this drive."""
        refusal = self.gate_epoch(message.epoch) or self._gate_bucket(
            message.row, message.bucket_epoch
        )
        if refusal is not None:
            return refusal
        ballot = message.ballot
        fenced = max(self.control.gc_floor, self.boot_floor)
        is_repair = not isinstance(held, Register)
        if not isinstance(held, Register):
            # A repair round: a full state above everything that the lost row can have held.
            if ballot <= max(fenced, self.note_corrupt(message.row)):
                return NotVoting("the row is corrupt")
            held = Register()
        promised = self._promises.get(message.row, self._promise_floor)
        if ballot < promised or ballot < held.ballot or ballot <= fenced:
            return Nack(self.low(message.row, held))
        if ballot == held.ballot:
            return Accepted(0)  # a duplicate: what it asks for is there, and `chosen` is left alone
        if self.is_expired(message.state, ballot):
            return Expired()
        needed = message.state.body_ids()
        if any(body not in message.bodies and body not in bodies_held for body in needed):
            return NeedBodies()
        self._promise(message.row, ballot)
        self._corrupt.pop(message.row, None)
        # What brought a part here that is older than this ballot, the drive may have missed as well.
        missed = is_repair or message.base != held.ballot
        parts = all_parts(message.state) if missed else introduced(message.state, ballot)
        return Write(
            message=message,
            register=Register(ballot=ballot, state=message.state, chosen=False),
            missed=missed,
            ceiling_ms=self._raise_ceiling(ballot),
            drop_bodies=frozenset(bodies_held) - needed,
            debt=self._owed((*parts, *_listed(message, bodies_held)), missed=missed),
            superseded=_superseded(held, message.state),
        )

    def note_corrupt(self, row: RowKey) -> Ballot:
        """A row fails its checksum: what it held is at most this, whatever is promised to other rows hereafter."""
        corrupt = self._corrupt
        bound = corrupt.setdefault(row, floor_at(self.control.ceiling_ms))
        if len(corrupt) > CORRUPT_KEPT:
            corrupt.popitem(last=False)
        return bound

    def install(
        self,
        message: Install,
        held: Register | object,
        bodies_held: Collection[BodyId],
        *,
        changed: bool,
    ) -> Write | Chosen | Reply:
        """Decide an INSTALL; `changed`: the row has changed since the message's version.

        Judging that by the row alone is not enough: a purged row looks like one that never was.
        """
        refusal = self.gate_epoch(message.epoch)
        if refusal is not None:
            return refusal
        bucket = bucket_of(message.row)
        if bucket in self.control.dead:
            return StaleBucket(self.control.fences[bucket])
        if not isinstance(held, Register):
            return NotVoting("the row is corrupt")
        if changed:
            return Changed()
        ballot, state = message.ballot, message.state
        if ballot < held.ballot or (self.voting and not message.chosen):
            return Nack(held.ballot)
        if ballot == held.ballot:
            if held.chosen or not message.chosen:
                return Done()
            return Chosen(register=Register(ballot=ballot, state=held.state, chosen=True))
        needed = state.body_ids()
        if any(body not in message.bodies and body not in bodies_held for body in needed):
            return NeedBodies()
        return Write(
            message=message,
            register=Register(ballot=ballot, state=state, chosen=message.chosen),
            missed=True,
            ceiling_ms=self._raise_ceiling(ballot),
            drop_bodies=frozenset(bodies_held) - needed,
            debt=self._owed((*all_parts(state), *_listed(message, bodies_held)), missed=True),
            superseded=_superseded(held, state),
        )

    def purge(self, named: RowAt, held: Register | object) -> bool:
        """Whether a tombstone goes, and the floor up: above every ballot that its ring would have to recognise.

        An operation that was applied below the tombstone may be proposed again until OP_TTL later, at any logical
        time of that millisecond: a floor at the tombstone's own ballot would let it in.
        """
        if (
            not isinstance(held, Register)
            or held.ballot != named.ballot
            or not held.chosen
            or not held.state.is_tombstone
        ):
            return False
        self.raise_floor(floor_at(named.ballot.hlc + self.limits.op_ttl_ms))
        return True

    def raise_floor(self, floor: Ballot) -> bool:
        """Fence every row up to a ballot; False: that is fenced already. Durable before the reply."""
        if floor <= self.control.gc_floor:
            return False
        self.control.gc_floor = floor
        return True

    def is_expired(self, state: KeyState, ballot: Ballot) -> bool:
        """The age rule: a pure function of the record and its ballot (I8)."""
        for version in state.versions:
            if version.stamp != ballot:
                continue
            if ballot.hlc - version.op_hlc > self.limits.op_ttl_ms:
                return True
            if version.upload_id is None and any(
                part.intro == ballot
                and version.op_hlc - data_id_hlc(part.data_id) > self.limits.max_put_ms
                for part in version.parts
            ):
                return True
        return False

    def _owed(self, parts: Iterable[Part], *, missed: bool) -> tuple[Part, ...]:
        """Parts of which this drive should hold a shard and may not.

        After what it missed the record's word does not count: it may be about the drive that had this place before.
        """
        return tuple(
            part
            for part in parts
            if part.set_id == self.set_id and (missed or not part.staged >> self.position & 1)
        )

    def learn(self, message: Learn, held: Register | object) -> Chosen | None:
        """Decide a LEARN: None where it is old news, or news of a ballot that this drive missed."""
        if isinstance(held, Register) and held.ballot == message.ballot and not held.chosen:
            return Chosen(register=Register(ballot=held.ballot, state=held.state, chosen=True))
        return None

    def misses(self, message: Learn, held: Register | object) -> bool:
        """Whether the LEARN tells of a chosen state above what this drive holds: the row is stale."""
        return not isinstance(held, Register) or held.ballot < message.ballot

    def fence(self, message: Fence) -> bool:
        """Raise a bucket's fence; False: it stood as high already. Durable before the reply."""
        standing = self.control.fences.get(message.bucket, 0)
        if message.dead:
            self.control.dead.add(message.bucket)
        if message.bucket_epoch <= standing and not message.dead:
            return False
        self.control.fences[message.bucket] = max(standing, message.bucket_epoch)
        return True


def _superseded(held: Register, state: KeyState) -> tuple[DataId, ...]:
    return tuple(record_data(held.state) - record_data(state)) if held.chosen else ()


def all_parts(state: KeyState) -> tuple[Part, ...]:
    """Parts that the records of a state name."""
    return tuple(part for version in state.versions for part in version.parts)


def introduced(state: KeyState, ballot: Ballot) -> tuple[Part, ...]:
    """Parts that entered the register with the version introduced at this ballot."""
    return tuple(
        part for version in state.versions if version.stamp == ballot for part in version.parts
    )


def collectable(chosen: Register, data_id: DataId, *, seen_chosen: bool, limits: Limits) -> bool:
    """Whether a shard of a direct PUT may be removed from a drive that holds this chosen state of its owner.

    `seen_chosen`: this drive knew a chosen state that referred to it. Otherwise the state must remember removing it,
    or be so young that the age rule refuses any later introduction.
    """
    assert chosen.chosen
    if data_id in record_data(chosen.state):
        return False
    if seen_chosen or any(data_id in applied.removed for applied in chosen.state.ring):
        return True
    return chosen.ballot.hlc > data_id_hlc(data_id) + limits.max_put_ms + limits.op_ttl_ms


def _listed(message: Accept | Install, bodies_held: Collection[BodyId]) -> tuple[Part, ...]:
    """Parts of a list that the message brings. Their own registers go with the upload, and what these owed with them."""
    parts: tuple[Part, ...] = ()
    for version in message.state.versions:
        body = version.body
        if body is not None and body.count and body.id not in bodies_held:
            with suppress(msgspec.DecodeError):  # no reader will believe it either
                parts += decode_parts(message.bodies[body.id])
    return parts
