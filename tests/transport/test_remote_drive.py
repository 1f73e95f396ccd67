"""Calls between nodes: refused before they act, carried out once, coalesced, bounded, and never waited for in vain."""

from itertools import count
from random import Random

import attrs
import pytest
import trio

from cluster.clock import BALLOT_ZERO, Ballot, HybridClock
from cluster.drives import rpc_messages as rpc
from cluster.drives.client import RemoteDrive
from cluster.drives.drive import DriveError, DriveState, ShardMissingError
from cluster.drives.memory_drive import MemoryDrive
from cluster.drives.remote_node import Identity, PeerSettings, RefusedError, RemoteNode
from cluster.drives.server import CallMalformed, DriveServer, NewerLayoutSeen, ServerSettings
from cluster.ids import BucketId, ClusterId, DriveId, NodeId, RowKey
from cluster.register.keys import object_row
from cluster.register.messages import (
    Accept,
    Accepted,
    Failed,
    Prepare,
    Promise,
    Query,
    StaleEpoch,
    Value,
)
from cluster.register.records import BodyId, BodyRef, KeyState
from cluster.transport.base import StreamBrokenError
from cluster.transport.calls import Call
from cluster.transport.framing import INITIAL_CREDIT
from cluster.wire import MAX_AHEAD_MS, Refusal
from tests.contracts.benches import header, stage, version
from tests.sim.network import LinkSettings, SimNetwork
from tests.sim.run import SimRuntime, simulate

CLUSTER = ClusterId(b"c" * 16)
HERE, THERE = NodeId(1), NodeId(2)
ROW = object_row(BucketId(b"b" * 16), b"key")
QUERY = Query(row=ROW, epoch=1, bucket_epoch=0)


@attrs.define
class Pair:
    """A node that asks, and one with two drives that answers."""

    network: SimNetwork
    nursery: trio.Nursery
    bare: list[MemoryDrive]
    server: DriveServer
    node: RemoteNode
    drives: list[RemoteDrive]
    here: SimRuntime
    there: SimRuntime
    here_clock: HybridClock
    there_clock: HybridClock
    epochs: dict[NodeId, int]

    def caller(self, **changes):
        """A node like ours, but."""
        me = Identity(cluster=CLUSTER, node=HERE, epoch=lambda: self.epochs[HERE], start=2)
        return RemoteNode(
            self.network.transport(HERE), THERE, me=attrs.evolve(me, **changes),
            clock=self.here_clock, runtime=self.here, numbers=count(),
        )  # fmt: skip


def between_two_nodes(*, ahead_ms=0, links=None, settings=None, bounds=None):
    """A test in virtual time with a Pair whose asking node's wall clock is so far ahead."""

    def decorate(test):
        def run():
            async def main(rng, trace):
                async with trio.open_nursery() as nursery:
                    pair = open_pair(rng, nursery, ahead_ms, links, settings, bounds)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(pair.node.run)
                    if ahead_ms <= MAX_AHEAD_MS:
                        await pair.node.wait_up()
                    await test(pair)
                    nursery.cancel_scope.cancel()

            simulate(main, seed=1, limit=10_000)

        run.__name__ = test.__name__
        return run

    return decorate


def open_pair(rng, nursery, ahead_ms, links, settings, bounds):
    network = SimNetwork(rng, nursery, links)
    here, there = SimRuntime(Random(1), offset_ms=ahead_ms), SimRuntime(Random(2))
    here_clock, there_clock = HybridClock(here.wall_ms, 1), HybridClock(there.wall_ms, 2)
    epochs = {HERE: 1, THERE: 1}
    bare = [MemoryDrive(DriveId(bytes([i]) * 16), there, nursery, position=i) for i in range(2)]
    server = DriveServer(
        cluster=CLUSTER, node=THERE, epoch=lambda: epochs[THERE], runtime=there, clock=there_clock,
        drives={drive.drive_id: drive for drive in bare}, settings=bounds,
    )  # fmt: skip
    nursery.start_soon(network.transport(THERE).serve, server.handle)
    node = RemoteNode(
        network.transport(HERE), THERE, clock=here_clock, runtime=here, numbers=count(), settings=settings,
        me=Identity(cluster=CLUSTER, node=HERE, epoch=lambda: epochs[HERE], start=1),
    )  # fmt: skip
    drives = [RemoteDrive(node, drive.drive_id, position=i) for i, drive in enumerate(bare)]
    return Pair(
        network, nursery, bare, server, node, drives, here, there, here_clock, there_clock, epochs
    )


class Answers(list):
    """Replies as they come."""

    def __init__(self):
        self.more = trio.Event()

    def __call__(self, reply):
        self.append(reply)
        self.more.set()

    async def first(self, seconds=10):
        with trio.fail_after(seconds):
            await self.more.wait()
        return self[0]


async def ask(drive, request=QUERY):
    answers = Answers()
    drive.submit(request, answers)
    return await answers.first()


# -- what headers are for


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"cluster": ClusterId(b"x" * 16)}, Refusal.WRONG_CLUSTER),
        ({"epoch": lambda: 0}, Refusal.STALE_EPOCH),
        ({"node": NodeId(9)}, Refusal.MALFORMED),
    ],
    ids=lambda value: getattr(value, "value", ""),
)
def test_a_call_with_a_wrong_header_is_refused_and_told_why(changes, kind):
    @between_two_nodes()
    async def test(pair):
        drive = pair.bare[0]
        caller = pair.caller(**changes)
        accepting = Accept(
            row=ROW,
            ballot=Ballot(1, 0, 0),
            epoch=1,
            bucket_epoch=0,
            base=BALLOT_ZERO,
            state=KeyState(),
        )
        pair.nursery.start_soon(caller.run)
        caller.is_up = True
        await ask(RemoteDrive(caller, drive.drive_id), accepting)
        await trio.sleep(1)
        assert drive.platter.rows == {}
        with pytest.raises(RefusedError) as caught:
            await caller.ask(rpc.Ping())
        assert caught.value.kind is kind

    test()


@between_two_nodes()
async def test_a_layout_that_is_too_old_is_answered_with_the_newer_epoch(pair):
    pair.epochs[THERE] = 7
    assert await ask(pair.drives[0]) == StaleEpoch(7)


@between_two_nodes()
async def test_a_newer_layout_of_a_peer_is_noticed(pair):
    pair.epochs[HERE] = 3
    await pair.node.ask(rpc.Ping())
    assert NewerLayoutSeen(HERE, 3) in pair.there.events


@between_two_nodes(ahead_ms=50_000)
async def test_clocks_merge_in_both_directions(pair):
    assert pair.there_clock.tick() > Ballot(pair.here.wall_ms() - 2000, 0, 0)
    pair.there_clock.see(Ballot(pair.here.wall_ms() + 5000, 3, 0))
    await pair.node.ask(rpc.Ping())
    assert pair.here_clock.tick() > Ballot(pair.here.wall_ms() + 4000, 0, 0)


@between_two_nodes()
async def test_a_refusal_carries_the_clock_too(pair):
    pair.there_clock.see(Ballot(pair.here.wall_ms() + 30_000, 0, 0))
    pair.epochs[THERE] = 2
    with pytest.raises(RefusedError):
        await pair.node.ask(rpc.Ping())
    assert pair.here_clock.tick().hlc >= pair.here.wall_ms() + 29_000


@between_two_nodes(ahead_ms=MAX_AHEAD_MS + 5000)
async def test_a_clock_that_is_far_ahead_is_refused_and_not_followed(pair):
    with pytest.raises(RefusedError) as caught:
        await pair.node.ask(rpc.Ping())
    assert caught.value.kind is Refusal.CLOCK_AHEAD
    assert pair.there_clock.tick().hlc < pair.here.wall_ms() - 50_000


@between_two_nodes(links=LinkSettings(duplicate=1.0))
async def test_a_call_that_arrives_twice_is_carried_out_once(pair):
    stages = []
    drive = pair.bare[0]
    open_stage = drive.open_stage
    drive.open_stage = lambda *args: stages.append(args) or open_stage(*args)
    prepare = Prepare(
        row=ROW, ballot=Ballot(pair.here.wall_ms() + 1, 0, 1), epoch=1, bucket_epoch=0
    )
    asked = []
    submit = drive.submit
    drive.submit = lambda *args: asked.append(args) or submit(*args)
    assert isinstance(await ask(pair.drives[0], prepare), Promise)
    await stage(pair.drives[0], header(), [bytes(1000)])
    await trio.sleep(1)
    assert pair.network.duplicates > 2
    assert len(stages) == len(asked) == 1


@between_two_nodes(bounds=ServerSettings(max_calls=3))
async def test_a_node_takes_a_bounded_number_of_calls(pair):
    pair.bare[0].faults.hung = True
    for _ in range(3):
        pair.nursery.start_soon(give_up_after, 5, pair.drives[0].read_blocks, header(), 0, [10])
    await trio.sleep(0.1)
    with pytest.raises(RefusedError) as caught:
        await pair.node.ask(rpc.AskStatus(pair.bare[1].drive_id))
    assert caught.value.kind is Refusal.OVERLOADED
    await trio.sleep(6)
    # Who gave up has made room: the server heard of it.
    assert (await pair.drives[1].status()).state is DriveState.ACTIVE


async def give_up_after(seconds, call, *args):
    with trio.move_on_after(seconds):
        await call(*args)


@between_two_nodes()
async def test_nonsense_ends_its_call_and_nothing_else(pair):
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x01\x01\0\0\0\0\0\x01\xff"):
        stream = await pair.network.transport(HERE).open_stream(THERE)
        await stream.send_all(nonsense)
        with pytest.raises(StreamBrokenError):
            await Call(stream).receive()
    assert sum(isinstance(event, CallMalformed) for event in pair.there.events) == 3
    assert isinstance(await ask(pair.drives[0]), Value)


@between_two_nodes(bounds=ServerSettings(first_message_seconds=5))
async def test_a_caller_that_says_nothing_is_let_go(pair):
    stream = await pair.network.transport(HERE).open_stream(THERE)
    begun = trio.current_time()
    with pytest.raises(StreamBrokenError):
        await Call(stream).receive()
    assert trio.current_time() - begun == pytest.approx(5, abs=0.1)


# -- register operations


@between_two_nodes()
async def test_what_is_submitted_in_one_tick_is_one_call(pair):
    opened, sent = [], pair.network.link(HERE, THERE)
    open_stream = pair.network.open_stream

    async def counting(*args):
        opened.append(args)
        return await open_stream(*args)

    pair.network.open_stream = counting
    before, answers = sent.sent, [Answers() for _ in range(20)]
    row = RowKey(ROW + bytes(1000))
    for index, answer in enumerate(answers):
        if index % 2 == 0:
            query = Query(row=row, epoch=1, bucket_epoch=0)
        pair.drives[index % 2].submit(query, answer)
    for answer in answers:
        assert isinstance(await answer.first(0.4), Value)
    assert len(opened) == 1
    assert 10_000 < sent.sent - before < 13_000  # one request for both drives is sent once


@between_two_nodes()
async def test_a_hung_drive_holds_up_no_answer_of_another(pair):
    pair.bare[0].faults.hung = True
    hung, fine = Answers(), Answers()
    pair.drives[0].submit(QUERY, hung)
    pair.drives[1].submit(QUERY, fine)
    assert isinstance(await fine.first(0.1), Value)
    await trio.sleep(100)
    assert hung == []
    assert pair.node._unanswered == 0


@between_two_nodes(settings=PeerSettings(max_waiting=5))
async def test_a_full_queue_answers_at_once(pair):
    pair.bare[0].faults.hung = True
    answers = Answers()
    for _ in range(8):
        pair.drives[0].submit(QUERY, answers)
    assert [type(answer) for answer in answers] == [Failed] * 3


@between_two_nodes()
async def test_operations_that_do_not_fit_one_message_go_in_several(pair):
    body = BodyId(b"i" * 16)
    answers = [Answers() for _ in range(5)]
    for index, answer in enumerate(answers):
        ballot = Ballot(pair.here.wall_ms() + index, 0, 1)
        accepting = Accept(
            row=RowKey(ROW + bytes([index])), ballot=ballot, epoch=1, bucket_epoch=0, base=BALLOT_ZERO,
            state=KeyState(versions=(large_version(ballot, body),)), bodies={body: bytes(6 << 20)},
        )  # fmt: skip
        pair.drives[0].submit(accepting, answer)
    for answer in answers:
        assert isinstance(await answer.first(), Accepted)
    assert len(pair.bare[0].platter.rows) == 5
    too_large = attrs.evolve(accepting, bodies={body: bytes(20 << 20)})
    assert isinstance(await ask(pair.drives[0], too_large), Failed)
    assert pair.node._unanswered == 0


def large_version(ballot, body):
    return version(ballot, body=BodyRef(id=body, size=6 << 20, digest=bytes(16)))


@between_two_nodes()
async def test_a_drive_that_the_node_does_not_have_fails(pair):
    stranger = RemoteDrive(pair.node, DriveId(b"x" * 16))
    assert stranger.state is DriveState.MISSING
    assert isinstance(await ask(stranger), Failed)
    with pytest.raises(DriveError):
        await stranger.read_blocks(header(), 0, [10])
    assert (await stranger.status()).state is DriveState.MISSING


@between_two_nodes()
async def test_a_stream_that_is_cut_fails_its_operations_at_once(pair):
    pair.bare[0].faults.hung = True
    answers = Answers()
    pair.drives[0].submit(QUERY, answers)
    await trio.sleep(0.2)
    assert answers == []
    pair.network._connection(HERE, THERE).break_off()
    assert isinstance(await answers.first(0.1), Failed)


# -- a peer that comes and goes


@between_two_nodes()
async def test_a_peer_that_cannot_be_reached_is_missing_until_it_answers_again(pair):
    drive = pair.drives[0]
    assert drive.state is DriveState.ACTIVE
    pair.network.partition(HERE, THERE)
    await trio.sleep(5)
    assert drive.state is DriveState.MISSING
    assert isinstance(await ask(drive), Failed)
    with pytest.raises(DriveError):
        drive.open_stage(header(), 0)
    status = await drive.status()
    assert status.state is DriveState.MISSING
    assert "node 2" in status.reason
    pair.network.heal()
    await trio.sleep(5)
    assert drive.state is DriveState.ACTIVE
    assert isinstance(await ask(drive), Value)


@between_two_nodes()
async def test_a_drive_that_fails_is_known_by_the_next_ping(pair):
    pair.bare[0].fail("its head fell off")
    await trio.sleep(2)
    assert pair.drives[0].state is DriveState.FAULTY
    assert pair.drives[1].state is DriveState.ACTIVE


# -- shards


@between_two_nodes(links=LinkSettings(window=64 << 20))
async def test_a_slow_drive_slows_its_writer_down(pair):
    """Whoever writes is never more than the credit ahead of the drive, even over a network that takes everything."""
    written, go_on = [], trio.Event()
    open_stage = pair.bare[0].open_stage

    def slow(*args):
        inner = open_stage(*args)
        write = inner.write

        async def waiting(blocks):
            written.append(sum(map(len, blocks)))
            await go_on.wait()
            await write(blocks)

        inner.write = waiting
        return inner

    pair.bare[0].open_stage = slow
    blocks = [bytes([i]) * 65536 for i in range(64)]
    sent = 0

    async def write():
        nonlocal sent
        writing = pair.drives[0].open_stage(header(), 0)
        for run in range(0, 64, 8):
            await writing.write(blocks[run : run + 8])
            sent += 8 * 65536
        await writing.close(bytes(16 * 64))

    pair.nursery.start_soon(write)
    await trio.sleep(10)
    assert len(written) == 1
    assert sent <= INITIAL_CREDIT
    go_on.set()
    await trio.sleep(10)
    assert sum(written) == sent == 64 * 65536
    got = await pair.drives[0].read_blocks(header(), 0, [65536] * 64)
    assert [bytes(block) for block in got] == blocks


@between_two_nodes(links=LinkSettings(bandwidth=1e6))
async def test_an_aborted_stage_leaves_nothing_on_either_side(pair):
    aborted = []
    open_stage = pair.bare[0].open_stage

    def noting(*args):
        inner = open_stage(*args)
        inner.abort = lambda: aborted.append(end)
        return inner

    pair.bare[0].open_stage = noting
    for end in ("abort", "cancel", "cut"):
        writing = pair.drives[0].open_stage(header(), 0)
        with trio.move_on_after(0.3):
            await writing.write([bytes(65536)])
            if end == "cancel":
                await writing.write([bytes(65536)] * 32)
        await trio.sleep(0.2)
        if end == "cut":
            pair.network._connection(HERE, THERE).break_off()
        writing.abort()
        with pytest.raises(DriveError):
            await writing.write([b"x"])
        await trio.sleep(3)
    assert aborted == ["abort", "cancel", "cut"]
    assert pair.server._under_way == 0
    with pytest.raises(ShardMissingError):
        await pair.drives[0].read_blocks(header(), 0, [10])


@between_two_nodes()
async def test_a_block_that_is_damaged_on_its_way_is_never_stored_nor_served(pair):
    blocks = [bytes(65536), bytes(65536)]
    await stage(pair.drives[0], header(1), blocks)
    link = pair.network.link(HERE, THERE)
    send = link.send

    def damage(pipe, data):
        if data is not None and len(data) == 65536:
            data = b"\x01" + data[1:]
        send(pipe, data)

    link.send = damage
    with pytest.raises(DriveError, match="damaged"):
        await stage(pair.drives[0], header(2), blocks)
    assert len(pair.bare[0].platter.shards) == 1
    link.send, back = send, pair.network.link(THERE, HERE)
    send = back.send
    back.send = damage
    with pytest.raises(DriveError, match="damaged"):
        await pair.drives[0].read_blocks(header(1), 0, [65536, 65536])
