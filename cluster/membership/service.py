"""The detector's driver: pings peers, answers theirs, and carries the layout to whoever has an older one."""

import math
from typing import Protocol

import attrs
import trio

from cluster.errors import ClusterError
from cluster.ids import NodeId
from cluster.layout import Layout
from cluster.membership.detector import Detector, DetectorSettings, PeerChanged
from cluster.membership.messages import (
    Heartbeat,
    HeartbeatError,
    decode_heartbeat,
    encode_heartbeat,
)
from cluster.membership.view import MembershipView
from cluster.runtime import Runtime


class PeerUnreachableError(Exception):
    """The peer did not answer. `refused`: there is no connection, and none could be made just now."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class PeerCaller(Protocol):
    """The way to the peers; the transport is on the other side."""

    async def ping(self, peer: NodeId, data: bytes) -> bytes:
        """Bring a heartbeat to a peer, and its answer back; the caller sets the deadline.

        Raises PeerUnreachableError. At most a layout long, both ways; may be cancelled.
        """
        ...


class LayoutHolder(Protocol):
    """The layout as this node has it; see cluster.topology.agreement."""

    @property
    def current(self) -> Layout:
        """The layout in force."""
        ...

    @property
    def encoded(self) -> bytes:
        """Its stored form."""
        ...

    async def adopt(self, data: bytes) -> bool:
        """Take a newer one over, durably; True: it was newer. Raises ClusterError for what is none."""
        ...


@attrs.frozen
class LayoutNotAdopted:
    """Event: a peer sent a layout that this node does not take."""

    peer: NodeId
    reason: str


class Membership:
    """Run `run` as a task, hand `answer` to the transport, call `kick` when the layout has changed."""

    def __init__(
        self,
        me: NodeId,
        caller: PeerCaller,
        layouts: LayoutHolder,
        runtime: Runtime,
        *,
        settings: DetectorSettings | None = None,
    ) -> None:
        self.view = MembershipView(me)
        self.detector = Detector(
            me, incarnation=runtime.wall_ms(), now=trio.current_time(), settings=settings
        )
        self._caller, self._layouts, self._runtime = caller, layouts, runtime
        self._epoch = 0  # of the layout that the detector knows
        self._kicked = trio.Event()
        self._follow_layout()

    async def run(self) -> None:
        """Ping until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._kicked = trio.Event()  # before looking: no kick is lost
                now = trio.current_time()
                self._follow_layout()
                self._note(self.detector.tick(now))
                for peer in self.detector.due(now):
                    nursery.start_soon(self._ping, peer)
                with trio.move_on_at(self.detector.next_deadline(now)):
                    await self._kicked.wait()

    def kick(self) -> None:
        """Look again: the layout is a newer one, or somebody is to be pinged."""
        self._kicked.set()

    def hurry(self, peer: NodeId) -> None:
        """Ping it now: it has news."""
        self.detector.hurry(trio.current_time(), [peer])
        self.kick()

    async def answer(self, sender: NodeId, data: bytes) -> bytes:
        """The answer to a ping; `sender` is who the transport says it is, member or not. Raises HeartbeatError."""
        ping = decode_heartbeat(data)
        if ping.node != sender:
            raise HeartbeatError(f"node {sender} pings as node {ping.node}")
        await self._adopt(sender, ping)
        self._note(self.detector.pinged(trio.current_time(), ping))
        return encode_heartbeat(self._heartbeat(ping.epoch))

    # -- inside

    async def _ping(self, node: NodeId) -> None:
        peer = self.detector.peers.get(node)
        if peer is None:
            return
        sent_at = trio.current_time()
        # The epoch of a peer that has not answered yet is not known: it is told after its first answer.
        ping = self._heartbeat(peer.epoch or math.inf)
        answer = b""
        try:
            with trio.move_on_after(self.detector.settings.ping) as scope:
                answer = await self._caller.ping(node, encode_heartbeat(ping))
            if scope.cancelled_caught:
                return  # silence: `tick` counts it
            heard = decode_heartbeat(answer)
        except PeerUnreachableError as error:
            if error.refused:
                self._note(self.detector.refused(trio.current_time(), node))
                self.kick()
            return
        except HeartbeatError:
            return  # a peer of an unknown version is as good as a silent one
        if heard.node != node:
            return
        self._note(self.detector.answered(trio.current_time(), sent_at, heard))
        await self._adopt(node, heard)
        if heard.epoch < self._layouts.current.epoch and not ping.layout:
            self.detector.hurry(trio.current_time(), [node])
            self.kick()

    async def _adopt(self, peer: NodeId, heartbeat: Heartbeat) -> None:
        if not heartbeat.layout:
            return
        try:
            is_newer = await self._layouts.adopt(heartbeat.layout)
        except ClusterError as error:
            self._runtime.emit(LayoutNotAdopted(peer, str(error)))
            return
        if is_newer:
            self.kick()

    def _follow_layout(self) -> None:
        """A newer layout: whom to watch, and everybody is told of it at once."""
        layout = self._layouts.current
        if layout.epoch == self._epoch:
            return
        nodes = [node.node for node in layout.nodes]
        now = trio.current_time()
        self.view.set_members(nodes)
        self._note(self.detector.set_members(now, nodes))
        if self._epoch:  # at the start the pings are spread
            self.detector.hurry(now, nodes)
        self._epoch = layout.epoch

    def _note(self, changes: list[PeerChanged]) -> None:
        for change in changes:
            self.view.note(change)
            self._runtime.emit(change)

    def _heartbeat(self, their_epoch: float) -> Heartbeat:
        mine = self._layouts.current.epoch
        layout = self._layouts.encoded if their_epoch < mine else b""
        return self.detector.heartbeat(trio.current_time(), mine, layout)
