"""The layout's register: compare-and-set from epoch to epoch on the system set, and every drive's durable copy.

A layout is in force once its register has it chosen; a drive that holds epoch e refuses requests of every other epoch.
So a node first makes a newer layout durable on its drives, and only then addresses requests under it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from cluster.drives.drive import DriveError
from cluster.errors import ClusterError, ConfigError, OutcomeUnknownError, PreconditionError
from cluster.layout import Layout, LayoutError, decode_layout, encode_layout
from cluster.metadata.table import Table
from cluster.register.mutations import HeadIs
from cluster.register.records import Version

DOCUMENT = b"layout"
TEND_SECONDS = 5.0
KEEP_SECONDS = 5.0


class LayoutConflictError(ClusterError):
    """Two layouts of one epoch, or of two clusters: something is badly wrong, and nothing was changed (I18)."""


class LayoutRacedError(ConfigError):
    """Somebody else changed the layout at the same time."""


class LayoutShelf(Protocol):
    """Where a drive keeps the layout, together with the epoch by which its acceptor refuses requests."""

    @property
    def epoch(self) -> int:
        """Of the requests that the drive serves."""
        ...

    @property
    def data(self) -> bytes:
        """What was kept last; empty: nothing yet."""
        ...

    async def keep(self, epoch: int, data: bytes) -> None:
        """Keep both durably, before the acceptor serves that epoch and before this returns. Never goes back.

        Raises DriveError where the drive cannot.
        """
        ...


class Agreement:
    """The layout as this node knows it. `shelves` are those of the drives that it has at the moment."""

    def __init__(self, layout: Layout, shelves: Callable[[], Sequence[LayoutShelf]]) -> None:
        self.current = layout
        self.encoded = encode_layout(layout)
        self._shelves = shelves
        self._one_at_a_time = trio.Lock()
        self._changed = trio.Event()

    async def open(self) -> Layout:
        """At the start: the newest layout that any drive of the node holds, made durable on all of them.

        What this was made with counts where no drive holds one. Raises LayoutConflictError; a copy that cannot be read
        counts for nothing.
        """
        async with self._one_at_a_time:
            held = [found for shelf in self._shelves() if (found := _decode(shelf.data))]
            if held:
                self._check_cluster(held[0])
                self._take(held[0])
            for found in held:
                if self._is_news(found):
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
            # Durable before it is in force here: a drive never goes back, also over a crash. Whoever is cancelled in
            # between would leave drives that refuse what the node goes by.
            with trio.CancelScope(shield=True):  # for KEEP_SECONDS at most
                await self._keep_everywhere(layout, encode_layout(layout))
            self._take(layout)
        return True

    async def tend(self) -> None:
        """Tell drives that come back what they missed. Until cancelled."""
        while True:
            await trio.sleep(TEND_SECONDS)
            if any(shelf.epoch < self.current.epoch for shelf in self._shelves()):
                async with self._one_at_a_time:
                    await self._keep_everywhere(self.current, self.encoded)

    async def wait_for(self, epoch: int, seconds: float) -> None:
        """Until a layout of at least that epoch is in force here, for at most so long."""
        with trio.move_on_after(seconds):
            while self.current.epoch < epoch:
                await self._changed.wait()

    async def wait_changed(self) -> None:
        """Until another layout comes into force."""
        await self._changed.wait()

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
        epoch = self.current.epoch  # others may tell of a newer one meanwhile
        found = await table.read_document(DOCUMENT)
        if found is None:
            return None
        await self.adopt(found[0])
        if decode_layout(found[0]).epoch < epoch:
            # The register was read under an epoch whose layout it does not have yet: it cannot be the newest state.
            raise LayoutConflictError(
                f"the layout's register is behind epoch {epoch} of this node's drives"
            )
        return found[1]

    def _check_cluster(self, layout: Layout) -> None:
        if layout.cluster != self.current.cluster:
            raise LayoutConflictError(
                f"the layout is of cluster {layout.cluster.hex()}, this node of {self.current.cluster.hex()}"
            )

    def _is_news(self, layout: Layout) -> bool:
        self._check_cluster(layout)
        if layout.epoch == self.current.epoch and layout != self.current:
            raise LayoutConflictError(f"there are two layouts of epoch {layout.epoch}")
        return layout.epoch > self.current.epoch

    def _take(self, layout: Layout) -> None:
        self.current, self.encoded = layout, encode_layout(layout)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _keep_everywhere(self, layout: Layout, data: bytes) -> None:
        """All drives at once. One that fails or hangs keeps its old epoch, and refuses; that is what a broken drive does."""

        async def keep(shelf: LayoutShelf) -> None:
            with trio.move_on_after(KEEP_SECONDS), suppress(DriveError):
                await shelf.keep(layout.epoch, data)

        async with trio.open_nursery() as nursery:
            for shelf in self._shelves():
                nursery.start_soon(keep, shelf)


def _decode(data: bytes) -> Layout | None:
    try:
        return decode_layout(data) if data else None
    except LayoutError:
        return None


def _raced(layout: Layout) -> LayoutRacedError:
    return LayoutRacedError(
        f"the layout was changed meanwhile, to epoch {layout.epoch}: look at it, and ask again"
    )
