"""Linearizable registers over the drives of a set: read, commit, confirm.

A read asks Qr drives and serves the newest state when it is known to be chosen; otherwise it writes it back first. A
commit prepares, evaluates its precondition and mutation on the newest state, and is acknowledged when a majority holds the
new state durably. From the first ACCEPT on it cannot be cancelled: a client that hangs up must not leave it half done.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy

import attrs
import trio
import xxhash
from msgspec.structs import replace

from cluster.clock import BALLOT_ZERO, Ballot, HybridClock
from cluster.drives.drive import VOTING, Drive
from cluster.errors import (
    ClusterError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    QuorumError,
    StaleBucketError,
    TooManyVersionsError,
    UnavailableError,
)
from cluster.ids import OpId, RowKey
from cluster.layout import Layout
from cluster.metadata.attempt import Attempt, EarlyPrepare
from cluster.metadata.inquiry import Inquiry, ask_one
from cluster.metadata.rounds import Watch
from cluster.quorum import Quorum
from cluster.register.keys import system_row
from cluster.register.messages import (
    Body,
    Prepare,
    Query,
    ReadBody,
    Request,
    StaleBucket,
    Value,
)
from cluster.register.mutations import CompleteUpload, Mutation, Precondition, PutVersion, Refused
from cluster.register.proposer import (
    MAX_TRIES,
    Committed,
    Declined,
    Operation,
    Outcome,
    Proposer,
    Retry,
    Stale,
    TooOld,
    Unknown,
    newest,
)
from cluster.register.records import BodyId, BodyRef, KeyState, Register, Version
from cluster.runtime import Runtime


@attrs.frozen
class RegisterRef:
    """Where a register is: its row, its home set, and the bucket epoch under which it is addressed."""

    row: RowKey
    set_id: int
    bucket_epoch: int = 0


@attrs.frozen
class Reading:
    """A state known to be chosen, and the body rows that came along."""

    ballot: Ballot
    state: KeyState
    bodies: Mapping[BodyId, bytes]


@attrs.frozen(kw_only=True)
class TableSettings:
    """Seconds; the simulator turns them nasty."""

    round_seconds: float = (
        5.0  # drives that have not answered by then count as silent for this attempt
    )
    hedge_seconds: float = 0.05
    reread_seconds: float = 0.02
    backoff_seconds: float = 0.005
    straggler_seconds: float = 1.0
    op_ttl_ms: int = 5 * 60 * 1000
    ring_kept: int = 64


class Table:
    """Registers by quorum. `run` must be running for deadlines to be kept."""

    def __init__(
        self,
        *,
        drives_of: Callable[[int], Sequence[Drive]],
        layout: Callable[[], Layout],
        clock: HybridClock,
        runtime: Runtime,
        settings: TableSettings | None = None,
    ) -> None:
        self._drives_of = drives_of
        self._layout = layout
        self.clock = clock
        self._runtime = runtime
        self._settings = settings if settings is not None else TableSettings()
        self.watch = Watch()

    def over(self, drives_of: Callable[[int], Sequence[Drive]]) -> "Table":
        """The same table, asked through other drives of the same sets; `run` of this one keeps its deadlines."""
        other = copy(self)
        other._drives_of = drives_of  # noqa: SLF001 - our own class
        return other

    @property
    def epoch(self) -> int:
        """Of the layout that requests are addressed under."""
        return self._layout().epoch

    async def run(self) -> None:
        """Keep the deadlines of all operations."""
        await self.watch.run()

    # -- reading

    async def read(self, ref: RegisterRef, *, bodies: bool = False) -> Reading:
        """The state of a register, linearizable. One round trip where it is known to be chosen.

        Raises QuorumError, StaleBucketError when the bucket is fenced at a higher epoch.
        """
        answers = await self._query(ref, bodies=bodies, everybody=False)
        best, known = newest([value.register for value in answers], self._quorum(ref))
        if not known:
            await trio.sleep(self._settings.reread_seconds)
            answers = await self._query(ref, bodies=bodies, everybody=True)
            best, known = newest([value.register for value in answers], self._quorum(ref))
        if not known:
            confirmed = await self._run(ref, self._operation(ref, None))
            best = Register(ballot=confirmed.ballot, state=confirmed.state, chosen=True)
        for value in answers:
            if value.register.ballot == best.ballot:
                return Reading(best.ballot, best.state, value.bodies)
        return Reading(best.ballot, best.state, {})

    async def _query(self, ref: RegisterRef, *, bodies: bool, everybody: bool) -> list[Value]:
        query = Query(row=ref.row, epoch=self.epoch, bucket_epoch=ref.bucket_epoch, bodies=bodies)
        inquiry = await self.inquire(ref.set_id, query, everybody=everybody)
        if inquiry.stale:
            raise StaleBucketError
        if len(inquiry.values) < inquiry.needed:
            raise QuorumError(inquiry.needed, len(inquiry.values))
        return inquiry.values

    async def inquire(self, set_id: int, request: Request, *, everybody: bool = False) -> Inquiry:
        """Ask a read quorum of a set (or everybody); the caller looks at what came of it."""
        drives = self._drives_of(set_id)
        inquiry = Inquiry(drives, request, Quorum(len(drives)).read, self.watch)
        await inquiry.run(
            everybody=everybody,
            hedge_seconds=self._settings.hedge_seconds,
            round_seconds=self._settings.round_seconds,
        )
        return inquiry

    async def read_body(self, ref: RegisterRef, body: BodyRef) -> bytes | None:
        """A body row from any drive that has it; None: no drive has (any more), so read the register again.

        Raises CorruptError where a copy exists and none matches its digest.
        """
        corrupt = False
        for drive in self._drives_of(ref.set_id):
            reply = await ask_one(
                drive,
                ReadBody(row=ref.row, body=body.id, epoch=self.epoch),
                self.watch,
                self._settings.round_seconds,
            )
            if isinstance(reply, Body) and reply.data is not None:
                if xxhash.xxh3_128_digest(reply.data) == body.digest:
                    return reply.data
                corrupt = True
        if corrupt:
            raise CorruptError("no copy of the record's body matches its digest")
        return None

    # -- writing

    async def commit(
        self,
        ref: RegisterRef,
        mutation: Mutation,
        *,
        expect: tuple[Precondition, ...] = (),
        bodies: Mapping[BodyId, bytes] | None = None,
        early: EarlyPrepare | None = None,
    ) -> Committed:
        """Apply a mutation to the newest state, if the preconditions hold on it.

        Raises PreconditionError, NotFoundError("upload") where UploadOpen does not hold, StaleBucketError,
        QuorumError (nothing took effect), OutcomeUnknownError.
        """
        return await self._run(ref, self._operation(ref, mutation, expect, bodies), early)

    def prepare(self, ref: RegisterRef) -> EarlyPrepare:
        """Ask for promises before the mutation is known: for one `commit` to come, which then owns them."""
        message = Prepare(
            row=ref.row,
            ballot=self.clock.tick(),
            epoch=self.epoch,
            bucket_epoch=ref.bucket_epoch,
        )
        return EarlyPrepare(self._drives_of(ref.set_id), self.watch, message)

    async def confirm(self, ref: RegisterRef) -> Register:
        """The state of a register after writing it back at a fresh ballot where it was not known to be chosen."""
        done = await self._run(ref, self._operation(ref, None))
        return Register(ballot=done.ballot, state=done.state, chosen=True)

    def _operation(
        self,
        ref: RegisterRef,
        mutation: Mutation | None,
        expect: tuple[Precondition, ...] = (),
        bodies: Mapping[BodyId, bytes] | None = None,
    ) -> Operation:
        op_hlc = self.clock.tick().hlc
        return Operation(
            row=ref.row,
            epoch=self.epoch,
            bucket_epoch=ref.bucket_epoch,
            op_id=OpId(self._runtime.rng.randbytes(16)),
            op_hlc=op_hlc,
            mutation=_dated(mutation, op_hlc),
            expect=expect,
            bodies=bodies if bodies is not None else {},
        )

    async def _run(
        self, ref: RegisterRef, operation: Operation, early: EarlyPrepare | None = None
    ) -> Committed:
        drives = self._drives_of(ref.set_id)
        settings = self._settings
        # An ACCEPT that is known to reach too few could only leave its outcome open.
        voters = sum(drive.state in VOTING for drive in drives)
        if voters < Quorum(len(drives)).accept:
            if early is not None:
                early.close()
            raise QuorumError(Quorum(len(drives)).accept, voters)
        proposer = Proposer(
            operation,
            self._quorum(ref),
            op_ttl_ms=settings.op_ttl_ms,
            ring_kept=settings.ring_kept,
        )

        async def fetch_bodies(state: KeyState) -> Mapping[BodyId, bytes] | None:
            return await self._all_bodies(ref, state, operation.bodies)

        while True:
            attempt = Attempt(
                proposer,
                drives if early is None else early.drives,
                self.watch,
                row=ref.row,
                fetch_bodies=fetch_bodies,
                early=early,
            )
            ballot = self.clock.tick() if early is None else early.message.ballot
            early = None  # another try is another ballot
            step = await attempt.run(
                ballot,
                round_seconds=settings.round_seconds,
                straggler_seconds=settings.straggler_seconds,
            )
            if not isinstance(step, Retry):
                return _settle(step)
            self.clock.see(step.low)
            if proposer.tries >= MAX_TRIES:
                if proposer.first_accept is not None:
                    raise OutcomeUnknownError("no quorum accepted the write in time")
                voters = sum(drive.state in VOTING for drive in drives)
                raise QuorumError(self._quorum(ref).accept, voters)
            await self._back_off(proposer)

    async def _all_bodies(
        self, ref: RegisterRef, state: KeyState, own: Mapping[BodyId, bytes]
    ) -> Mapping[BodyId, bytes] | None:
        """Every body row of a state, for a drive that missed the ACCEPT that brought it."""
        bodies: dict[BodyId, bytes] = {}
        for version in state.versions:
            if version.body is not None:
                data = own.get(version.body.id)
                if data is None:
                    with trio.CancelScope(shield=True):  # bounded by the deadline of each round
                        data = await self.read_body(ref, version.body)
                if data is None:
                    return None
                bodies[version.body.id] = data
        return bodies

    async def _back_off(self, proposer: Proposer) -> None:
        seconds = self._settings.backoff_seconds * proposer.tries * (1 + self._runtime.rng.random())
        with trio.CancelScope(shield=proposer.first_accept is not None):
            await trio.sleep(seconds)

    def _quorum(self, ref: RegisterRef) -> Quorum:
        return Quorum(len(self._drives_of(ref.set_id)))

    # -- documents of the cluster itself

    def system_ref(self, name: bytes) -> RegisterRef:
        """The register of a system document."""
        return RegisterRef(system_row(name), self._layout().system_set)

    async def read_document(self, name: bytes) -> tuple[bytes, Version] | None:
        """A system document and the version that holds it; None: there is none."""
        ref = self.system_ref(name)
        while True:
            reading = await self.read(ref, bodies=True)
            live = reading.state.live
            if live is None:
                return None
            assert live.body is not None
            data = reading.bodies.get(live.body.id)
            if data is None:
                data = await self.read_body(ref, live.body)
            if data is not None:
                return data, live

    async def write_document(
        self, name: bytes, data: bytes, *, expect: tuple[Precondition, ...] = ()
    ) -> Committed:
        """Replace a system document. Raises like `commit`."""
        body = BodyRef(
            id=BodyId(self._runtime.rng.randbytes(16)),
            size=len(data),
            digest=xxhash.xxh3_128_digest(data),
        )
        version = Version(
            version_id=None,
            delete_marker=False,
            stamp=BALLOT_ZERO,
            op_hlc=0,
            size=len(data),
            validator=body.digest.hex(),
            attributes=b"",
            mtime_ms=self._runtime.wall_ms(),
            body=body,
        )
        return await self.commit(
            self.system_ref(name),
            PutVersion(version=version),
            expect=expect,
            bodies={body.id: data},
        )


def _dated(mutation: Mutation | None, op_hlc: int) -> Mutation | None:
    """The mutation with the start of its commit in the version that it introduces: the age rule looks at it."""
    if isinstance(mutation, PutVersion | CompleteUpload):
        return replace(mutation, version=replace(mutation.version, op_hlc=op_hlc))
    return mutation


def refusal(refused: Refused) -> ClusterError:
    """The error for a precondition that does not hold."""
    if refused.reason == "no-upload":
        return NotFoundError("upload")
    if refused.reason == "no-room":
        return TooManyVersionsError(len(refused.base.versions))
    return PreconditionError(
        f"the precondition does not hold: {refused.reason}", absent=refused.reason == "absent"
    )


def _settle(outcome: Outcome) -> Committed:
    match outcome:
        case Committed():
            return outcome
        case Declined(refusal=refused):
            raise refusal(refused)
        case Unknown():
            raise OutcomeUnknownError("the write may have taken effect")
        case Stale(reply=StaleBucket(), sent=False):
            raise StaleBucketError
        case Stale(sent=True):
            raise OutcomeUnknownError(
                "the layout or the bucket changed while the write was under way"
            )
        case Stale():
            raise UnavailableError("the layout has changed")
        case TooOld():
            raise UnavailableError("the upload took too long to be committed")
