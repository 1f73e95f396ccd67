"""A drive of another node, behind the one drive interface."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NoReturn, TypeVar

import trio

from cluster.drives import rpc_messages as rpc
from cluster.drives.drive import (
    FULL,
    STAGING,
    Blob,
    DriveError,
    DriveFullError,
    DriveState,
    DriveStatus,
    Stage,
)
from cluster.drives.remote_node import CALL_ERRORS, RemoteNode, ReplyTo
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import DataId, DriveId
from cluster.register.away import Note
from cluster.register.messages import Request
from cluster.transport.base import StreamBrokenError
from cluster.transport.calls import Call
from cluster.wire import MAX_TIMEOUT_MS

_STAGE_SECONDS = MAX_TIMEOUT_MS / 1000  # as long as a client may take to send its body
_LAST_WORD_SECONDS = 1.0
R = TypeVar("R", rpc.Stored, rpc.Blocks, rpc.Digests, rpc.Size, rpc.Status)


class RemoteDrive:
    """See cluster.drives.drive.Drive."""

    def __init__(
        self, node: RemoteNode, drive_id: DriveId, *, set_id: int = 0, position: int = 0
    ) -> None:
        self._node, self._drive_id = node, drive_id
        self._seat = set_id, position

    @property
    def drive_id(self) -> DriveId:
        """Its identity, from the layout."""
        return self._drive_id

    @property
    def state(self) -> DriveState:
        """As the last reply told it; MISSING while the node does not answer."""
        return self._node.state(self._drive_id)

    @property
    def cost(self) -> float:
        """See Drive."""
        return self._node.cost

    def submit(self, request: Request, reply: ReplyTo) -> None:
        """See Drive."""
        self._node.submit(self._drive_id, request, reply)

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """See Drive."""
        if self.state in FULL:
            raise DriveFullError("the drive takes no shards")
        if self.state not in STAGING:
            raise DriveError(self._node.reason or f"the drive is {self.state.value}")
        return _RemoteStage(self._node, self._drive_id, header, size_hint)

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        """See Drive."""
        node = self._node
        word = rpc.ReadBlocks(self._drive_id, rpc.pack_shard(header), first, tuple(lengths))
        with trio.move_on_after(node.settings.call_seconds):
            try:
                async with node.open_call(word, seconds=node.settings.call_seconds) as call:
                    reply = self._take(await node.receive(call), rpc.Blocks)
                    if reply.lengths != word.lengths:
                        raise DriveError("other blocks than were asked for")
                    body = await call.receive_body(sum(lengths))
            except CALL_ERRORS as error:
                raise DriveError(str(error)) from error
            return _check_blocks(header, first, reply, memoryview(body))
        raise DriveError(f"node {node.peer} did not answer in time")

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """See Drive."""
        word = rpc.ReadDigests(self._drive_id, rpc.pack_shard(header), stripes)
        return (await self._ask(word, rpc.Digests)).digests

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """See Drive."""
        return (await self._ask(rpc.StatShard(self._drive_id, data_id, position), rpc.Size)).size

    async def look(self, notes: Sequence[Note]) -> None:
        """See Drive."""
        await self._ask(rpc.Look(self._drive_id, tuple(notes)), rpc.Stored)

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """See Drive. A node that cannot be reached does not hear it: its scrub will find the shard."""
        word = rpc.NoteBad(self._drive_id, rpc.pack_shard(header), reason[:1024])

        async def note() -> None:
            with suppress(DriveError):
                await self._ask(word, rpc.Stored)

        self._node.spawn(note)

    async def status(self) -> DriveStatus:
        """See Drive."""
        try:
            return (await self._ask(rpc.AskStatus(self._drive_id), rpc.Status)).of(self._drive_id)
        except DriveError as error:
            set_id, position = self._seat
            return DriveStatus(
                drive=self._drive_id, path=f"node {self._node.peer}", set_id=set_id, position=position,
                state=DriveState.MISSING, reason=f"node {self._node.peer}: {error}", usage=None, heal_debt=0,
            )  # fmt: skip

    async def _ask(self, word: rpc.RequestWord, kind: type[R]) -> R:
        try:
            reply = await self._node.ask(word)
        except CALL_ERRORS as error:
            raise DriveError(str(error)) from error
        return self._take(reply, kind)

    def _take(self, reply: rpc.ReplyWord, kind: type[R]) -> R:
        return take_reply(self._node, self._drive_id, reply, kind)


def take_reply(node: RemoteNode, drive: DriveId, reply: rpc.ReplyWord, kind: type[R]) -> R:
    """The reply that was to come, with the drive's state noted. Raises DriveError for any other."""
    if isinstance(reply, rpc.Trouble):
        node.note_state(drive, reply.state)
        raise rpc.ERRORS[reply.kind](reply.reason)
    if not isinstance(reply, kind):
        raise DriveError(f"{type(reply).__name__} is no answer to this call")
    node.note_state(drive, reply.state)
    return reply


def _check_blocks(
    header: ShardHeader, first: int, reply: rpc.Blocks, body: memoryview
) -> Sequence[memoryview]:
    blocks = rpc.cut_blocks(header, first, reply.lengths, reply.crcs, body)
    if len(blocks) != len(reply.lengths):
        raise DriveError("blocks without a checksum")
    return blocks


class _RemoteStage:
    """See cluster.drives.drive.Stage. The call opens with the first block."""

    def __init__(
        self, node: RemoteNode, drive: DriveId, header: ShardHeader, size_hint: int
    ) -> None:
        self._node, self._drive, self._header = node, drive, header
        self._size_hint = size_hint
        self._call: Call | None = None
        self._written = 0  # blocks
        self._is_busy = False
        self._is_over = False

    async def write(self, blocks: Sequence[Blob]) -> None:
        """See Stage."""
        async with self._turn() as call:
            for run in _runs(blocks):
                crcs = rpc.block_crcs(self._header, self._written, run)
                order = rpc.StageBlocks(tuple(map(len, run)), crcs)
                await call.send_message(rpc.STAGES.encode(order))
                if not await call.send_body(run):
                    await self._hear_trouble(call)
                self._written += len(run)

    async def close(self, digests: bytes) -> None:
        """See Stage."""
        async with self._turn() as call:
            await call.send_message(rpc.STAGES.encode(rpc.StageClose(digests)), last=True)
            reply = await self._node.receive(call)
            take_reply(self._node, self._drive, reply, rpc.Stored)
            self._is_over = True
            await call.close()

    def abort(self) -> None:
        """See Stage."""
        if self._is_over:
            return
        self._is_over = True
        call = self._call
        # A verb that is under way is being cancelled: it resets the stream itself.
        if call is not None and not self._is_busy:
            self._node.spawn(partial(call.cancel, "aborted"))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Call]:
        """The call, for one verb; whatever goes wrong ends the stage. Raises DriveError."""
        if self._is_over:
            raise DriveError("the stage is over")
        self._is_busy = True
        try:
            if self._call is None:
                word = rpc.OpenStage(self._drive, rpc.pack_shard(self._header), self._size_hint)
                self._call = await self._node.begin_call(word, seconds=_STAGE_SECONDS, last=False)
            try:
                # What is written is not heard of before the close: a peer that is gone would be waited for till then.
                with self._node.while_up():
                    yield self._call
            except StreamBrokenError:
                await self._hear_trouble(self._call)
        except CALL_ERRORS as error:
            await self._break_off()
            raise DriveError(str(error)) from error
        except BaseException:
            await self._break_off()  # noqa: ASYNC102 - shielded in itself
            raise
        finally:
            self._is_busy = False

    async def _break_off(self) -> None:
        self._is_over = True
        if self._call is not None:
            await self._call.abandon()

    async def _hear_trouble(self, call: Call) -> NoReturn:
        """The peer has ended the stage: it may have said why, before or after it stopped listening."""
        with trio.move_on_after(_LAST_WORD_SECONDS):
            reply = await self._node.receive(call)
            take_reply(self._node, self._drive, reply, rpc.Stored)
        raise DriveError("the stage was ended by its node")


def _runs(blocks: Sequence[Blob]) -> Iterator[Sequence[Blob]]:
    """Blocks in runs that may be announced at once."""
    run: list[Blob] = []
    size = 0
    for block in blocks:
        if run and (size + len(block) > rpc.MAX_RUN or len(run) == rpc.MAX_BLOCKS):
            yield run
            run, size = [], 0
        run.append(block)
        size += len(block)
    if run:
        yield run
