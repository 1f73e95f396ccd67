"""One operation on one register, attempt after attempt, until its outcome is known."""

from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio
from msgspec.structs import replace

from cluster.clock import HybridClock
from cluster.errors import (
    ClusterError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    QuorumError,
    StaleBucketError,
    TooManyVersionsError,
    UnavailableError,
)
from cluster.metadata.attempt import Attempt, EarlyPrepare
from cluster.metadata.members import Members
from cluster.metadata.rounds import Watch
from cluster.register.mutations import CompleteUpload, Mutation, PutVersion, Refused
from cluster.register.proposer import (
    MAX_TRIES,
    Behind,
    Committed,
    Declined,
    Operation,
    Outcome,
    Proposer,
    Retry,
    Stale,
    TooOld,
    Unknown,
)
from cluster.register.records import BodyId, KeyState
from cluster.runtime import Runtime

ReadBodies = Callable[[KeyState, Mapping[BodyId, bytes]], Awaitable[Mapping[BodyId, bytes] | None]]
Revise = Callable[[], Mutation | None]  # None: what is proposed stands


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


@attrs.frozen(kw_only=True)
class Committer:
    """What all operations of a table share."""

    watch: Watch
    clock: HybridClock
    runtime: Runtime
    settings: TableSettings
    catch_up: Callable[[int], Awaitable[None]]

    async def run(
        self,
        members_now: Callable[[], Members],
        operation: Operation,
        read_bodies: ReadBodies,
        early: EarlyPrepare | None = None,
        revise: Revise | None = None,
    ) -> Committed:
        """Carry the operation out. Not cancellable from the first ACCEPT on. Raises like Table.commit."""
        try:
            members = members_now()
            _refuse_hopeless(members)
        except BaseException:
            if early is not None:
                early.close()
            raise
        settings = self.settings
        proposer = Proposer(operation, op_ttl_ms=settings.op_ttl_ms, ring_kept=settings.ring_kept)

        async def fetch_bodies(state: KeyState) -> Mapping[BodyId, bytes] | None:
            return await read_bodies(state, operation.bodies)

        while True:
            if revise is not None:
                _revise(proposer, revise)
            attempt = Attempt(
                proposer,
                members if early is None else early.members,
                self.watch,
                row=operation.row,
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
            if not isinstance(step, Retry | Behind):
                return _settle(step)
            if proposer.tries >= MAX_TRIES:
                raise _out_of_tries(proposer, members)
            await self._before_another(proposer, step)
            members = members_now()

    async def _before_another(self, proposer: Proposer, step: Retry | Behind) -> None:
        with trio.CancelScope(shield=proposer.first_accept is not None):
            if isinstance(step, Behind):
                await self.catch_up(step.epoch)
                return
            self.clock.see(step.low)
            slack = 1 + self.runtime.rng.random()
            await trio.sleep(self.settings.backoff_seconds * proposer.tries * slack)


def _refuse_hopeless(members: Members) -> None:
    """An ACCEPT that is known to reach too few could only leave its outcome open."""
    unable = members.unable()
    if unable and members.electorate.cannot_accept(unable):
        raise _no_quorum(members)


def _no_quorum(members: Members) -> QuorumError:
    unable = members.unable()
    group = next(
        (group for group in members.electorate.accept if group.is_lost(unable)),
        members.electorate.accept[0],
    )
    return QuorumError(group.needed, (group.members & ~unable).bit_count())


def _out_of_tries(proposer: Proposer, members: Members) -> UnavailableError:
    if proposer.first_accept is not None:
        return OutcomeUnknownError("no quorum accepted the write in time")
    if members.electorate.cannot_accept(members.unable()):
        return _no_quorum(members)
    needed = members.electorate.read.needed
    return QuorumError(needed, proposer.promised.bit_count(), "promised at last")


def _revise(proposer: Proposer, revise: Revise) -> None:
    """What is proposed may have to change with the layout: shards on a drive that lost its place do not count."""
    try:
        mutation = revise()
    except UnavailableError as error:
        if proposer.first_accept is None:
            raise
        raise OutcomeUnknownError("the layout changed while the write was under way") from error
    if mutation is not None:
        operation = proposer.operation
        proposer.operation = attrs.evolve(operation, mutation=dated(mutation, operation.op_hlc))


def dated(mutation: Mutation | None, op_hlc: int) -> Mutation | None:
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
        case Stale(sent=False):
            raise StaleBucketError
        case Stale():
            raise OutcomeUnknownError("the bucket changed while the write was under way")
        case TooOld():
            raise UnavailableError("the upload took too long to be committed")
