"""The body rows of a register: a small object, or a long list of parts, lies beside its record and under a rowid of its own."""

from collections.abc import Callable

from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.row_cache import Row, RowCache
from cluster.ids import RowKey
from cluster.register.acceptor import Write
from cluster.register.records import BodyId, KeyState


class RowBodies:
    """What is added and dropped goes with the filling batch, as the row does."""

    def __init__(
        self, commits: GroupCommit, reads: GroupRead, cache: RowCache, *, last: int
    ) -> None:
        self._commits, self._reads, self._cache = commits, reads, cache
        self._next = last + 1

    def draw(self) -> int:
        """A rowid that was never given before."""
        self._next += 1
        return self._next - 1

    def read(
        self, key: RowKey, row: Row, body: BodyId, then: Callable[[bytes | None], None]
    ) -> None:
        """Call `then` with the bytes, now or when they are read; None: they are not here, or cannot be read."""
        data = row.data.get(body)
        rowid = row.bodies.get(body)
        if data is not None or rowid is None:
            then(data)
            return

        def landed(read: bytes | None, _: str) -> None:
            if read is not None and body not in row.data and self._cache.get(key) is row:
                row.data[body] = read
                self._cache.charge(row, len(read))
                self._cache.trim(self._commits.durable)
            then(read)

        self._reads.submit(lambda index: index.body(rowid), landed)

    def write(self, row: Row, old: KeyState, write: Write) -> None:
        """Those that a decided state brings, and those of the old one that it does not have."""
        if write.drop_bodies:
            self._drop(row, old, write)
        for version in write.register.state.versions:
            if version.body is not None and version.body.id not in row.bodies:
                data = write.message.bodies[version.body.id]
                rowid = row.bodies[version.body.id] = self.draw()
                self._commits.batch.bodies[rowid] = data
                row.data[version.body.id] = data

    def _drop(self, row: Row, old: KeyState, write: Write) -> None:
        """A part list stays with the row until the new state is chosen: it names data that is collectable then."""
        now_known = old.body_ids()
        lists = {v.body.id: v.upload_id for v in old.versions if v.body and v.body.count}
        for body in write.drop_bodies:
            if body in lists:
                row.keeps_lists = True
                row.list_bodies += ((body, row.bodies[body], lists[body]),)
            elif body in now_known:
                row.data.pop(body, None)
                self._forget(row.bodies.pop(body))

    def drop_lists(self, row: Row, chosen: KeyState) -> bool:
        """Part lists that stayed, and that the chosen state does not have; False: there is none.

        Of one from another life of the drive no data is collected: that is an orphan's.
        """
        left = row.bodies.keys() - chosen.body_ids()
        noted = {rowid for _, rowid, _ in row.list_bodies}
        row.keeps_lists = False
        for body in left:
            rowid = row.bodies.pop(body)
            row.data.pop(body, None)
            if rowid not in noted:
                self._commits.batch.drop_bodies.add(rowid)
        return bool(left)

    def forget(self, row: Row) -> None:
        """All of them: the row goes."""
        for rowid in row.bodies.values():
            self._forget(rowid)

    def _forget(self, rowid: int) -> None:
        batch = self._commits.batch
        if batch.bodies.pop(rowid, None) is None:
            batch.drop_bodies.add(rowid)
