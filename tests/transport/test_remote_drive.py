"""Calls between nodes: refused before they act, carried out once, coalesced, bounded, and never waited for in vain."""

from contextlib import suppress

import attrs
import pytest
import trio

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.drives import rpc_messages as rpc
from cluster.drives.client import RemoteDrive
from cluster.drives.drive import DriveError, DriveState
from cluster.drives.index_rows import Batch, HeadRow, pack_bodies
from cluster.drives.remote_node import CALL_ERRORS, PeerSettings, RefusedError
from cluster.drives.server import CallMalformed, ServerSettings
from cluster.ids import ClusterId, DriveId, NodeId, RowKey
from cluster.register.messages import (
    CHOSEN,
    LIVE,
    Accept,
    Accepted,
    Failed,
    Prepare,
    Promise,
    Query,
    StaleEpoch,
    Value,
)
from cluster.register.records import BodyId, BodyRef, KeyState, encode_state
from cluster.transport.base import StreamBrokenError
from cluster.transport.calls import Call
from cluster.wire import MAX_AHEAD_MS, Refusal
from tests.contracts.benches import header, inline, stage, version
from tests.sim.network import LinkSettings
from tests.transport.pair import (
    HERE,
    QUERY,
    ROW,
    THERE,
    Answers,
    ask,
    between_two_nodes,
)

# -- what headers are for


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"cluster": ClusterId(b"x" * 16)}, Refusal.WRONG_CLUSTER),
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
        assert drive.platter.index.rows == {}
        with pytest.raises(RefusedError) as caught:
            await caller.ask(rpc.Ping({}))
        assert caught.value.kind is kind

    test()


@between_two_nodes()
async def test_a_layout_that_is_too_old_is_answered_with_the_newer_epoch(pair):
    await pair.bare[0].layout.keep(7, b"")
    assert await ask(pair.drives[0]) == StaleEpoch(7)


@between_two_nodes()
async def test_a_newer_layout_is_noticed_by_both_sides(pair):
    pair.epochs[HERE] = 3
    await pair.node.ask(rpc.Ping({}))
    assert pair.peer.newer[THERE] == {HERE}
    pair.epochs[THERE] = 5
    await pair.node.ask(rpc.Ping({}))
    assert pair.peer.newer[HERE] == {THERE}


@between_two_nodes()
async def test_a_node_that_is_no_member_may_only_gossip(pair):
    pair.peer.members.discard(HERE)
    with pytest.raises(RefusedError) as caught:
        await pair.node.ask(rpc.AskStatus(pair.bare[0].drive_id))
    assert caught.value.kind is Refusal.STRANGER
    assert await pair.node.ask(rpc.Gossip(b"ping")) == rpc.Gossiped(b"answer")
    assert pair.peer.heard == [(HERE, b"ping")]


@between_two_nodes()
async def test_gossip_that_makes_no_sense_ends_the_call_and_not_the_node(pair):
    with pytest.raises(CALL_ERRORS):
        await pair.node.ask(rpc.Gossip(b"junk"))
    assert any(
        "junk" in event.reason for event in pair.there.events if isinstance(event, CallMalformed)
    )
    await pair.node.ask(rpc.Ping({}))


@between_two_nodes(ahead_ms=50_000)
async def test_clocks_merge_in_both_directions(pair):
    assert pair.there_clock.tick() > Ballot(pair.here.wall_ms() - 2000, 0, 0)
    pair.there_clock.see(Ballot(pair.here.wall_ms() + 5000, 3, 0))
    await pair.node.ask(rpc.Ping({}))
    assert pair.here_clock.tick() > Ballot(pair.here.wall_ms() + 4000, 0, 0)


@between_two_nodes()
async def test_a_refusal_carries_the_clock_too(pair):
    pair.there_clock.see(Ballot(pair.here.wall_ms() + 30_000, 0, 0))
    pair.peer.members.discard(HERE)
    with pytest.raises(RefusedError):
        await pair.node.ask(rpc.Ping({}))
    assert pair.here_clock.tick().hlc >= pair.here.wall_ms() + 29_000


@between_two_nodes(ahead_ms=MAX_AHEAD_MS + 5000)
async def test_a_clock_that_is_far_ahead_is_refused_and_not_followed(pair):
    with pytest.raises(RefusedError) as caught:
        await pair.node.ask(rpc.Ping({}))
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
    # The second copy may overtake the first, which is then the one that is refused.
    assert isinstance(await ask(pair.drives[0], prepare), Promise | Failed)
    with suppress(DriveError):
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
    assert len(pair.bare[0].platter.index.rows) == 5
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


@between_two_nodes()
async def test_answers_that_do_not_fit_one_message_come_in_several(pair):
    """Each drive answers a Query for body rows with 6 MiB; one of 20 MiB is told as a failure."""
    body = BodyId(b"i" * 16)
    ballot = Ballot(1, 0, 1)
    state = encode_state(inline(ballot, body, b"which is larger than the record says"))
    for drive, size in zip(pair.bare, (6 << 20, 20 << 20), strict=True):
        batch = Batch(bodies={index: bytes(size) for index in range(4)})
        for index in range(4):
            row = RowKey(ROW + bytes([index]))
            batch.heads[row] = HeadRow(
                row, ballot, CHOSEN | LIVE, state, pack_bodies([(body, index)])
            )
        drive.platter.index.apply(batch)
    small, large = [Answers() for _ in range(4)], [Answers() for _ in range(4)]
    for index in range(4):
        query = Query(row=RowKey(ROW + bytes([index])), epoch=1, bucket_epoch=0, bodies=True)
        pair.drives[0].submit(query, small[index])
        pair.drives[1].submit(query, large[index])
    for answers in small:
        assert len((await answers.first()).bodies[body]) == 6 << 20
    for answers in large:
        assert isinstance(await answers.first(), Failed)
