"""A network in virtual time: delay, loss, reorder, bandwidth, resets, partitions both ways and one way, clogs, duplicates.

What QUIC promises is kept: a stream is reliable and ordered in itself, streams are independent. Loss therefore shows as
delay, reorder between streams, and a link that stays dead breaks the connection with all its streams on both ends. A
duplicate is a whole call that arrives a second time, as 0-RTT data may. All randomness comes from one Random.
"""

import operator
from collections import deque
from collections.abc import Callable
from random import Random

import attrs
import trio
from trio.abc import HalfCloseableStream

from cluster.ids import NodeId
from cluster.transport.base import PeerDownError, StreamHandler

WINDOW = 256 * 1024


@attrs.define(kw_only=True)
class LinkSettings:
    """One direction between two nodes. Seconds, bytes a second, chances per segment or call."""

    delay: float = 0.001
    jitter: float = 0.001
    loss: float = 0.0
    reset: float = 0.0
    duplicate: float = 0.0
    bandwidth: float = 100e6
    retransmit_seconds: float = 0.05
    idle_seconds: float = 5.0  # a connection that hears nothing for so long is dead
    dial_seconds: float = 1.0
    window: int = WINDOW  # bytes that a sender may be ahead of its reader


@attrs.define(eq=False, slots=False)
class Link:
    """What lies on the way from one node to another."""

    settings: LinkSettings
    rng: Random
    blocked: bool = False
    free_at: float = 0.0
    held: "list[tuple[Pipe, bytes | None]]" = attrs.field(factory=list)
    sent: int = 0

    def send(self, pipe: "Pipe", data: bytes | None) -> None:
        """Put a segment on its way; None: the end of the stream."""
        if self.blocked:
            self.held.append((pipe, data))
        else:
            pipe.arrive_at(self._arrival(len(data or b"")), data)

    def _arrival(self, size: int) -> float:
        settings = self.settings
        self.sent += size
        self.free_at = max(self.free_at, trio.current_time()) + size / settings.bandwidth
        late = settings.delay + settings.jitter * self.rng.random()
        while settings.loss and self.rng.random() < settings.loss:
            late += settings.retransmit_seconds
        return self.free_at + late

    def unblock(self) -> None:
        self.blocked = False
        held, self.held = self.held, []
        for pipe, data in held:
            self.send(pipe, data)


class Pipe:
    """One direction of one stream: segments with the time of their arrival."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.segments: deque[tuple[float, bytes | None]] = deque()
        self.size = 0  # sent and not read
        self.broken = False  # cut: neither side can use it
        self.deaf = False  # the reader has closed
        self.changed = trio.Event()
        self._last = 0.0
        self.mirror: Pipe | None = None

    def wake(self) -> None:
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    def put(self, data: bytes | None) -> None:
        self.size += len(data or b"")
        self.link.send(self, data)
        if self.mirror is not None:
            self.mirror.put(data)

    def arrive_at(self, time: float, data: bytes | None) -> None:
        self._last = max(self._last, time)
        self.segments.append((self._last, data))
        self.wake()

    def break_off(self) -> None:
        self.broken = True
        self.wake()
        if self.mirror is not None:
            self.mirror.break_off()


class SimStream(HalfCloseableStream):
    """One end of a stream."""

    def __init__(self, out: Pipe, into: Pipe, network: "SimNetwork") -> None:
        self._out, self._into, self._network = out, into, network
        self._closed = self._ended = False
        self._sending = self._receiving = False

    async def send_all(self, data) -> None:
        self._claim_sender()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sender()
            view, at = memoryview(bytes(data)), 0
            while at < len(view):
                await self._room()
                piece = view[at : at + WINDOW // 4]
                self._network.maybe_reset(self._out.link, self)
                self._check_sender()
                self._out.put(bytes(piece))
                at += len(piece)
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        self._claim_sender()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sender()
            await self._room()
        finally:
            self._sending = False

    def _claim_sender(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task sends")
        self._sending = True

    async def _room(self) -> None:
        while self._out.size >= self._out.link.settings.window and not self._closed:
            self._check_sender()
            await self._out.changed.wait()
        self._check_sender()

    def _check_sender(self) -> None:
        if self._closed or self._ended:
            raise trio.ClosedResourceError("closed")
        if self._out.broken or self._out.deaf:
            raise trio.BrokenResourceError("the stream was reset")

    async def send_eof(self) -> None:
        self._claim_sender()
        try:
            await trio.lowlevel.checkpoint()
            if self._ended and not self._closed:
                return
            self._check_sender()
            self._ended = True
            self._out.put(None)
        finally:
            self._sending = False

    async def receive_some(self, max_bytes=None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be positive")
        if self._receiving:
            raise trio.BusyResourceError("another task receives")
        self._receiving = True
        try:
            if self._closed or self._into.broken or self._has_arrived():
                await trio.lowlevel.checkpoint()  # otherwise there is one in the wait
            return await self._receive(max_bytes or WINDOW)
        finally:
            self._receiving = False

    async def _receive(self, max_bytes: int) -> bytes:
        pipe = self._into
        while True:
            if self._closed:
                raise trio.ClosedResourceError("closed")
            if self._has_arrived():
                return self._take(max_bytes)
            if pipe.broken:
                raise trio.BrokenResourceError("the stream was reset")
            if pipe.segments:
                with trio.CancelScope(deadline=pipe.segments[0][0]):
                    await pipe.changed.wait()
            else:
                await pipe.changed.wait()

    def _has_arrived(self) -> bool:
        segments = self._into.segments
        return bool(segments) and segments[0][0] <= trio.current_time()

    def _take(self, max_bytes: int) -> bytes:
        pipe = self._into
        time, data = pipe.segments[0]
        if data is None:
            return b""
        if len(data) > max_bytes:
            pipe.segments[0] = (time, data[max_bytes:])
            data = data[:max_bytes]
        else:
            pipe.segments.popleft()
        pipe.size -= len(data)
        pipe.wake()
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._ended and not self._out.broken:
                self._out.put(None)
            self._into.deaf = True
            self._into.wake()
            self._out.wake()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Both directions, on both ends."""
        self._out.break_off()
        self._into.break_off()


class _Connection:
    """Between two nodes: the streams that break together."""

    def __init__(self) -> None:
        self.streams: list[SimStream] = []
        self.is_up = False

    def break_off(self) -> None:
        self.is_up = False
        streams, self.streams = self.streams, []
        for stream in streams:
            stream.reset()


class SimNetwork:
    """All nodes and what lies between them. `nursery` outlives the run."""

    def __init__(
        self,
        rng: Random,
        nursery: trio.Nursery,
        settings: LinkSettings | None = None,
        say: Callable[..., None] = lambda *_: None,
    ) -> None:
        self.rng, self._nursery, self._say = rng, nursery, say
        self.settings = settings if settings is not None else LinkSettings()
        self._links: dict[tuple[NodeId, NodeId], Link] = {}
        self._connections: dict[tuple[NodeId, NodeId], _Connection] = {}
        self._servers: dict[NodeId, tuple[trio.Nursery, StreamHandler]] = {}
        self.duplicates = self.resets = 0

    def transport(self, node: NodeId) -> "SimTransport":
        return SimTransport(self, node)

    def link(self, source: NodeId, target: NodeId) -> Link:
        """One direction, to look at or to change."""
        link = self._links.get((source, target))
        if link is None:
            link = Link(attrs.evolve(self.settings), self.rng)
            self._links[source, target] = link
        return link

    # -- faults

    def block(self, source: NodeId, target: NodeId) -> None:
        """Nothing passes in this direction; after the idle time the connection is dead."""
        link = self.link(source, target)
        if not link.blocked:
            link.blocked = True
            self._say("block", source, target)
            self._nursery.start_soon(self._die_of_idleness, link, source, target)

    async def _die_of_idleness(self, link: Link, source: NodeId, target: NodeId) -> None:
        with trio.move_on_after(link.settings.idle_seconds):
            while link.blocked:  # noqa: ASYNC110 - a simulator may poll
                await trio.sleep(link.settings.idle_seconds / 8)
            return
        link.held.clear()
        self._connection(source, target).break_off()

    def unblock(self, source: NodeId, target: NodeId) -> None:
        link = self.link(source, target)
        if link.blocked:
            self._say("unblock", source, target)
            link.unblock()

    def partition(self, one: NodeId, other: NodeId) -> None:
        self.block(one, other)
        self.block(other, one)

    def heal(self) -> None:
        """Everything passes again."""
        for (source, target), link in sorted(self._links.items()):
            link.settings = attrs.evolve(self.settings)
            self.unblock(source, target)

    def crash(self, node: NodeId) -> None:
        """The node's process is gone, and its connections with it."""
        self._servers.pop(node, None)
        for pair, connection in sorted(self._connections.items()):
            if node in pair:
                connection.break_off()

    def maybe_reset(self, link: Link, stream: SimStream) -> None:
        if link.settings.reset and self.rng.random() < link.settings.reset:
            self.resets += 1
            stream.reset()

    # -- for transports

    def _connection(self, one: NodeId, other: NodeId) -> _Connection:
        pair = (min(one, other), max(one, other))
        return self._connections.setdefault(pair, _Connection())

    async def open_stream(self, source: NodeId, target: NodeId) -> SimStream:
        there, back = self.link(source, target), self.link(target, source)
        connection = self._connection(source, target)
        await trio.lowlevel.checkpoint()
        if not connection.is_up:
            await self._dial(target, there, back)
            connection.is_up = True
        if target not in self._servers:
            raise PeerDownError("connection refused")
        connection.streams = [s for s in connection.streams if not s._closed]
        out, into = Pipe(there), Pipe(back)
        ours, theirs = SimStream(out, into, self), SimStream(into, out, self)
        connection.streams += [ours, theirs]
        nursery, handler = self._servers[target]
        nursery.start_soon(handler, source, theirs)
        if there.settings.duplicate and self.rng.random() < there.settings.duplicate:
            self.duplicates += 1
            out.mirror, unheard = Pipe(there), Pipe(Link(attrs.evolve(self.settings), self.rng))
            again = SimStream(unheard, out.mirror, self)
            connection.streams.append(again)
            nursery.start_soon(handler, source, again)
        return ours

    async def _dial(self, target: NodeId, there: Link, back: Link) -> None:
        settings = there.settings
        await trio.sleep(settings.delay + back.settings.delay)
        if target not in self._servers:
            raise PeerDownError("connection refused")
        with trio.move_on_after(settings.dial_seconds):
            while there.blocked or back.blocked:  # noqa: ASYNC110 - a simulator may poll
                await trio.sleep(settings.dial_seconds / 8)
            return
        raise PeerDownError("no answer to the handshake")

    async def serve(self, node: NodeId, handler: StreamHandler) -> None:
        async with trio.open_nursery() as nursery:
            self._servers[node] = (nursery, handler)
            try:
                await trio.sleep_forever()
            finally:
                if self._servers.get(node, (None,))[0] is nursery:
                    del self._servers[node]


@attrs.frozen
class SimTransport:
    """See cluster.transport.base.Transport."""

    network: SimNetwork
    node: NodeId

    async def open_stream(self, peer: NodeId) -> HalfCloseableStream:
        return await self.network.open_stream(self.node, peer)

    async def serve(self, handler: StreamHandler) -> None:
        await self.network.serve(self.node, handler)
