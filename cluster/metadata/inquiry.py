"""Asking drives without changing anything: a read quorum's answers, a body that one drive is enough for, and a question to one drive."""

from collections.abc import Callable, Sequence

import trio

from cluster.drives.drive import Drive
from cluster.drives.nearness import order
from cluster.metadata.members import Members
from cluster.metadata.rounds import Round, Watch
from cluster.register.messages import (
    Body,
    Page,
    ReadBody,
    Reply,
    Request,
    StaleBucket,
    StaleEpoch,
    Value,
)


class Inquiry:
    """One question to as many voting drives as make a read quorum; the others are asked when some fail or are late."""

    def __init__(self, members: Members, request: Request, watch: Watch) -> None:
        self._request = request
        self.members = members
        self.needed = members.electorate.read.needed
        readers = order(members.drives, members.readers)
        self._waiting = iter(readers)
        self._open = 0
        self._left = len(readers)
        self._everybody = False
        self._round = Round(members.drives, self._hear, watch)
        self.values: dict[int, Value] = {}
        self.pages: dict[int, Page] = {}
        self.stale = False  # the bucket is fenced at a higher epoch
        self.newer_epoch = 0  # of a layout that a drive goes by and we do not

    async def run(self, *, everybody: bool, hedge_seconds: float, round_seconds: float) -> None:
        """Ask; there are fewer than `needed` answers when too many drives failed or `round_seconds` passed."""
        self._everybody = everybody
        if everybody:
            self._ask_rest()
        else:
            while self._heard + self._open < self.needed and self._left:
                self._ask_next()
        if not self._round.done and not self._is_enough():
            self._round.hedge_at = trio.current_time() + hedge_seconds
            self._round.on_hedge = self._ask_rest
            await self._round.wait(round_seconds)
        self._round.close()

    @property
    def _heard(self) -> int:
        return len(self.values) + len(self.pages)

    def _is_enough(self) -> bool:
        if self.stale or self.newer_epoch:
            return True
        if self._everybody and self._open:
            return False
        return self._heard >= self.needed or (not self._left and not self._open)

    def _ask_next(self) -> None:
        index = next(self._waiting)
        self._left -= 1
        self._open += 1
        self._round.ask(index, self._request)

    def _ask_rest(self) -> None:
        while self._left:
            self._ask_next()

    def _hear(self, index: int, reply: Reply) -> bool:
        self._open -= 1
        if isinstance(reply, Value):
            self.values[index] = reply
        elif isinstance(reply, Page):
            self.pages[index] = reply
        else:
            self.stale = self.stale or isinstance(reply, StaleBucket)
            if isinstance(reply, StaleEpoch) and reply.epoch > self.members.epoch:
                self.newer_epoch = max(self.newer_epoch, reply.epoch)
            if self._left and self._heard + self._open < self.needed:
                self._ask_next()
        return self._is_enough()


class BodySearch:
    """A body row from the nearest drive that has it; the next is asked when one lacks it, fails or is late."""

    def __init__(
        self,
        members: Members,
        request: ReadBody,
        is_whole: Callable[[bytes], bool],
        watch: Watch,
    ) -> None:
        self._request, self._is_whole = request, is_whole
        self._waiting = iter(order(members.drives, range(len(members.drives))))
        self._open = 0
        self._hedge_seconds = 0.0
        self._round = Round(members.drives, self._hear, watch)
        self.data: bytes | None = None
        self.is_corrupt = False  # a copy is there that is not what it should be

    async def run(self, *, hedge_seconds: float, round_seconds: float) -> None:
        """Ask; without `data` when nobody has it, or nobody who has it answered within `round_seconds`."""
        self._hedge_seconds = hedge_seconds
        self._ask_next()
        if not self._round.done:
            self._hedge_later()
            await self._round.wait(round_seconds)
        self._round.close()

    def _ask_next(self) -> None:
        index = next(self._waiting, None)
        if index is not None:
            self._open += 1
            self._round.ask(index, self._request)

    def _hedge_later(self) -> None:
        self._round.hedge_at = trio.current_time() + self._hedge_seconds
        self._round.on_hedge = self._hedge

    def _hedge(self) -> None:
        self._ask_next()
        self._hedge_later()

    def _hear(self, _: int, reply: Reply) -> bool:
        self._open -= 1
        if isinstance(reply, Body) and reply.data is not None:
            if self._is_whole(reply.data):
                self.data = reply.data
                return True
            self.is_corrupt = True
        self._ask_next()
        return self.data is not None or not self._open


async def ask_each(
    questions: Sequence[tuple[Drive, Request]], watch: Watch, seconds: float
) -> list[Reply | None]:
    """The answers of several drives, in the order of the questions; None: it did not answer in time."""
    answers: list[Reply | None] = [None] * len(questions)
    missing = len(questions)

    def hear(index: int, reply: Reply) -> bool:
        nonlocal missing
        missing -= answers[index] is None
        answers[index] = reply
        return not missing

    asking = Round([drive for drive, _ in questions], hear, watch)
    for index, (_, request) in enumerate(questions):
        asking.ask(index, request)
    if missing:
        await asking.wait(seconds)
    asking.close()
    return answers


async def ask_one(drive: Drive, request: Request, watch: Watch, seconds: float) -> Reply | None:
    """One drive's answer; None: it did not answer in time."""
    (answer,) = await ask_each([(drive, request)], watch, seconds)
    return answer
