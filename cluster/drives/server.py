"""What this node does for others, its drives above all: one call, one stream, carried out at most once."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import attrs
import trio
from trio.abc import HalfCloseableStream

from cluster.clock import HybridClock
from cluster.drives import rpc_messages as rpc
from cluster.drives.carry_out import Batch, Caller, use_drive
from cluster.drives.drive import MarkedDrive
from cluster.ids import ClusterId, DriveId, NodeId
from cluster.membership.messages import HeartbeatError
from cluster.runtime import Runtime
from cluster.transport.base import TransportError
from cluster.transport.calls import Call
from cluster.transport.framing import FramingError
from cluster.transport.replay import ReplayGuard
from cluster.wire import Header, Refusal, Refused, WireError, judge, make_header, merge

OnGossip = Callable[[NodeId, bytes], Awaitable[bytes]]


@attrs.frozen
class CallMalformed:
    """Event: a peer sent what the protocol does not allow."""

    peer: NodeId
    reason: str


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Bounds."""

    max_calls: int = 1024  # under way at once, from all peers
    first_message_seconds: float = 10.0


class DriveServer:
    """Answers calls. Give `handle` to Transport.serve."""

    def __init__(
        self,
        *,
        cluster: ClusterId,
        node: NodeId,
        epoch: Callable[[], int],
        drives: Callable[[], Mapping[DriveId, MarkedDrive]],
        clock: HybridClock,
        runtime: Runtime,
        is_member: Callable[[NodeId], bool] = lambda _: True,
        on_newer: Callable[[NodeId], None] = lambda _: None,
        on_gossip: OnGossip | None = None,
        settings: ServerSettings | None = None,
        forget: Callable[[Sequence[bytes]], None] = lambda _names: None,
    ) -> None:
        """`on_newer` is told of a peer with a newer layout than ours, `forget` which system documents one has changed."""
        self._is_member, self._on_newer, self._on_gossip = is_member, on_newer, on_gossip
        self.forget = forget
        self._cluster, self._node, self._epoch = cluster, node, epoch
        self._drives, self._clock, self._runtime = drives, clock, runtime
        self._settings = settings if settings is not None else ServerSettings()
        self._guards: dict[NodeId, ReplayGuard] = {}
        self._under_way = 0

    async def handle(self, peer: NodeId, stream: HalfCloseableStream) -> None:
        """Carry out the call of one stream. Raises nothing that a peer could cause."""
        call = Call(stream)
        self._under_way += 1
        try:
            request = None
            with trio.move_on_after(self._settings.first_message_seconds):
                request = rpc.REQUESTS.decode(await call.receive_message())
            if request is not None:
                await self._answer(peer, call, request)
        except (FramingError, WireError) as error:
            self._runtime.emit(CallMalformed(peer, str(error)))
        except TransportError:
            pass  # the caller has gone, and with it whoever wanted to know
        finally:
            self._under_way -= 1
            await call.abandon()  # noqa: ASYNC102 - shielded in itself

    async def _answer(self, peer: NodeId, call: Call, request: rpc.RequestMessage) -> None:
        caller = Caller(call, partial(self._header, request.header))
        refused = self._refuse(peer, request)
        if refused is not None:
            await caller.reply(refused, last=True)
            await call.close()
            return
        with trio.move_on_after(request.header.timeout_ms / 1000) as patience:
            await self._carry_out(peer, caller, request.word)
            await call.close()
        if patience.cancelled_caught:
            await call.cancel("the caller's time is over")

    def _refuse(self, peer: NodeId, request: rpc.RequestMessage) -> Refused | None:
        header, now = request.header, self._runtime.wall_ms()
        refused = judge(header, cluster=self._cluster, wall_ms=now)
        if header.cluster == self._cluster:
            merge(header, self._clock, now)
        if refused is not None:
            return refused
        if header.source != peer:
            return Refused(Refusal.MALFORMED, f"the header names node {header.source}")
        if not self._guards.setdefault(peer, ReplayGuard()).is_new(header.start, header.number):
            return Refused(Refusal.REPEATED, "this call came before")
        if self._under_way > self._settings.max_calls:
            return Refused(Refusal.OVERLOADED, f"{self._under_way} calls are under way")
        if header.epoch > self._epoch():
            self._on_newer(peer)
        # Gossip is how whoever missed a layout, or its own end, comes to know of it.
        if not self._is_member(peer) and not isinstance(request.word, rpc.Gossip):
            return Refused(Refusal.STRANGER, f"node {peer} is not in layout {self._epoch()}")
        return None

    def _header(self, request: Header) -> Header:
        return make_header(
            cluster=self._cluster, epoch=self._epoch(), source=self._node, now=self._clock.tick(),
            start=request.start, number=request.number,
        )  # fmt: skip

    async def _carry_out(self, peer: NodeId, caller: Caller, word: rpc.RequestWord) -> None:
        if isinstance(word, rpc.Gossip):
            if self._on_gossip is None:
                raise WireError("this node does not gossip")
            try:
                answer = await self._on_gossip(peer, word.heartbeat)
            except HeartbeatError as error:
                raise WireError(str(error)) from error
            await caller.reply(rpc.Gossiped(answer), last=True)
        elif isinstance(word, rpc.Submit):
            await Batch(self._drives(), word).run(caller)
        elif isinstance(word, rpc.Ping):
            await caller.reply(self._compare(word.marks), last=True)
        elif isinstance(word, rpc.Forget):
            self.forget(word.names)
            await caller.reply(rpc.Noted(), last=True)
        else:
            drive = self._drives().get(DriveId(word.drive))
            if drive is None:
                trouble = rpc.Trouble(rpc.TroubleKind.FAILED, "the node has no such drive", None)
                await caller.reply(trouble, last=True)
            else:
                await use_drive(caller, drive, word)

    def _compare(self, remembered: rpc.Marks) -> rpc.Pong:
        """What a peer remembers of our drives with what they remember themselves."""
        drives = self._drives()
        for drive_id, mark in remembered.items():
            drive = drives.get(DriveId(drive_id))
            if drive is not None:
                drive.confront(mark)
        states = {bytes(drive_id): drive.state for drive_id, drive in drives.items()}
        marks = {bytes(i): drive.mark for i, drive in drives.items() if drive.mark is not None}
        return rpc.Pong(states, marks)
