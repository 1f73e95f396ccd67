"""The seam to the network: streams to peers whose identity the transport vouches for.

A call is one stream. Streams are reliable and ordered in themselves, and independent of each other (QUIC, RFC 9000
section 2): a call that is stuck holds up no other.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from trio.abc import HalfCloseableStream

from cluster.ids import NodeId

StreamHandler = Callable[[NodeId, HalfCloseableStream], Awaitable[None]]


class TransportError(Exception):
    """The network failed a call. What the peer did of it is unknown, unless the error says more."""


class PeerDownError(TransportError):
    """There is no connection to the peer, and none can be made: the call has not reached it."""


class StreamBrokenError(TransportError):
    """The stream was reset, or its connection lost: the peer may have carried the call out."""


class CallCancelledError(TransportError):
    """The peer gave the call up."""


class Transport(Protocol):
    """Streams to and from peers."""

    async def open_stream(self, peer: NodeId) -> HalfCloseableStream:
        """A new stream. Raises PeerDownError; its verbs raise trio.BrokenResourceError when it is cut."""
        ...

    async def serve(self, handler: StreamHandler) -> None:
        """Hand every stream that a peer opens to `handler`, each in a task of its own, until cancelled."""
        ...
