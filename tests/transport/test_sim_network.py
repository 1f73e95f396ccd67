"""The simulated network behaves as streams must, and its faults show as a real network's would."""

from random import Random

import pytest
import trio
import trio.testing

from cluster.ids import NodeId
from cluster.transport.base import PeerDownError
from tests.sim.network import WINDOW, LinkSettings, SimNetwork
from tests.sim.run import simulate

ONE, TWO = NodeId(1), NodeId(2)
QUICK = LinkSettings(delay=0.0, jitter=0.0)


def in_network(settings=None):
    """A test that runs in virtual time with a network."""

    def decorate(test):
        def run():
            async def main(rng, trace):
                async with trio.open_nursery() as nursery:
                    network = SimNetwork(rng, nursery, settings)
                    await test(network, nursery)
                    nursery.cancel_scope.cancel()

            simulate(main, seed=1, limit=1000)

        run.__name__ = test.__name__
        return run

    return decorate


async def connect(network, nursery):
    """Two ends of a stream; the handler gives its own away."""
    accept, accepted = trio.open_memory_channel(1)

    async def handler(peer, stream):
        assert peer == ONE
        await accept.send(stream)

    if TWO not in network._servers:
        nursery.start_soon(network.transport(TWO).serve, handler)
        await trio.testing.wait_all_tasks_blocked()
    else:
        network._servers[TWO] = (network._servers[TWO][0], handler)
    ours = await network.transport(ONE).open_stream(TWO)
    return ours, await accepted.receive()


@in_network(QUICK)
async def test_its_streams_keep_the_rules_of_streams(network, nursery):
    async def clogged():
        ours, theirs = await connect(network, nursery)
        for stream in (ours, theirs):
            await stream.send_all(bytes(WINDOW))
        return ours, theirs

    await trio.testing.check_half_closeable_stream(lambda: connect(network, nursery), clogged)


@in_network(LinkSettings(loss=0.3, jitter=0.05))
async def test_a_stream_is_in_order_whatever_is_lost(network, nursery):
    ours, theirs = await connect(network, nursery)
    data = Random(1).randbytes(400_000)
    nursery.start_soon(ours.send_all, data)
    got = b""
    while len(got) < len(data):
        got += await theirs.receive_some(10_000)
    assert got == data


@in_network(LinkSettings(jitter=0.0, bandwidth=1e6))
async def test_bandwidth_is_shared(network, nursery):
    ours, theirs = await connect(network, nursery)
    begun = trio.current_time()
    nursery.start_soon(ours.send_all, bytes(WINDOW))
    left = WINDOW
    while left:
        left -= len(await theirs.receive_some())
    assert trio.current_time() - begun == pytest.approx(WINDOW / 1e6, rel=0.05)


@in_network()
async def test_a_short_partition_is_a_delay_and_a_long_one_breaks_the_streams(network, nursery):
    ours, theirs = await connect(network, nursery)
    network.block(ONE, TWO)
    await ours.send_all(b"held")
    await theirs.send_all(b"the other way")
    assert await ours.receive_some() == b"the other way"
    with trio.move_on_after(1) as scope:
        await theirs.receive_some()
    assert scope.cancelled_caught
    network.unblock(ONE, TWO)
    assert await theirs.receive_some() == b"held"
    network.block(ONE, TWO)
    await trio.sleep(network.settings.idle_seconds + 1)
    for stream in (ours, theirs):
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
    with pytest.raises(PeerDownError):
        await network.transport(ONE).open_stream(TWO)
    network.heal()
    ours, theirs = await connect(network, nursery)


@in_network(LinkSettings(reset=1.0))
async def test_a_reset_is_heard_on_both_ends(network, nursery):
    ours, theirs = await connect(network, nursery)
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await theirs.receive_some()


@in_network()
async def test_a_node_that_is_gone_refuses(network, nursery):
    ours, _ = await connect(network, nursery)
    network.crash(TWO)
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()
    with pytest.raises(PeerDownError):
        await network.transport(ONE).open_stream(TWO)
