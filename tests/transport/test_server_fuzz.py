"""Whatever well-framed, well-typed calls a peer makes: the node answers or ends the call, and goes on."""

import string
from random import Random

import msgspec
import trio

from cluster.clock import HybridClock
from cluster.drives import rpc_messages as rpc
from cluster.drives.server import DriveServer
from cluster.ids import DriveId, NodeId
from cluster.register.away import Note
from cluster.transport.base import TransportError
from cluster.transport.calls import Call
from cluster.transport.framing import FramingError, Message
from cluster.transport.register_codec import pack_request
from cluster.wire import Header
from tests.contracts.benches import LocalBench, MemoryBench
from tests.sim.network import LinkSettings, SimNetwork
from tests.transport.test_register_codec import REQUESTS, ROW

CALLS = 300
CLUSTER = b"c" * 16


def numbers(rng):
    return rng.choice(
        [0, 1, 2, 5, 31, 32, 255, 65535, 65536, 1 << 32, (1 << 48) - 1, (1 << 63) - 1]
    )


def bend(value, rng):
    """A value of the same type, often at a bound."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return numbers(rng)
    if isinstance(value, bytes):
        return rng.choice(
            [rng.randbytes(len(value)), b"", bytes(len(value)), value + b"\xff", value[:-1]]
        )
    if isinstance(value, str):
        return "".join(rng.choices(string.printable + "é✓", k=rng.choice([0, 3, 24])))
    if isinstance(value, list) and value:
        changed = list(value)
        index = rng.randrange(len(changed))
        changed[index] = bend(changed[index], rng)
        return changed
    return value


def requests(drive, rng):
    shard = rpc.Shard(
        rng.choice([b"d" * 16, rng.randbytes(16)]), ROW, 0, 4, 2, 65536, "isa_l_rs_cauchy/8"
    )
    yield rpc.Submit(
        tuple(rpc.Operation((drive,), pack_request(r)) for r in rng.sample(REQUESTS, 2))
    )
    yield rpc.OpenStage(drive, shard, 100)
    yield rpc.ReadBlocks(drive, shard, 0, (10, 65536))
    yield rpc.ReadDigests(drive, shard, 3)
    yield rpc.StatShard(drive, shard.data_id, 0)
    yield rpc.NoteBad(drive, shard, "why")
    yield rpc.AskStatus(drive)
    yield rpc.Look(drive, (Note(shard.data_id, 0, 1, ROW, bytes(16), b"", False, False, 1),))
    yield rpc.Forget((b"access/user/ann",))


async def call_at_random(network, drive, number, rng, heard):
    header = Header(CLUSTER, 1, 1, 5, 0, 1, number, 500)
    word = rng.choice(list(requests(drive, rng)))
    whole = msgspec.msgpack.decode(rpc.REQUESTS.encode(rpc.RequestMessage(header, word)))
    tag = whole[1][0]
    for _ in range(rng.randint(0, 2)):
        whole[1] = [tag, *bend(whole[1], rng)[1:]]
    call = Call(await network.transport(NodeId(1)).open_stream(NodeId(2)))
    try:
        await call.send_message(msgspec.msgpack.encode(whole))
        if isinstance(word, rpc.OpenStage):
            for _ in range(rng.randint(0, 3)):
                body = rng.randbytes(rng.choice([0, 1, 70_000]))
                order = rpc.StageBlocks((len(body),), (rng.randbytes(4),))
                await call.send_message(rpc.STAGES.encode(order))
                await call.send_body([body] if body else [])
            if rng.random() < 0.5:
                await call.send_message(rpc.STAGES.encode(rpc.StageClose(rng.randbytes(16))))
        await call.end()
        with trio.move_on_after(2):
            while True:
                event = await call.receive()
                if isinstance(event, Message):
                    heard.add(type(rpc.REPLIES.decode(event.payload).word))
    except (TransportError, FramingError):
        pass
    finally:
        await call.abandon()


async def fuzz(bench, seed):
    rng, heard = Random(seed), set()
    async with bench.open() as drive, trio.open_nursery() as nursery:
        network = SimNetwork(rng, nursery, LinkSettings(delay=0, jitter=0.0001))
        server = DriveServer(
            cluster=CLUSTER, node=NodeId(2), epoch=lambda: 1, drives=lambda: {DriveId(drive.drive_id): drive},
            clock=HybridClock(bench.runtime.wall_ms, 2), runtime=bench.runtime,
        )  # fmt: skip
        nursery.start_soon(network.transport(NodeId(2)).serve, server.handle)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as calls:
            for number in range(CALLS):
                calls.start_soon(call_at_random, network, drive.drive_id, number, rng, heard)
                if number % 20 == 0:
                    await trio.sleep(0.01)
        assert server._under_way == 0
        assert (await drive.status()).heal_debt >= 0
        # Some calls were sound enough to reach the drive.
        assert heard >= {rpc.Answers, rpc.Size, rpc.Status, rpc.Stored, rpc.Trouble}
        nursery.cancel_scope.cancel()


async def test_no_call_brings_a_node_with_a_memory_drive_down():
    for seed in range(3):
        await fuzz(MemoryBench(), seed)


async def test_no_call_brings_a_node_with_a_real_drive_down(tmp_path):
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        await fuzz(LocalBench(folder), seed)
