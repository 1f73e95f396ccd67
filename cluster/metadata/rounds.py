"""One question to several drives, one waiting task; and the one task that watches all deadlines.

A quorum operation is a Round: requests are submitted, answers call back, and the waiting task is rescheduled once,
when its judge has heard enough. There is no nursery and no cancel scope per operation: at thousands of operations a second
these would cost more than the operation.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import trio

from cluster.drives.drive import Drive
from cluster.register.messages import Reply, Request

TICK_SECONDS = 0.02

Judge = Callable[[int, Reply], bool]  # takes drive index and answer; True: heard enough


class Round:
    """Answers of several drives to one question. Late answers still reach `judge` until `close`."""

    __slots__ = (
        "_done",
        "_drives",
        "_judge",
        "_late",
        "_task",
        "_watch",
        "deadline",
        "hedge_at",
        "on_hedge",
        "shielded",
    )

    def __init__(self, drives: Sequence[Drive], judge: Judge, watch: "Watch") -> None:
        self._drives = drives
        self._judge: Judge | None = judge
        self._watch = watch
        self._done = False
        self._late = False
        self._task: trio.lowlevel.Task | None = None
        self.deadline = 0.0
        self.hedge_at = 0.0
        self.on_hedge: Callable[[], None] | None = None
        self.shielded = False  # an operation that may have taken effect is carried to its end

    def ask(self, index: int, request: Request) -> None:
        """Submit a request to drive `index`."""
        self._drives[index].submit(request, partial(self.answer, index))

    def answer(self, index: int, reply: Reply) -> None:
        """Drive `index` answers (the callback of `ask`; or the caller, in its place)."""
        if self._judge is None:
            return
        if self._judge(index, reply) and not self._done:
            self._finish()

    def _finish(self) -> None:
        self._done = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    @property
    def done(self) -> bool:
        """Whether the judge has heard enough."""
        return self._done

    def reopen(self) -> None:
        """Wait for a second set of answers."""
        self._done = False

    def close(self) -> None:
        """Ignore whatever still comes."""
        self._judge = None

    def expire(self) -> None:
        """The watch calls this when the deadline has passed."""
        if not self._done:
            self._late = True
            self._finish()

    async def wait(self, seconds: float) -> bool:
        """Until enough was heard; False: `seconds` have passed first. Not cancellable while `shielded` is set."""
        if self._done:
            return True
        self._late = False
        self.deadline = trio.current_time() + seconds
        if not self._watch.add(self):
            return False
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            if self.shielded:
                return trio.lowlevel.Abort.FAILED
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._watch.discard(self)
        return not self._late


class Watch:
    """Expires rounds whose deadline has passed, and hedges those that wait too long. One task for all of them."""

    def __init__(self) -> None:
        self._rounds: dict[Round, None] = {}
        self._later: deque[tuple[float, Callable[[], None]]] = deque()
        self._wanted = trio.Event()
        self._is_over = False

    def add(self, waiting: Round) -> bool:
        """Watch a round until it is discarded; False: nobody keeps deadlines any more."""
        if self._is_over:
            return False
        self._wanted.set()
        self._rounds[waiting] = None
        return True

    def discard(self, waiting: Round) -> None:
        """The round is over."""
        self._rounds.pop(waiting, None)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back after about `seconds`, which must be the same for all calls, so that the queue is in order."""
        self._wanted.set()
        self._later.append((trio.current_time() + seconds, call))

    async def run(self) -> None:
        """Look at every round each tick; sleep for good while there is none.

        With the watch all rounds end: those of commits that have begun are shielded, and would keep a node from stopping.
        """
        try:
            await self._run()
        finally:
            self._is_over = True
            for waiting in list(self._rounds):
                waiting.expire()

    async def _run(self) -> None:
        while True:
            if not self._rounds and not self._later:
                self._wanted = trio.Event()
                await self._wanted.wait()
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            while self._later and self._later[0][0] <= now:
                self._later.popleft()[1]()
            for waiting in list(self._rounds):
                if waiting.on_hedge is not None and now >= waiting.hedge_at:
                    hedge, waiting.on_hedge = waiting.on_hedge, None
                    hedge()
                if now >= waiting.deadline:
                    waiting.expire()
