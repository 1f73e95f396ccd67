"""Who is taken for what, as healing asks it: safety does not look here, and requests go by what each peer itself answers."""

from collections.abc import Iterable

import trio

from cluster.ids import NodeId
from cluster.membership.detector import PeerChanged
from cluster.membership.peers import PeerState


class MembershipView:
    """States of the peers. This node is always alive to itself; a node that nobody knows has left."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._states: dict[NodeId, PeerState] = {}
        self._changed = trio.Event()

    def state(self, node: NodeId) -> PeerState:
        """What the node is taken for now."""
        return PeerState.ALIVE if node == self._me else self._states.get(node, PeerState.LEFT)

    def is_routable(self, node: NodeId) -> bool:
        """Whether requests are sent there at all."""
        return self.state(node) in {PeerState.ALIVE, PeerState.SUSPECT}

    async def wait_changed(self) -> None:
        """Return at the next change."""
        await self._changed.wait()

    def set_members(self, nodes: Iterable[NodeId]) -> None:
        """The layout's nodes; a new one is alive until it is silent."""
        self._states = {
            node: self._states.get(node, PeerState.ALIVE) for node in nodes if node != self._me
        }
        self._tell()

    def note(self, change: PeerChanged) -> None:
        """A peer is taken for something else."""
        if change.node in self._states:
            self._states[change.node] = change.state
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
