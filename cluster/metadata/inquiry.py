"""Asking drives without changing anything: a read quorum's answers, and a question to one drive."""

from collections.abc import Sequence

import trio

from cluster.drives.drive import Drive
from cluster.metadata.rounds import Round, Watch
from cluster.register.messages import Page, Reply, Request, StaleBucket, Value


class Inquiry:
    """One question to as many drives as it takes to hear `needed` of them; the others are asked when some fail or are late."""

    def __init__(
        self, drives: Sequence[Drive], request: Request, needed: int, watch: Watch
    ) -> None:
        self._request = request
        self.needed = needed
        self._waiting = range(len(drives)).__iter__()
        self._open = 0
        self._left = len(drives)
        self._everybody = False
        self._round = Round(drives, self._hear, watch)
        self.values: list[Value] = []
        self.pages: dict[int, Page] = {}
        self.stale = False

    async def run(
        self, *, everybody: bool, hedge_seconds: float, round_seconds: float
    ) -> list[Value]:
        """The answers; fewer than `needed` when too many drives failed or `round_seconds` passed."""
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
        return self.values

    @property
    def _heard(self) -> int:
        return len(self.values) + len(self.pages)

    def _is_enough(self) -> bool:
        if self.stale:
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
            self.values.append(reply)
        elif isinstance(reply, Page):
            self.pages[index] = reply
        else:
            self.stale = self.stale or isinstance(reply, StaleBucket)
            if self._left and self._heard + self._open < self.needed:
                self._ask_next()
        return self._is_enough()


async def ask_one(drive: Drive, request: Request, watch: Watch, seconds: float) -> Reply | None:
    """One drive's answer; None: it did not answer in time."""
    heard: list[Reply] = []

    def hear(_: int, reply: Reply) -> bool:
        heard.append(reply)
        return True

    asking = Round([drive], hear, watch)
    asking.ask(0, request)
    await asking.wait(seconds)
    asking.close()
    return heard[0] if heard else None
