"""Changes of the layout are carried to their end: a drive that rebuilds itself takes its rows and votes, a system set turns.

Nothing of this needs an operator, and any node may do it twice: every step is a compare-and-set on the layout's register, which
judges the evidence anew. A drive is brought up by its own node; a change of the system set by the first node, of those that get a
seat, that answers.
"""

from collections.abc import Mapping
from contextlib import suppress

import attrs

from cluster.drives.drive import Drive
from cluster.drives.roster import Roster
from cluster.errors import ClusterError
from cluster.healing.copying import Copier, for_each
from cluster.healing.settings import HealingSettings
from cluster.healing.sync import Progress, sync
from cluster.ids import DriveId, NodeId
from cluster.layout import SYSTEM, Layout, Position, Seat
from cluster.membership.view import MembershipView
from cluster.metadata.table import Table
from cluster.quorum import Quorum
from cluster.register.anti_entropy import Wanted, Wants
from cluster.register.messages import StaleEpoch
from cluster.topology.agreement import Agreement
from cluster.topology.changes import Evidence, Place, activate
from cluster.topology.system_changes import settle_system, turn_system

PAGES = 64  # that one look takes for one drive: other drives, and a newer layout, wait for it


@attrs.frozen
class Rebuild:
    """A position of a set whose drive has no vote yet, and whose rows it may take."""

    place: Place
    position: Position
    sources: tuple[Seat, ...]
    needed: int


def rebuilds_of(layout: Layout, node: NodeId) -> list[Rebuild]:
    """What is to be brought up on a node's drives. Pure."""
    found = []
    for erasure_set in layout.sets:
        for number, position in enumerate(erasure_set.positions):
            if position.voting or position.node != node:
                continue
            sources = [other.seat for other in erasure_set.positions if other.voting]
            if position.previous is not None:
                sources.append(position.previous)
            place = Place(erasure_set.set_id, number)
            found.append(Rebuild(place, position, tuple(sources), Quorum(layout.n).read))
    return found


def leader_of(layout: Layout, view: MembershipView) -> NodeId | None:
    """Who carries a change of the system set on; None: there is none to carry. Pure."""
    seats = layout.system_next or (layout.system if layout.system_previous else ())
    nodes = list(dict.fromkeys(seat.node for seat in seats))
    return next((node for node in nodes if view.is_routable(node)), None)


class Steward:
    """Of one node. `look` does what can be done now; it is called after every change, and from time to time."""

    def __init__(
        self,
        me: NodeId,
        agreement: Agreement,
        table: Table,
        roster: Roster,
        view: MembershipView,
        settings: HealingSettings,
    ) -> None:
        self._me, self._agreement, self._table = me, agreement, table
        self._roster, self._view, self._settings = roster, view, settings
        self._progress: dict[tuple[DriveId, int, int], Progress] = {}  # drive, set, since
        self.gone: set[DriveId] = set()  # the operator vouches that these will never answer again

    async def look(self) -> None:
        """One step of everything that is under way and ours."""
        layout = self._agreement.current
        for rebuild in rebuilds_of(layout, self._me):
            with suppress(ClusterError):  # not yet, or no quorum now: the next look tries again
                await self._bring_up(layout, rebuild)
        if leader_of(layout, self._view) == self._me:
            with suppress(ClusterError):
                await self._carry_system_on(layout)
        is_over = not (layout.system_next or layout.system_previous)
        if self._agreement.current is layout and is_over and not rebuilds_of(layout, self._me):
            self._progress.clear()

    # -- a position

    async def _bring_up(self, layout: Layout, rebuild: Rebuild) -> None:
        place, position = rebuild.place, rebuild.position
        drive = self._roster.drive(position.seat)
        sets = [place.set_id]
        if layout.system_set == place.set_id:
            sets.append(SYSTEM)
        synced = {seat.drive for seat in rebuild.sources}
        for set_id in sets:
            synced &= await self._sync(set_id, drive, rebuild.sources, position.since)
        if len(synced) < rebuild.needed:
            return
        evidence = Evidence(
            epochs=await self._epochs(layout), synced={position.drive: synced}, gone=self.gone
        )
        await self._agreement.propose(self._table, lambda now: activate(now, place, evidence))

    async def _sync(
        self, set_id: int, drive: Drive, sources: tuple[Seat, ...], since: int
    ) -> set[DriveId]:
        key = (drive.drive_id, set_id, since)
        progress = self._progress.setdefault(key, Progress(since))
        copier = Copier(self._table, set_id, self._settings)
        from_drives = [self._roster.drive(seat) for seat in sources if seat.drive != drive.drive_id]
        await sync(copier, drive, from_drives, progress, pages=PAGES)
        return progress.synced

    # -- the system set

    async def _carry_system_on(self, layout: Layout) -> None:
        old, new, step = layout.system_seats, layout.system_next, turn_system
        if layout.system_previous:
            old, new, step = layout.system_previous, layout.system, settle_system
        synced: dict[DriveId, set[DriveId]] = {}
        for seat in new:
            drive = self._roster.drive(seat)
            synced[seat.drive] = await self._sync(SYSTEM, drive, old, layout.system_since)
        evidence = Evidence(epochs=await self._epochs(layout), synced=synced, gone=self.gone)
        await self._agreement.propose(self._table, lambda now: step(now, evidence))

    # -- evidence

    async def _epochs(self, layout: Layout) -> Mapping[DriveId, int]:
        """Which epoch each drive durably holds: asked, never assumed."""
        copier = Copier(self._table, SYSTEM, self._settings)
        epochs: dict[DriveId, int] = {}

        async def ask(seat: Seat) -> bool:
            reply = await copier.ask(self._roster.drive(seat), Wanted(limit=1, epoch=layout.epoch))
            if isinstance(reply, StaleEpoch):
                epochs[seat.drive] = reply.epoch
            elif isinstance(reply, Wants):
                epochs[seat.drive] = layout.epoch
            return True

        await for_each(layout.seats(), self._settings.at_once, ask)
        return epochs
