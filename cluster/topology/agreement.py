"""The layout's register: compare-and-set from epoch to epoch on the system set, and every drive's durable copy.

A layout is in force once its register has it chosen; a drive that holds epoch e refuses requests of every other epoch.
So a node first makes a newer layout durable on its drives, and only then addresses requests under it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from cluster.errors import ClusterError, ConfigError, OutcomeUnknownError, PreconditionError
from cluster.ids import DriveId
from cluster.layout import Layout, LayoutError, decode_layout, encode_layout
from cluster.metadata.table import Table
from cluster.register.mutations import HeadIs
from cluster.register.records import Version

DOCUMENT = b"layout"


class LayoutConflictError(ClusterError):
    """Two layouts of one epoch, or of two clusters: something is badly wrong, and nothing was changed (I18)."""


class LayoutRacedError(ConfigError):
    """Somebody else changed the layout at the same time."""


class LayoutShelf(Protocol):
    """Where a drive keeps the layout, together with the epoch by which its acceptor refuses requests."""

    @property
    def drive_id(self) -> DriveId:
        """Whose it is."""
        ...

    async def load(self) -> bytes | None:
        """What was kept last; None: nothing yet. Raises OSError, DriveError."""
        ...

    async def keep(self, epoch: int, data: bytes) -> None:
        """Keep both durably, before the acceptor serves that epoch and before this returns. Never goes back.

        Raises OSError, DriveError where the drive cannot.
        """
        ...


class Agreement:
    """The layout as this node knows it. `tolerate` are the errors of a drive that fails: the others go on without it."""

    def __init__(
        self,
        layout: Layout,
        shelves: Sequence[LayoutShelf],
        *,
        tolerate: tuple[type[Exception], ...] = (OSError,),
        on_change: Callable[[Layout], None] = lambda _: None,
    ) -> None:
        self.current = layout
        self.encoded = encode_layout(layout)
        self.on_change = on_change
        self._shelves = list(shelves)
        self._tolerate = tolerate
        self._one_at_a_time = trio.Lock()

    async def open(self) -> Layout:
        """At the start: the newest layout that any drive of the node holds, made durable on all of them.

        Raises LayoutConflictError; a copy that cannot be read counts for nothing.
        """
        async with self._one_at_a_time:
            for shelf in self._shelves:
                found = await self._load(shelf)
                if found is not None and self._is_news(found):
                    self._take(found)
            await self._keep_everywhere(self.current, self.encoded)
        return self.current

    async def adopt(self, data: bytes) -> bool:
        """Take a layout over that a peer has; True: it was newer. Lower epochs are left alone.

        Raises LayoutError, LayoutConflictError.
        """
        layout = decode_layout(data)
        async with self._one_at_a_time:
            if not self._is_news(layout):
                return False
            # Durable before it is in force here: a drive never goes back, also over a crash.
            await self._keep_everywhere(layout, encode_layout(layout))
            self._take(layout)
        self.on_change(layout)
        return True

    async def refresh(self, table: Table) -> Layout:
        """What the register says, adopted. Raises like Table.read_document."""
        await self._read(table)
        return self.current

    async def propose(self, table: Table, change: Callable[[Layout], Layout]) -> Layout:
        """Change the layout: from the epoch in force to the next. Returns the new one, in force on this node's drives.

        Raises what `change` raises, LayoutRacedError, and like Table.write_document.
        """
        version = await self._read(table)
        base = self.current
        changed = change(base)
        assert changed.epoch == base.epoch + 1
        assert changed.cluster == base.cluster
        data = encode_layout(changed)
        expect = (HeadIs(stamp=version.stamp if version is not None else None),)
        try:
            await table.write_document(DOCUMENT, data, expect=expect)
        except PreconditionError as error:
            await self._read(table)
            raise _raced(self.current) from error
        except OutcomeUnknownError:
            await self._read(table)  # settles it: a read confirms what it returns
            if self.encoded != data:
                raise
        await self.adopt(data)
        return changed

    async def _read(self, table: Table) -> Version | None:
        found = await table.read_document(DOCUMENT)
        if found is None:
            return None
        await self.adopt(found[0])
        if decode_layout(found[0]).epoch < self.current.epoch:
            # The register was read under an epoch whose layout it does not have yet: it cannot be the newest state.
            raise LayoutConflictError(
                f"the layout's register is behind epoch {self.current.epoch} of this node's drives"
            )
        return found[1]

    def _is_news(self, layout: Layout) -> bool:
        if layout.cluster != self.current.cluster:
            raise LayoutConflictError(
                f"the layout is of cluster {layout.cluster.hex()}, this node of {self.current.cluster.hex()}"
            )
        if layout.epoch == self.current.epoch and layout != self.current:
            raise LayoutConflictError(f"there are two layouts of epoch {layout.epoch}")
        return layout.epoch > self.current.epoch

    def _take(self, layout: Layout) -> None:
        self.current, self.encoded = layout, encode_layout(layout)

    async def _load(self, shelf: LayoutShelf) -> Layout | None:
        try:
            data = await shelf.load()
        except self._tolerate:
            return None
        try:
            return decode_layout(data) if data is not None else None
        except LayoutError:
            return None

    async def _keep_everywhere(self, layout: Layout, data: bytes) -> None:
        """All drives at once. One that fails keeps its old epoch, and refuses; that is what a broken drive does."""

        async def keep(shelf: LayoutShelf) -> None:
            try:
                await shelf.keep(layout.epoch, data)
            except self._tolerate:
                return

        async with trio.open_nursery() as nursery:
            for shelf in self._shelves:
                nursery.start_soon(keep, shelf)


def _raced(layout: Layout) -> LayoutRacedError:
    return LayoutRacedError(
        f"the layout was changed meanwhile, to epoch {layout.epoch}: look at it, and ask again"
    )
