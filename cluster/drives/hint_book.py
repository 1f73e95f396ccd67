"""What a drive knows that others missed: durable, shown to who asks for one of them, forgotten when that one has it."""

from collections.abc import Callable, Sequence
from functools import partial

from cluster.clock import Ballot
from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.index_rows import IndexReads
from cluster.ids import RowKey
from cluster.register.anti_entropy import DropHints, Hints, RowAt, RowPage
from cluster.register.messages import CHOSEN, Done, Failed, Reply

ReplyTo = Callable[[Reply], None]


class HintBook:
    """Hints are written with LEARN, by the registers."""

    def __init__(self, commits: GroupCommit, reads: GroupRead) -> None:
        self._commits, self._reads = commits, reads
        self._dropping = 0  # reads under way for that
        self._noted: set[RowKey] = set()  # meanwhile: what these reads show of them is out of date

    def note(self, row: RowKey, missed: int) -> None:
        """These drives, a bitmap, missed a row: in place of what was noted before. With the filling batch."""
        self._commits.batch.hints[row] = missed
        self._commits.touch()
        if self._dropping:
            self._noted.add(row)

    def show(self, request: Hints, reply: ReplyTo) -> None:
        """A page of rows that one drive missed."""

        def landed(page: RowPage | None, error: str) -> None:
            reply(Failed(error) if page is None else page)

        self._reads.submit(partial(_find, request), landed)

    def drop(self, request: DropHints, rows: Sequence[RowKey], reply: ReplyTo) -> None:
        """Forget that one drive missed these rows, of which nothing newer is known."""
        commits = self._commits
        flying = commits.flying.hints if commits.flying is not None else {}
        # The read may not see what is not durable yet. Such rows are dropped when they are asked for again.
        stored = [row for row in rows if row not in commits.batch.hints and row not in flying]
        self._dropping += 1

        def landed(found: dict[RowKey, int] | None, error: str) -> None:
            self._dropping -= 1
            noted = set(self._noted)
            if not self._dropping:
                self._noted.clear()
            if found is None:
                reply(Failed(error))
                return
            batch, everybody = self._commits.batch, (1 << request.places) - 1
            for row, missed in found.items():
                if row not in batch.hints and row not in noted:
                    batch.hints[row] = missed & everybody & ~(1 << request.position)
                    self._commits.touch()
            reply(Done())  # one that comes back after a crash is dropped again

        self._reads.submit(lambda index: index.hints_of(stored), landed)


def _find(request: Hints, index: IndexReads) -> RowPage:
    noted = index.hints_after(request.after, request.stop, request.limit)
    missed = [row for row, bitmap in noted if bitmap >> request.position & 1]
    heads = index.heads(missed)
    rows: list[tuple[RowKey, Ballot]] = []
    for row in missed:
        head = heads.get(row)
        if head is not None and head.flags & CHOSEN:
            rows.append((row, head.ballot))
    following = noted[-1][0] if len(noted) == request.limit else None
    return RowPage([RowAt(row, ballot) for row, ballot in rows], following)
