"""What a node does for its drives, and for its sets, beside serving: rows brought up to date, tombstones and orphans forgotten.

Rounds are bounded, and one follows the other: nothing of this is urgent, and it must not get in the way of requests.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import attrs
import trio

from cluster.drives.drive import ANSWERING, VOTING, Drive
from cluster.drives.roster import Roster
from cluster.errors import ClusterError
from cluster.healing.catch_up import catch_up, compare, pass_hints
from cluster.healing.copying import Copier, for_each
from cluster.healing.fences import bury, standing_fences, take_fences
from cluster.healing.orphans import collect_orphans
from cluster.healing.purge import purge
from cluster.healing.settings import HealingSettings
from cluster.healing.steward import Steward
from cluster.healing.stray_parts import drop_stray_parts
from cluster.ids import DataId, DriveId, NodeId, RowKey
from cluster.layout import SYSTEM, Layout, LayoutError, Seat
from cluster.membership.view import MembershipView
from cluster.metadata.table import Table
from cluster.objects.buckets import recorded_buckets
from cluster.topology.agreement import Agreement, LayoutConflictError
from cluster.votes import roll_of


def sets_of(layout: Layout, drive: DriveId) -> list[int]:
    """The sets whose rows a drive holds, SYSTEM among them. Pure."""
    ids = [s.set_id for s in layout.sets if any(p.drive == drive for p in s.positions)]
    if any(seat.drive == drive for seat in roll_of(layout, SYSTEM).seats):
        ids.append(SYSTEM)
    return ids


@attrs.frozen
class LayoutInDoubt:
    """Event: the layout's register holds what cannot follow from the layout of this node's drives."""

    reason: str


class Healing:
    """`run` must be running."""

    def __init__(
        self,
        me: NodeId,
        agreement: Agreement,
        table: Table,
        roster: Roster,
        view: MembershipView,
        own: Callable[[], Mapping[DriveId, Drive]],
        emit: Callable[[object], None],
        settings: HealingSettings,
    ) -> None:
        self._me, self._agreement, self._table, self._view = me, agreement, table, view
        self._own, self._emit, self._settings = own, emit, settings
        self.steward = Steward(me, agreement, table, roster, view, settings)
        self._purged_to: dict[tuple[DriveId, int], RowKey | None] = {}
        self._hinted_to: dict[tuple[DriveId, int], dict[DriveId, RowKey]] = {}
        self._looked_to: dict[tuple[DriveId, int], DataId | None] = {}
        self._compared_to: dict[tuple[DriveId, int, DriveId], RowKey | None] = {}
        self._rounds = 0
        self._parts_to: dict[tuple[DriveId, int], RowKey | None] = {}

    async def run(self) -> None:
        """Until cancelled."""
        settings = self._settings
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._after_changes)
            nursery.start_soon(self._every, settings.layout_seconds, self._look_at_layout)
            nursery.start_soon(self._every, settings.catch_up_seconds, self._catch_up)
            nursery.start_soon(self._every, settings.forget_seconds, self._forget)
            nursery.start_soon(self._every, settings.bury_seconds, self._bury)

    async def _after_changes(self) -> None:
        while True:
            with trio.move_on_after(self._settings.steward_seconds):
                await self._agreement.wait_changed()
            await self.steward.look()

    @staticmethod
    async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await trio.sleep(seconds)
            with suppress(ClusterError):  # no quorum now: the next round tries again
                await work()

    async def _look_at_layout(self) -> None:
        """Whoever has changed it tells the others: but not where it died as soon as its change was chosen."""
        try:
            await self._agreement.refresh(self._table)
        except (LayoutConflictError, LayoutError) as error:
            self._emit(LayoutInDoubt(str(error)))

    async def _catch_up(self) -> None:
        """All drives at once: what they ask of a node goes there as one call."""

        async def work(place: tuple[int, Drive]) -> bool:
            set_id, drive = place
            copier = Copier(self._table, set_id, self._settings)
            cursors = self._hinted_to.setdefault((drive.drive_id, set_id), {})
            await pass_hints(copier, drive, self._peers(set_id, drive), cursors)
            await catch_up(copier, drive)
            return True

        voting = [(set_id, drive) for set_id, drive in self._sets() if drive.state in VOTING]
        await for_each(voting, self._settings.at_once, work)

    async def _forget(self) -> None:
        layout = self._agreement.current
        self._rounds += 1
        for set_id, drive in self._sets():
            copier = Copier(self._table, set_id, self._settings)
            if drive.state in VOTING:
                await self._compare(copier, drive)
            if set_id != SYSTEM and drive.state in VOTING:
                await take_fences(copier, drive, self._peers(set_id, drive))
            if set_id != SYSTEM and drive.state in ANSWERING:
                key = (drive.drive_id, set_id)
                after = self._looked_to.get(key)
                self._looked_to[key] = (await collect_orphans(copier, drive, after)).next
                part = self._parts_to.get(key)
                self._parts_to[key] = (await drop_stray_parts(copier, drive, part)).next
            if drive.state in VOTING:
                await self._purge(copier, layout, drive)

    async def _bury(self) -> None:
        """Every record is read, one after the other: seldom, and only where some fence stands."""
        found = []
        for set_id, drive in self._sets():
            if set_id != SYSTEM and drive.state in VOTING:
                copier = Copier(self._table, set_id, self._settings)
                found.append((copier, drive, await standing_fences(copier, drive)))
        if any(standing for _, _, standing in found):
            recorded = await recorded_buckets(self._table)
            for copier, drive, standing in found:
                await bury(copier, drive, standing, recorded)

    async def _purge(self, copier: Copier, layout: Layout, drive: Drive) -> None:
        """The first drive of a set does it for all. What it has forgotten, and others were not told to, is left to these: later."""
        key, after_ms = (drive.drive_id, copier.set_id), self._settings.purge_after_ms
        if not self._is_first(layout, copier.set_id, drive.drive_id):
            after_ms *= 2
        start = self._purged_to.get(key)
        done = await purge(copier, layout, drive, start, after_ms=after_ms)
        self._purged_to[key] = done.next

    async def _compare(self, copier: Copier, drive: Drive) -> None:
        """With another peer in each round."""
        peers = self._peers(copier.set_id, drive)
        if peers:
            peer = peers[self._rounds % len(peers)]
            key = (drive.drive_id, copier.set_id, peer.drive_id)
            _, self._compared_to[key] = await compare(
                copier, drive, peer, self._compared_to.get(key)
            )

    def _peers(self, set_id: int, drive: Drive) -> list[Drive]:
        members = self._table.members_of(set_id).drives
        return [d for d in members if d.drive_id != drive.drive_id and d.state in VOTING]

    def _is_first(self, layout: Layout, set_id: int, drive: DriveId) -> bool:
        """Of those whose nodes answer."""
        seats: tuple[Seat, ...] = roll_of(layout, set_id).seats
        routable = (seat.drive for seat in seats if self._view.is_routable(seat.node))
        return next(routable, None) == drive

    def _sets(self) -> list[tuple[int, Drive]]:
        layout = self._agreement.current
        return [
            (set_id, drive)
            for drive_id, drive in self._own().items()
            for set_id in sets_of(layout, drive_id)
        ]
