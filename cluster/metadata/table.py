"""Linearizable registers over the drives of a set: read, commit, confirm.

A read asks Qr drives and serves the newest state when it is known to be chosen; otherwise it writes it back first. A
commit prepares, evaluates its precondition and mutation on the newest state, and is acknowledged when a majority holds the
new state durably. From the first ACCEPT on it cannot be cancelled: a client that hangs up must not leave it half done.
"""

from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from functools import partial

import attrs
import trio
import xxhash

from cluster.clock import BALLOT_ZERO, Ballot, HybridClock
from cluster.errors import CorruptError, QuorumError, StaleBucketError
from cluster.ids import OpId, RowKey
from cluster.layout import SYSTEM, Layout
from cluster.metadata.attempt import EarlyPrepare
from cluster.metadata.commit import Committer, Revise, TableSettings, dated
from cluster.metadata.inquiry import BodySearch, Inquiry
from cluster.metadata.members import DrivesOf, Members, MembersOf, members_under
from cluster.metadata.rounds import Watch
from cluster.metadata.turns import Turns
from cluster.register.keys import system_row
from cluster.register.messages import Prepare, Query, ReadBody, Request
from cluster.register.mutations import Mutation, Precondition, PutVersion
from cluster.register.proposer import Committed, Operation, newest
from cluster.register.records import BodyId, BodyRef, KeyState, Register, Version
from cluster.runtime import Runtime

_LOOKS = 4  # at layouts that are newer and newer, for one question


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


@attrs.frozen
class _Answer:
    inquiry: Inquiry
    best: Register
    known: bool  # to be chosen


async def _stay(_: int) -> None:
    """Without a way to fetch layouts: whoever is behind stays so."""
    await trio.lowlevel.checkpoint()


class Table:
    """Registers by quorum. `run` must be running for deadlines to be kept."""

    def __init__(
        self,
        *,
        drives_of: DrivesOf,
        layout: Callable[[], Layout],
        clock: HybridClock,
        runtime: Runtime,
        settings: TableSettings | None = None,
        catch_up: Callable[[int], Awaitable[None]] = _stay,
    ) -> None:
        """`catch_up` returns when the layout of that epoch has been fetched, or could not be for a while."""
        self.members_of: MembersOf = members_under(layout, drives_of)
        self.clock = clock
        self._runtime = runtime
        self._settings = settings if settings is not None else TableSettings()
        self._catch_up = catch_up
        self.watch = Watch()
        self._turns = Turns()
        self._committer = Committer(
            watch=self.watch, clock=clock, runtime=runtime, settings=self._settings, catch_up=catch_up
        )  # fmt: skip

    def over(self, members: Mapping[int, Members]) -> "Table":
        """The same table, asked through these members alone; `run` of this one keeps its deadlines."""
        other = copy(self)
        other.members_of = members.__getitem__
        other._catch_up = _stay  # noqa: SLF001 - our own class
        return other

    async def run(self) -> None:
        """Keep the deadlines of all operations."""
        await self.watch.run()

    # -- reading

    async def read(self, ref: RegisterRef, *, bodies: bool = False) -> Reading:
        """The state of a register, linearizable. One round trip where it is known to be chosen.

        Raises QuorumError, StaleBucketError when the bucket is fenced at a higher epoch.
        """
        found = await self._query(ref, bodies=bodies, everybody=False)
        if not found.known:
            await trio.sleep(self._settings.reread_seconds)
            found = await self._query(ref, bodies=bodies, everybody=True)
        best = found.best if found.known else await self.confirm(ref)
        for value in found.inquiry.values.values():
            if value.register.ballot == best.ballot:
                return Reading(best.ballot, best.state, value.bodies)
        return Reading(best.ballot, best.state, {})

    async def _query(self, ref: RegisterRef, *, bodies: bool, everybody: bool) -> "_Answer":
        def ask(epoch: int) -> Query:
            return Query(row=ref.row, epoch=epoch, bucket_epoch=ref.bucket_epoch, bodies=bodies)

        inquiry = await self.inquire(ref.set_id, ask, everybody=everybody)
        if len(inquiry.values) < inquiry.needed:
            raise QuorumError(inquiry.needed, len(inquiry.values))
        registers = {index: value.register for index, value in inquiry.values.items()}
        best, known = newest(registers, inquiry.members.electorate)
        return _Answer(inquiry, best, known)

    async def inquire(
        self, set_id: int, ask: Callable[[int], Request], *, everybody: bool = False
    ) -> Inquiry:
        """Ask a read quorum of a set (or everybody) what `ask` makes of the layout's epoch; there may be too few answers.

        Raises StaleBucketError.
        """
        looks = 0
        while True:
            members, looks = self.members_of(set_id), looks + 1
            inquiry = Inquiry(members, ask(members.epoch), self.watch)
            await inquiry.run(
                everybody=everybody,
                hedge_seconds=self._settings.hedge_seconds,
                round_seconds=self._settings.round_seconds,
            )
            if inquiry.stale:
                raise StaleBucketError
            if not inquiry.newer_epoch or looks == _LOOKS:
                return inquiry
            await self._catch_up(inquiry.newer_epoch)

    async def read_body(self, ref: RegisterRef, body: BodyRef) -> bytes | None:
        """A body row from any drive that has it; None: no drive has (any more), so read the register again.

        Raises CorruptError where a copy exists and none matches its digest.
        """
        members = self.members_of(ref.set_id)
        search = BodySearch(
            members,
            ReadBody(row=ref.row, body=body.id, epoch=members.epoch),
            lambda data: xxhash.xxh3_128_digest(data) == body.digest,
            self.watch,
        )
        await search.run(
            hedge_seconds=self._settings.hedge_seconds, round_seconds=self._settings.round_seconds
        )
        if search.data is None and search.is_corrupt:
            raise CorruptError("no copy of the record's body matches its digest")
        return search.data

    # -- writing

    async def commit(
        self,
        ref: RegisterRef,
        mutation: Mutation,
        *,
        expect: tuple[Precondition, ...] = (),
        bodies: Mapping[BodyId, bytes] | None = None,
        early: EarlyPrepare | None = None,
        revise: Revise | None = None,
    ) -> Committed:
        """Apply a mutation to the newest state, if the preconditions hold on it.

        `revise` is asked before every attempt what the layout has made of the mutation. Raises PreconditionError,
        NotFoundError("upload") where UploadOpen does not hold, StaleBucketError, QuorumError (nothing took effect),
        OutcomeUnknownError.
        """
        row, turns = ref.row, self._turns
        if turns.is_taken(row) and early is not None:
            early.close()  # whoever goes before us outranks what was promised to us
            early = None
        # Write-backs of reads take no turn: one may be needed to fetch the layout for a write that has it.
        is_ours = await turns.take(row, self._settings.round_seconds)
        try:
            operation = self._operation(ref, mutation, expect, bodies)
            return await self._carry_out(ref, operation, early, revise)
        finally:
            if is_ours:
                turns.give_back(row)

    def prepare(self, ref: RegisterRef) -> EarlyPrepare:
        """Ask for promises before the mutation is known: for one `commit` to come, which then owns them."""
        members = self.members_of(ref.set_id)
        message = Prepare(
            row=ref.row,
            ballot=self.clock.tick(),
            epoch=members.epoch,
            bucket_epoch=ref.bucket_epoch,
        )
        return EarlyPrepare(members, self.watch, message)

    async def confirm(self, ref: RegisterRef, *, rewrite: bool = False) -> Register:
        """The state of a register after writing it back at a fresh ballot where it was not known to be chosen.

        `rewrite`: also where it was, so that all that is older is fenced, and a corrupt copy replaced.
        """
        operation = attrs.evolve(self._operation(ref, None), rewrite=rewrite)
        done = await self._carry_out(ref, operation)
        return Register(ballot=done.ballot, state=done.state, chosen=True)

    async def _carry_out(
        self,
        ref: RegisterRef,
        operation: Operation,
        early: EarlyPrepare | None = None,
        revise: Revise | None = None,
    ) -> Committed:
        members_now, read_bodies = (
            partial(self.members_of, ref.set_id),
            partial(self._all_bodies, ref),
        )
        return await self._committer.run(members_now, operation, read_bodies, early, revise)

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
            bucket_epoch=ref.bucket_epoch,
            op_id=OpId(self._runtime.rng.randbytes(16)),
            op_hlc=op_hlc,
            mutation=dated(mutation, op_hlc),
            expect=expect,
            bodies=bodies if bodies is not None else {},
        )

    # -- documents of the cluster itself

    def system_ref(self, name: bytes) -> RegisterRef:
        """The register of a system document."""
        return RegisterRef(system_row(name), SYSTEM)

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
