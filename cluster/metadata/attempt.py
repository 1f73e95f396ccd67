"""One ballot of one operation: PREPARE and ACCEPT to all home drives, then LEARN, without a task switch in between."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

import attrs
import trio

from cluster.clock import Ballot
from cluster.ids import RowKey
from cluster.metadata.members import Members
from cluster.metadata.rounds import Round, Watch
from cluster.register.messages import (
    Accept,
    Accepted,
    Failed,
    Learn,
    NeedBodies,
    Prepare,
    Reply,
    Request,
)
from cluster.register.proposer import (
    Behind,
    Committed,
    Declined,
    Outcome,
    Proposer,
    Retry,
    Send,
    Step,
)
from cluster.register.records import BodyId, KeyState

End: TypeAlias = Outcome | Retry | Behind
FetchBodies = Callable[[KeyState], Awaitable[Mapping[BodyId, bytes] | None]]


class EarlyPrepare:
    """A PREPARE that is on its way while its operation is still being made ready; the answers are kept for it.

    So the promises of a staged PUT cost no round trip of their own. Either an Attempt takes it over, or `close` it.
    """

    def __init__(self, members: Members, watch: Watch, message: Prepare) -> None:
        self.members, self.message = members, message
        self.answers: list[tuple[int, Reply]] = []
        self.listener: Callable[[int, Reply], bool] | None = None
        self.round = Round(members.drives, self._hear, watch)
        for index in members.readers:
            self.round.ask(index, message)

    def _hear(self, index: int, reply: Reply) -> bool:
        if self.listener is not None:
            return self.listener(index, reply)
        self.answers.append((index, reply))
        return False

    def close(self) -> None:
        """Ignore the answers: there will be no operation."""
        self.round.close()


class Attempt:
    """Drives the proposer through one ballot. `run` gives the step that ends it."""

    def __init__(
        self,
        proposer: Proposer,
        members: Members,
        watch: Watch,
        *,
        row: RowKey,
        fetch_bodies: FetchBodies,
        early: EarlyPrepare | None = None,
    ) -> None:
        self._proposer = proposer
        self._members = members
        self._watch = watch
        self._row = row
        self._fetch_bodies = fetch_bodies
        self._early = early
        self._round = Round(members.drives, self._hear, watch) if early is None else early.round
        self._sent: Accept | None = None
        self._ended: End | None = None
        self._lacking: list[int] = []  # drives that asked for body rows
        self._collecting = False
        self._held_back: Step | None = None

    async def run(self, ballot: Ballot, *, round_seconds: float, straggler_seconds: float) -> End:
        """One attempt. Cancellable until the ACCEPT goes out, not afterwards."""
        members = self._members
        # What an earlier ACCEPT may have done is found out to the end.
        self._round.shielded = self._proposer.first_accept is not None
        message = self._proposer.begin(ballot, members.epoch, members.electorate).message
        if self._early is None:
            self._broadcast(message, members.readers)
        else:
            self._take_over(self._early)
        try:
            await self._wait(round_seconds)
        except trio.Cancelled:
            self._round.close()  # or promises that come late would send the ACCEPT after all
            raise
        assert self._ended is not None
        if self._sent is not None and isinstance(self._ended, Committed | Declined):
            self._spread(ballot, straggler_seconds)
        else:
            self._round.close()
        return self._ended

    async def _wait(self, round_seconds: float) -> None:
        while self._ended is None:
            if not await self._round.wait(round_seconds):
                self._take(self._proposer.on_timeout())
            elif self._lacking:
                self._round.reopen()
                await self._supply_bodies()

    def _broadcast(self, message: Request, indexes: Iterable[int]) -> None:
        # Local drives often answer within submit: what that leads to waits until the loop is through.
        self._collecting = True
        for index in indexes:
            self._round.ask(index, message)
            if self._held_back is not None:
                break
        self._collecting = False
        self._let_go()

    def _take_over(self, early: EarlyPrepare) -> None:
        early.listener = self._hear
        self._collecting = True
        for index, reply in early.answers:
            if self._hear(index, reply) or self._held_back is not None:
                break
        self._collecting = False
        self._let_go()

    def _let_go(self) -> None:
        if self._held_back is not None:
            step, self._held_back = self._held_back, None
            self._take(step)

    def _take(self, step: Step) -> None:
        if isinstance(step, Send):
            assert isinstance(step.message, Accept)
            self._sent = step.message
            self._round.shielded = True
            self._broadcast(step.message, range(len(self._members.drives)))
        else:
            self._ended = step

    def _hear(self, index: int, reply: Reply) -> bool:
        if self._ended is not None:
            if isinstance(reply, Accepted):
                self._proposer.also_accepted(index)
            return True
        if isinstance(reply, NeedBodies) and self._sent is not None:
            self._lacking.append(index)
            return True
        assert self._proposer.ballot is not None
        step = self._proposer.on_reply(index, reply, to=self._proposer.ballot)
        if step is None:
            return False
        if self._collecting and isinstance(step, Send):
            self._held_back = step
            return False
        self._take(step)
        return self._ended is not None

    async def _supply_bodies(self) -> None:
        assert self._sent is not None
        lacking, self._lacking = self._lacking, []
        fetched = await self._fetch_bodies(self._sent.state)
        for index in lacking:
            if fetched is None:
                self._round.answer(index, Failed("the record's body rows cannot be read"))
            else:
                self._round.ask(index, attrs.evolve(self._sent, bodies=fetched))

    def _spread(self, ballot: Ballot, straggler_seconds: float) -> None:
        """Tell all drives that the state is chosen; later, tell the acceptors who missed it (their hint rows)."""
        drives = self._members.drives
        for drive in drives:
            drive.submit(Learn(row=self._row, ballot=ballot), _ignore)

        def conclude() -> None:
            self._round.close()
            accepted = self._proposer.accepted
            if accepted.bit_count() < len(drives):
                told = Learn(row=self._row, ballot=ballot, acceptors=accepted)
                for index, drive in enumerate(drives):
                    if accepted >> index & 1:
                        drive.submit(told, _ignore)

        if self._proposer.accepted.bit_count() == len(drives):
            conclude()
        else:
            self._watch.later(straggler_seconds, conclude)


def _ignore(_: Reply) -> None:
    """LEARN is not waited for: whoever misses it is told by the next reader."""
