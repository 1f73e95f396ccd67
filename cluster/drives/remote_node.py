"""Another node as a holder of drives: calls to it, one batch of register operations a tick, and whether it answers."""

import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count

import attrs
import trio

from cluster.clock import HybridClock
from cluster.drives import rpc_messages as rpc
from cluster.drives.drive import DriveState
from cluster.drives.nearness import Latency
from cluster.ids import ClusterId, DriveId, NodeId
from cluster.register.messages import Failed, Reply, Request
from cluster.runtime import Runtime
from cluster.transport.base import PeerDownError, Transport, TransportError
from cluster.transport.calls import Call
from cluster.transport.framing import MAX_MESSAGE, FramingError
from cluster.transport.register_codec import pack_request, unpack_reply
from cluster.wire import Header, Refused, WireError, make_header, merge

ReplyTo = Callable[[Reply], None]


class RefusedError(TransportError):
    """The peer did not carry the call out."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{refused.kind.value}: {refused.detail}")
        self.kind = refused.kind


class TooLargeError(WireError):
    """The request is larger than a message may be."""


CALL_ERRORS = (TransportError, FramingError, WireError)


@attrs.frozen(kw_only=True)
class Identity:
    """Who calls, and under which layout."""

    cluster: ClusterId
    node: NodeId
    epoch: Callable[[], int]
    start: int  # random per process start, 63 bits
    on_newer: Callable[[NodeId], None] = lambda _: None  # a peer goes by a newer layout


@attrs.frozen
class PeerChanged:
    """Event: a peer begins or ceases to answer."""

    peer: NodeId
    is_up: bool
    reason: str


@attrs.frozen(kw_only=True)
class PeerSettings:
    """Seconds, and bounds."""

    call_seconds: float = 30.0
    ping_seconds: float = 1.0
    ping_timeout_seconds: float = 3.0
    max_waiting: int = 4096  # register operations that are queued or unanswered


@attrs.frozen
class _Waiting:
    drive: DriveId
    request: Request
    reply: ReplyTo


class RemoteNode:
    """A peer's drives. `run` must be running; before its first answer the peer counts as down."""

    def __init__(
        self,
        transport: Transport,
        peer: NodeId,
        *,
        me: Identity,
        clock: HybridClock,
        runtime: Runtime,
        numbers: "count[int]",
        settings: PeerSettings | None = None,
    ) -> None:
        """`numbers` counts the calls of this process to all peers."""
        self._transport, self.peer, self._me = transport, peer, me
        self._clock, self._runtime, self._numbers = clock, runtime, numbers
        self.settings = settings if settings is not None else PeerSettings()
        self._queue: list[_Waiting] = []
        self._unanswered = 0
        self._wanted = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._states: dict[DriveId, DriveState] = {}
        self._marks: rpc.Marks = {}
        self.is_up, self.reason = False, f"node {peer} has not answered yet"
        self._latency = Latency()
        self._while_up: set[trio.CancelScope] = set()
        self._changed = trio.Event()

    # -- what is known

    def state(self, drive: DriveId) -> DriveState:
        """What the drive can do, as far as we know."""
        if not self.is_up:
            return DriveState.MISSING
        return self._states.get(drive, DriveState.MISSING)

    @property
    def cost(self) -> float:
        """Smoothed seconds of a round trip; inf while the peer does not answer."""
        return self._latency.seconds if self.is_up else math.inf

    def note_state(self, drive: DriveId, state: DriveState | None) -> None:
        """A reply has told the drive's state."""
        if state is not None:
            self._states[drive] = state

    def _remember(self, pong: rpc.Pong) -> None:
        """The highest number of each drive, whichever life it is from: one that has forgotten something is told so in every life.

        The life that the peer tells of now has been confronted with them before it answered.
        """
        known = self._marks
        self._marks = {
            drive: mark._replace(durable=max(mark.durable, known.get(drive, mark).durable))
            for drive, mark in (known | pong.marks).items()
            if drive in pong.states
        }

    async def wait_up(self) -> None:
        """Until the peer answers."""
        while not self.is_up:
            await self._changed.wait()

    def _set_up(self, *, is_up: bool, reason: str) -> None:
        if is_up is not self.is_up:
            self.is_up, self.reason = is_up, reason
            if not is_up:
                for scope in self._while_up:
                    scope.cancel()
            self._runtime.emit(PeerChanged(self.peer, is_up, reason))
            changed, self._changed = self._changed, trio.Event()
            changed.set()

    @contextmanager
    def while_up(self) -> Iterator[None]:
        """Cancel the block when the peer ceases to answer. Raises PeerDownError then, or at once."""
        if not self.is_up:
            raise PeerDownError(self.reason)
        with trio.CancelScope() as scope:
            self._while_up.add(scope)
            try:
                yield
            finally:
                self._while_up.discard(scope)
        if scope.cancelled_caught:
            raise PeerDownError(self.reason)

    # -- calls

    @asynccontextmanager
    async def open_call(self, word: rpc.RequestWord, *, seconds: float) -> AsyncIterator[Call]:
        """Send a request without a body, receive within the block; raises CALL_ERRORS."""
        call = await self.begin_call(word, seconds=seconds, last=True)
        try:
            yield call
        finally:
            await call.abandon()  # noqa: ASYNC102 - shielded in itself

    async def begin_call(self, word: rpc.RequestWord, *, seconds: float, last: bool) -> Call:
        """Send a request. The call is the caller's to end."""
        message = rpc.REQUESTS.encode(rpc.RequestMessage(self._header(seconds), word))
        if len(message) > MAX_MESSAGE:
            raise TooLargeError(f"a request of {len(message)} bytes")
        try:
            call = Call(await self._transport.open_stream(self.peer))
        except PeerDownError as error:
            self._set_up(is_up=False, reason=f"node {self.peer} cannot be reached: {error}")
            raise
        try:
            await call.send_message(message, last=last)
        except BaseException:
            await call.abandon()  # noqa: ASYNC102 - shielded in itself
            raise
        return call

    async def ask(self, word: rpc.RequestWord) -> rpc.ReplyWord:
        """One request, one reply. Raises CALL_ERRORS."""
        with trio.move_on_after(self.settings.call_seconds):
            async with self.open_call(word, seconds=self.settings.call_seconds) as call:
                return await self.receive(call)
        raise TransportError(f"node {self.peer} did not answer in time")

    async def forget(self, names: Sequence[bytes]) -> None:
        """Tell the peer that these system documents have changed. Raises CALL_ERRORS."""
        await self.ask(rpc.Forget(tuple(names)))

    async def receive(self, call: Call) -> rpc.ReplyWord:
        """The next reply. Raises CALL_ERRORS; RefusedError for a call that was not carried out."""
        return self._read_reply(await call.receive_message())

    def _read_reply(self, payload: bytes) -> rpc.ReplyWord:
        message = rpc.REPLIES.decode(payload)
        is_ours = message.header.cluster == self._me.cluster
        if is_ours:
            merge(message.header, self._clock, self._runtime.wall_ms())
            if message.header.epoch > self._me.epoch():
                self._me.on_newer(self.peer)
        if isinstance(message.word, Refused):
            raise RefusedError(message.word)
        if not is_ours:
            raise WireError("the reply comes from another cluster")
        return message.word

    def _header(self, seconds: float) -> Header:
        me = self._me
        return make_header(
            cluster=me.cluster, epoch=me.epoch(), source=me.node, now=self._clock.tick(),
            start=me.start, number=next(self._numbers), timeout_ms=int(seconds * 1000),
        )  # fmt: skip

    def spawn(self, work: Callable[[], object]) -> None:
        """Run an async function beside all else; not at all once `run` has ended."""
        if self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
            self._nursery.start_soon(work)  # type: ignore[arg-type]

    # -- register operations

    def submit(self, drive: DriveId, request: Request, reply: ReplyTo) -> None:
        """See Drive. What is submitted in one tick of Trio goes out as one call."""
        if not self.is_up:
            reply(Failed(self.reason))
        elif self._unanswered >= self.settings.max_waiting:
            reply(Failed(f"{self._unanswered} operations wait for node {self.peer}"))
        else:
            self._unanswered += 1
            self._queue.append(_Waiting(drive, request, reply))
            self._wanted.set()

    async def run(self) -> None:
        """Send what is submitted, and ping; until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._ping)
                while True:
                    await self._wanted.wait()
                    self._wanted = trio.Event()
                    queue, self._queue = self._queue, []
                    for start in range(0, len(queue), rpc.MAX_OPERATIONS):
                        batch = queue[start : start + rpc.MAX_OPERATIONS]
                        self._nursery.start_soon(self._exchange, batch)
        finally:
            self._nursery = None

    async def _exchange(self, batch: Sequence[_Waiting]) -> None:
        exchange = _Exchange(self, batch)
        try:
            with trio.move_on_after(self.settings.call_seconds):
                await exchange.run()
        except TooLargeError as error:
            await self._exchange_halves(batch, exchange, error)
        except CALL_ERRORS as error:
            # The operations may have had their effect; a proposer counts Failed as "no answer that helps".
            exchange.fail(Failed(str(error)))
        self._unanswered -= len(batch)

    async def _exchange_halves(
        self, batch: Sequence[_Waiting], exchange: "_Exchange", error: TooLargeError
    ) -> None:
        half = len(batch) // 2
        if half == 0:
            exchange.fail(Failed(str(error)))
            return
        self._unanswered += len(batch)  # each half counts itself out
        await self._exchange(batch[:half])
        await self._exchange(batch[half:])

    async def _ping(self) -> None:
        settings = self.settings
        while True:
            reason = f"node {self.peer} does not answer"
            pong: rpc.ReplyWord | None = None
            asked_at = trio.current_time()
            with trio.move_on_after(settings.ping_timeout_seconds):
                try:
                    async with self.open_call(
                        rpc.Ping(self._marks), seconds=settings.ping_timeout_seconds
                    ) as call:
                        pong = await self.receive(call)
                except CALL_ERRORS as error:
                    reason = f"node {self.peer} does not answer: {error}"
            if isinstance(pong, rpc.Pong):
                self._latency.note(trio.current_time() - asked_at)
                self._states = {DriveId(drive): state for drive, state in pong.states.items()}
                self._remember(pong)
                self._set_up(is_up=True, reason="")
            else:
                self._set_up(is_up=False, reason=reason)
            await trio.sleep(settings.ping_seconds)


class _Exchange:
    """One batch on its way: grouped by request, so that what is meant for several drives is sent once."""

    def __init__(self, node: RemoteNode, batch: Sequence[_Waiting]) -> None:
        self._node = node
        # A proposer submits one message object to all drives.
        groups: dict[int, list[_Waiting]] = {}
        for waiting in batch:
            groups.setdefault(id(waiting.request), []).append(waiting)
        self._groups = list(groups.values())
        self._open = {
            (index, place): waiting
            for index, group in enumerate(self._groups)
            for place, waiting in enumerate(group)
        }

    async def run(self) -> None:
        """Until all are answered. Raises CALL_ERRORS."""
        node, seconds = self._node, self._node.settings.call_seconds
        word = rpc.Submit(tuple(self._pack(group) for group in self._groups))
        async with node.open_call(word, seconds=seconds) as call:
            while self._open:
                reply = await node.receive(call)
                if not isinstance(reply, rpc.Answers):
                    raise WireError(f"{type(reply).__name__} is no answer to operations")
                for answer in reply.answers:
                    self._take(answer)

    @staticmethod
    def _pack(group: Sequence[_Waiting]) -> rpc.Operation:
        return rpc.Operation(tuple(w.drive for w in group), pack_request(group[0].request))

    def _take(self, answer: rpc.Answer) -> None:
        reply = unpack_reply(answer.reply)
        waiting = self._open.pop((answer.operation, answer.drive), None)
        if waiting is None:
            raise WireError("an answer that nobody waits for")
        self._node.note_state(waiting.drive, answer.state)
        waiting.reply(reply)

    def fail(self, reply: Reply) -> None:
        """Give all that still wait the same answer."""
        left, self._open = list(self._open.values()), {}
        for waiting in left:
            waiting.reply(reply)
