"""What every node is made of, over any transport and any drives: production and the simulator compose the same.

Layout and membership at the side, then upwards: the drives of all nodes, registers on them, objects on those.
"""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Protocol

import attrs
import trio
from trio.abc import HalfCloseableStream

from cluster.access.credentials import Credentials
from cluster.access.directory import Directory
from cluster.access.leases import LeaseSettings
from cluster.access.push import tell_peers
from cluster.clock import HybridClock
from cluster.drives.away_notes import AwayNotes
from cluster.drives.drive import Drive, DriveState, DriveStatus, MarkedDrive
from cluster.drives.peers import Peers
from cluster.drives.remote_node import Identity, PeerSettings, RemoteNode
from cluster.drives.roster import Roster
from cluster.drives.server import DriveServer, ServerSettings
from cluster.healing.service import Healing
from cluster.healing.settings import HealingSettings
from cluster.ids import DriveId, NodeId
from cluster.layout import SYSTEM, Layout
from cluster.membership.detector import DetectorSettings
from cluster.membership.service import Membership
from cluster.metadata.commit import TableSettings
from cluster.metadata.table import Table
from cluster.objects.away import AwayData, AwaySettings
from cluster.objects.context import ObjectSettings
from cluster.objects.store import ObjectStore
from cluster.runtime import Runtime
from cluster.secrets import Vault
from cluster.topology.agreement import Agreement, LayoutShelf
from cluster.transport.base import PeerDownError, StreamHandler, Transport

HURRY_SECONDS = 0.5
STATUS_SECONDS = 5.0


class HostedDrive(MarkedDrive, Protocol):
    """A drive of this node."""

    @property
    def layout(self) -> LayoutShelf | None:
        """Its copy of the layout; None: it does not work."""
        ...

    @property
    def notes(self) -> AwayNotes | None:
        """What it knows of bodies in other sets than their registers; None: it does not work."""
        ...


@attrs.frozen(kw_only=True)
class CoreSettings:
    """Of all parts; None: their defaults."""

    table: TableSettings | None = None
    objects: ObjectSettings | None = None
    away: AwaySettings | None = None
    access: LeaseSettings | None = None
    healing: HealingSettings = attrs.field(factory=HealingSettings)
    peers: PeerSettings | None = None
    server: ServerSettings | None = None
    detector: DetectorSettings | None = None


class NoTransport:
    """Of a node that has no peers: whoever the layout names cannot be reached."""

    async def open_stream(self, peer: NodeId) -> HalfCloseableStream:
        """See Transport."""
        raise PeerDownError(f"there is no transport to node {peer}")

    async def serve(self, handler: StreamHandler) -> None:
        """See Transport: nobody calls."""
        del handler
        await trio.sleep_forever()


class Core:
    """Made, then `open`ed, then `run`, in a nursery that outlives it."""

    def __init__(
        self,
        me: NodeId,
        layout: Layout,
        *,
        own: Callable[[], Mapping[DriveId, HostedDrive]],
        transport: Transport,
        runtime: Runtime,
        nursery: trio.Nursery,
        settings: CoreSettings | None = None,
    ) -> None:
        """`layout`: what this node was started with; `own` gives its drives, in another mapping whenever one comes or goes."""
        settings = settings if settings is not None else CoreSettings()
        self._own, self._transport = own, transport
        self._hurried: dict[NodeId, float] = {}  # when a peer may be hurried to again
        self.clock = HybridClock(runtime.wall_ms, runtime.rng.getrandbits(64))
        self.agreement = Agreement(layout, self._shelves)
        numbers = count()
        identity = Identity(
            cluster=layout.cluster, node=me, epoch=lambda: self.layout.epoch,
            start=runtime.rng.getrandbits(63), on_newer=self._hurry,
        )  # fmt: skip

        def make_peer(node: NodeId) -> RemoteNode:
            return RemoteNode(
                transport, node, me=identity, clock=self.clock, runtime=runtime, numbers=numbers,
                settings=settings.peers,
            )  # fmt: skip

        self.peers = Peers(me, lambda: self.layout, make_peer)
        self.membership = Membership(
            me, self.peers, self.agreement, runtime, settings=settings.detector
        )
        self.roster = Roster(me, lambda: self.layout, own, self.peers.node)
        patience = (settings.table or TableSettings()).round_seconds
        self.table = Table(
            drives_of=self.roster.drives_of, layout=lambda: self.layout, clock=self.clock,
            runtime=runtime, settings=settings.table,
            catch_up=lambda epoch: self.agreement.wait_for(epoch, patience),
        )  # fmt: skip
        self.store = ObjectStore(
            table=self.table, drives_of=self.roster.drives_of, layout=lambda: self.layout,
            clock=self.clock, runtime=runtime, node_id=me, nursery=nursery, settings=settings.objects,
        )  # fmt: skip
        self.away = AwayData(
            table=self.table, drives_of=self.roster.drives_of, own=own, layout=lambda: self.layout,
            clock=self.clock, runtime=runtime, settings=settings.away,
        )  # fmt: skip
        self.healing = Healing(
            me, self.agreement, self.table, self.roster, self.membership.view, own, runtime.emit,
            settings.healing,
        )  # fmt: skip
        self.vault = Vault()
        self.credentials = Credentials(
            table=self.table, vault=self.vault, nursery=nursery, settings=settings.access
        )
        self.directory = Directory(
            table=self.table, runtime=runtime, vault=self.vault, credentials=self.credentials,
            notify=tell_peers(self.peers.known),
        )  # fmt: skip
        self.server = DriveServer(
            cluster=layout.cluster, node=me, epoch=lambda: self.layout.epoch, drives=own,
            clock=self.clock, runtime=runtime, is_member=self._is_member, on_newer=self._hurry,
            on_gossip=self.membership.answer, forget=self.credentials.forget, settings=settings.server,
        )  # fmt: skip

    @property
    def layout(self) -> Layout:
        """In force at this node."""
        return self.agreement.current

    async def drive_statuses(self) -> list[DriveStatus]:
        """Of every drive that has a place, by set and position, wherever it is, then of others of this node. All are asked at once."""
        layout, own = self.layout, self._own()
        places = [
            (some.set_id, number, self.roster.drive(position.seat, some.set_id, number))
            for some in layout.sets
            for number, position in enumerate(some.positions)
        ]
        placed = {drive.drive_id for _, _, drive in places}
        places += [(0, 0, drive) for drive_id, drive in own.items() if drive_id not in placed]
        found: dict[DriveId, DriveStatus] = {}

        async def ask(set_id: int, number: int, drive: Drive) -> None:
            with trio.move_on_after(STATUS_SECONDS):
                found[drive.drive_id] = await drive.status()
                return
            found[drive.drive_id] = DriveStatus(
                drive=drive.drive_id, path="-", set_id=set_id, position=number, usage=None, heal_debt=0,
                state=DriveState.MISSING, reason="it does not answer",
            )  # fmt: skip

        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(ask, *place)
        return [found[drive.drive_id] for _, _, drive in places]

    def quorum_lost(self) -> str:
        """Which set lacks what, in words; empty: all can be read and written."""
        for set_id in (*(erasure_set.set_id for erasure_set in self.layout.sets), SYSTEM):
            members = self.table.members_of(set_id)
            unable, electorate = members.unable(), members.electorate
            if electorate.cannot_accept(unable):
                lacking = "read and write" if electorate.read.is_lost(unable) else "write"
                voting = (electorate.read.members & ~unable).bit_count()
                name = "the system set" if set_id == SYSTEM else f"set {set_id}"
                return (
                    f"{name}: {lacking} quorum lost ({voting} of {len(members.drives)} drives vote)"
                )
        return ""

    def _shelves(self) -> list[LayoutShelf]:
        return [drive.layout for drive in self._own().values() if drive.layout is not None]

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.table.run)
            nursery.start_soon(self.agreement.tend)
            nursery.start_soon(self.peers.run, self.agreement.wait_changed)
            nursery.start_soon(self.membership.run)
            nursery.start_soon(self.away.run)
            nursery.start_soon(self.healing.run)
            nursery.start_soon(self._tell_of_layouts)
            nursery.start_soon(self._transport.serve, self.server.handle)

    async def _tell_of_layouts(self) -> None:
        """A layout that this node has made, or heard of, goes to everybody at once."""
        while True:
            await self.agreement.wait_changed()
            self.membership.kick()

    def _is_member(self, node: NodeId) -> bool:
        return any(entry.node == node for entry in self.layout.nodes)

    def _hurry(self, peer: NodeId) -> None:
        """It has a newer layout: a ping brings that. One, though every reply of a busy peer tells of it."""
        now = trio.current_time()
        if now >= self._hurried.get(peer, 0.0):
            self._hurried[peer] = now + HURRY_SECONDS
            self.membership.hurry(peer)
