"""Group commit: the changes of one Trio tick become one batch, and one batch is committed at a time.

While one is in flight the next fills, so the queue is bounded by the operations that a batch may hold. Who commits is not this
file's business: a thread over SQLite, or the simulator.
"""

from collections.abc import Callable
from typing import TypeAlias

import trio

from cluster.drives.drive import CommitMark
from cluster.drives.index_rows import Batch

MAX_OPERATIONS = 4096  # in the filling batch; beyond, the drive says that it is overloaded
COMMIT_SEQ = "commit_seq"  # the control value that names the last durable batch
FORGOT = "forgot"  # that which tells that earlier ones were lost

Landed: TypeAlias = Callable[[Batch, str], None]  # a batch, and why it could not be committed
Begin: TypeAlias = Callable[
    [Batch, Landed], None
]  # never blocks; the call comes on the Trio thread
Soon: TypeAlias = Callable[[Callable[[], None]], None]  # call it when this tick is over


class GroupCommit:
    """`seq` names the filling batch, `durable` the last committed.

    Both go on rising where the index left off: a drive whose numbers fall has forgotten something.
    """

    def __init__(
        self,
        begin: Begin,
        soon: Soon,
        on_failure: Callable[[str], None],
        *,
        life: int,
        durable: int = 0,
    ) -> None:
        self._begin, self._soon = begin, soon
        self._on_failure = on_failure
        self._kicked = False
        self.flying: Batch | None = None
        self.flying_since = 0.0
        self.batch = Batch()
        self.seq = durable + 1
        self._life, self._opened_at = life, durable
        self.durable = durable
        self.failed = ""
        self.on_durable: Callable[[], None] = lambda: None

    @property
    def mark(self) -> CommitMark:
        """For peers to remember."""
        return CommitMark(self._life, self.durable)

    def forgot(self, mark: CommitMark) -> str:
        """What has been lost that was called durable in another life; empty: nothing that the mark tells of."""
        if mark.life == self._life or mark.durable <= self._opened_at:
            return ""
        return (
            f"{mark.durable - self._opened_at} commits were forgotten that had been called durable: the disk does not keep "
            "what it has synced, or an old copy was put back: replace the drive"
        )

    @property
    def is_full(self) -> bool:
        """Whether more operations wait than a batch may hold."""
        return self.batch.operations >= MAX_OPERATIONS

    @property
    def newest(self) -> int:
        """The last batch that holds something: when it is durable, everything until now is."""
        return self.seq if self.batch.operations else self.seq - 1

    def touch(self) -> None:
        """Something was put into `batch`: it is committed when the tick is over and none is in flight."""
        self.batch.operations += 1
        if self.flying is None and not self._kicked:
            self._kicked = True
            self._soon(self._launch)

    def when_durable(self, seq: int, call: Callable[[bool], None]) -> None:
        """Call back when batch `seq` is durable (True) or lost (False); at once where that is known."""
        if seq <= self.durable:
            call(True)
        elif self.failed:
            call(False)
        elif seq == self.seq:
            self.batch.done.append(call)
            if self.flying is None and not self._kicked:
                self.touch()
        else:
            assert self.flying is not None
            self.flying.done.append(call)

    def _launch(self) -> None:
        self._kicked = False
        if self.flying is None and not self.failed and (self.batch.operations or self.batch.done):
            self.flying, self.batch = self.batch, Batch()
            self.flying.ctl[COMMIT_SEQ] = b"%d" % self.seq
            self.seq += 1
            self.flying_since = trio.current_time()
            self._begin(self.flying, self._landed)

    def _landed(self, batch: Batch, error: str) -> None:
        if self.flying is not batch:
            return  # given up meanwhile, and its waiters were told
        if error:
            self.fail(error)
            return
        self.flying = None
        self.durable += 1
        for call in batch.done:
            call(True)
        self.on_durable()
        self._launch()

    def fail(self, reason: str) -> None:
        """Nothing will be committed any more: whoever waits is told."""
        if self.failed:
            return
        self.failed = reason
        lost = [] if self.flying is None else self.flying.done  # it may hang for ever
        lost += self.batch.done
        self.flying, self.batch = None, Batch()
        self._on_failure(reason)
        for call in lost:
            call(False)

    async def drain(self) -> None:
        """Until everything that was put in is durable."""
        while not self.failed and (self.flying is not None or self.batch.operations):
            await self.committed(self.seq if self.batch.operations else self.seq - 1)

    async def committed(self, seq: int) -> bool:
        """Wait until batch `seq` is durable; False: it is lost."""
        landed = trio.Event()
        verdict: list[bool] = []

        def call(is_durable: bool) -> None:
            verdict.append(is_durable)
            landed.set()

        self.when_durable(seq, call)
        await landed.wait()
        return verdict[0]
