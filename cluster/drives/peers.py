"""The other nodes of the layout: a connection is kept to each that it names, and given up when it names it no more."""

from collections.abc import Awaitable, Callable, Collection

import trio

from cluster.drives import rpc_messages as rpc
from cluster.drives.remote_node import CALL_ERRORS, RemoteNode
from cluster.ids import NodeId
from cluster.layout import Layout
from cluster.membership.service import PeerUnreachableError
from cluster.transport.base import PeerDownError


class Peers:
    """`run` must be running. `make` gives the RemoteNode of a node."""

    def __init__(
        self,
        me: NodeId,
        layout: Callable[[], Layout],
        make: Callable[[NodeId], RemoteNode],
    ) -> None:
        self._me, self._layout, self._make = me, layout, make
        self._nodes: dict[NodeId, RemoteNode] = {}
        self._scopes: dict[NodeId, trio.CancelScope] = {}

    def node(self, node: NodeId) -> RemoteNode:
        """A peer, whether it answers or not; one that the layout does not name is down."""
        known = self._nodes.get(node)
        if known is None:
            known = self._nodes[node] = self._make(node)
        return known

    def known(self) -> Collection[RemoteNode]:
        """All of them, as the layout has them now."""
        return [self._nodes[node] for node in self._scopes]

    async def run(self, wait_changed: Callable[[], Awaitable[None]]) -> None:
        """Keep up with the layout, whose changes `wait_changed` waits for."""
        async with trio.open_nursery() as nursery:
            while True:
                wanted = {entry.node for entry in self._layout().nodes} - {self._me}
                for node in wanted - self._scopes.keys():
                    self._scopes[node] = trio.CancelScope()
                    nursery.start_soon(self._keep, self.node(node), self._scopes[node])
                for node in self._scopes.keys() - wanted:
                    self._scopes.pop(node).cancel()
                    self._nodes.pop(node, None)
                await wait_changed()

    @staticmethod
    async def _keep(node: RemoteNode, scope: trio.CancelScope) -> None:
        with scope:
            await node.run()

    async def ping(self, peer: NodeId, data: bytes) -> bytes:
        """See cluster.membership.service.PeerCaller."""
        try:
            reply = await self.node(peer).ask(rpc.Gossip(data))
        except PeerDownError as error:
            raise PeerUnreachableError(str(error), refused=True) from error
        except CALL_ERRORS as error:
            raise PeerUnreachableError(str(error), refused=False) from error
        if not isinstance(reply, rpc.Gossiped):
            raise PeerUnreachableError(f"{type(reply).__name__} is no heartbeat", refused=False)
        return reply.heartbeat
