"""What one call of another node does on the drives of this one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs
import trio

from cluster.drives import rpc_messages as rpc
from cluster.drives.drive import Drive, DriveError
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import DataId, DriveId
from cluster.register.messages import Failed, Page, Reply
from cluster.transport.calls import Call
from cluster.transport.framing import MAX_MESSAGE, Message
from cluster.transport.register_codec import fit_page, pack_reply, unpack_request
from cluster.wire import Header, WireError


@attrs.frozen
class Caller:
    """Who waits for the answer. `header` draws a fresh one for every message."""

    call: Call
    header: Callable[[], Header]

    async def reply(self, word: rpc.ReplyWord, *, last: bool = False) -> None:
        """Send one word."""
        message = rpc.REPLIES.encode(rpc.ReplyMessage(self.header(), word))
        await self.call.send_message(message, last=last)

    async def answer(self, answers: Sequence[rpc.Answer], *, last: bool) -> None:
        """Send answers, in as many messages as their size asks for."""
        message = rpc.REPLIES.encode(rpc.ReplyMessage(self.header(), rpc.Answers(tuple(answers))))
        if len(message) <= MAX_MESSAGE:
            await self.call.send_message(message, last=last)
        elif len(answers) > 1:
            half = len(answers) // 2
            await self.answer(answers[:half], last=False)
            await self.answer(answers[half:], last=last)
        else:
            one = answers[0]
            failed = pack_reply(Failed(f"the answer has {len(message)} bytes"))
            await self.answer([rpc.Answer(one.operation, one.drive, one.state, failed)], last=last)


class Batch:
    """Register operations of one call: submitted at once, answered as the drives answer."""

    def __init__(self, drives: Mapping[DriveId, Drive], word: rpc.Submit) -> None:
        self._drives, self._word = drives, word
        self._answers: list[rpc.Answer] = []
        self._more = trio.Event()

    async def run(self, caller: Caller) -> None:
        """Until all are answered, or nobody waits any more. Raises WireError, TransportError."""
        # Everything is checked before anything has an effect.
        requests = [unpack_request(operation.request) for operation in self._word.operations]
        left = 0
        for index, operation in enumerate(self._word.operations):
            for place, drive_id in enumerate(operation.drives):
                left += 1
                drive = self._drives.get(DriveId(drive_id))
                take = partial(self._take, index, place, drive)
                if drive is None:
                    take(Failed("the node has no such drive"))
                else:
                    drive.submit(requests[index], take)
        async with caller.call.while_wanted():
            while left:
                await self._more.wait()
                self._more = trio.Event()
                answers, self._answers = self._answers, []
                left -= len(answers)
                await caller.answer(answers, last=not left)

    def _take(self, index: int, place: int, drive: Drive | None, reply: Reply) -> None:
        if isinstance(reply, Page):
            reply = fit_page(reply, rpc.MAX_BATCH)
        state = None if drive is None else drive.state
        self._answers.append(rpc.Answer(index, place, state, pack_reply(reply)))
        self._more.set()


_Question = rpc.ReadDigests | rpc.StatShard | rpc.NoteBad | rpc.AskStatus | rpc.Look


async def use_drive(
    caller: Caller, drive: Drive, word: rpc.OpenStage | rpc.ReadBlocks | _Question
) -> None:
    """Carry out a verb of one drive, and reply. Raises WireError, FramingError, TransportError."""
    try:
        if isinstance(word, rpc.OpenStage):
            await _write_shard(caller, drive, word)
        elif isinstance(word, rpc.ReadBlocks):
            await _read_shard(caller, drive, word)
        else:
            async with caller.call.while_wanted():
                reply = await _ask(drive, word)
            await caller.reply(reply, last=True)
    except DriveError as error:
        await caller.reply(rpc.pack_error(error, drive.state), last=True)


async def _ask(drive: Drive, word: _Question) -> rpc.ReplyWord:
    match word:
        case rpc.ReadDigests():
            digests = await drive.read_digests(word.shard.header, word.stripes)
            return rpc.Digests(drive.state, digests)
        case rpc.StatShard():
            size = await drive.stat_shard(DataId(word.data_id), word.position)
            return rpc.Size(drive.state, size)
        case rpc.NoteBad():
            drive.note_bad_shard(word.shard.header, word.reason)
            return rpc.Stored(drive.state)
        case rpc.Look():
            await drive.look(word.notes)
            return rpc.Stored(drive.state)
        case rpc.AskStatus():
            return rpc.pack_status(await drive.status())


async def _read_shard(caller: Caller, drive: Drive, word: rpc.ReadBlocks) -> None:
    header = word.shard.header
    if sum(word.lengths) > rpc.MAX_READ:
        raise WireError(f"a read of {sum(word.lengths)} bytes")
    async with caller.call.while_wanted():
        blocks = await drive.read_blocks(header, word.first, word.lengths)
    crcs = rpc.block_crcs(header, word.first, blocks)
    lengths = tuple(map(len, blocks))
    await caller.reply(rpc.Blocks(drive.state, lengths, crcs))
    if await caller.call.send_body(blocks):
        await caller.call.end()


async def _write_shard(caller: Caller, drive: Drive, word: rpc.OpenStage) -> None:
    header, written = word.shard.header, 0
    stage = drive.open_stage(header, word.size_hint)
    try:
        while True:
            event = await caller.call.receive()
            if not isinstance(event, Message):
                return  # the caller has ended without a close: it wants no shard
            order = rpc.STAGES.decode(event.payload)
            if isinstance(order, rpc.StageClose):
                async with caller.call.while_wanted():
                    await stage.close(order.digests)
                await caller.reply(rpc.Stored(drive.state), last=True)
                return
            await stage.write(await _receive_blocks(caller.call, header, written, order))
            await caller.call.grant(sum(order.lengths))
            written += len(order.lengths)
    finally:
        stage.abort()


async def _receive_blocks(
    call: Call, header: ShardHeader, first: int, order: rpc.StageBlocks
) -> list[memoryview]:
    """Blocks that a message has announced. Their credit is granted when they are written, not before."""
    size = sum(order.lengths)
    if size > rpc.MAX_RUN or len(order.crcs) != len(order.lengths):
        raise WireError(f"{len(order.lengths)} blocks of {size} bytes")
    body = memoryview(await call.receive_body(size, grant=False))
    return rpc.cut_blocks(header, first, order.lengths, order.crcs, body)
