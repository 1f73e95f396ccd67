"""Nodes in virtual time: suspicion, verdict and return as the view shows them; a layout that reaches everybody."""

import contextlib
from random import Random

import pytest
import trio
from msgspec.structs import replace

from cluster.ids import NodeId
from cluster.layout import LayoutError, Node, decode_layout, encode_layout
from cluster.membership.detector import PeerChanged
from cluster.membership.messages import (
    Heartbeat,
    HeartbeatError,
    decode_heartbeat,
    encode_heartbeat,
)
from cluster.membership.peers import PeerState
from cluster.membership.service import LayoutNotAdopted, Membership, PeerUnreachableError
from cluster.membership.view import MembershipView
from tests.sim.run import SimRuntime
from tests.topology.layouts import make_layout


class Holder:
    """A layout in memory."""

    def __init__(self, layout):
        self.current = layout
        self.adopted = 0

    @property
    def encoded(self):
        return encode_layout(self.current)

    async def adopt(self, data):
        layout = decode_layout(data)
        await trio.sleep(0.005)
        if layout.epoch <= self.current.epoch:
            return False
        self.current = layout
        self.adopted += 1
        return True


class Wire:
    """Everybody's PeerCaller: direct calls with a delay. `cut`, `refusing`, `dead` and `mute` are what is wrong with it."""

    def __init__(self):
        self.services = {}
        self.cut, self.refusing, self.dead, self.mute = set(), set(), set(), set()
        self.pings = []

    def caller(self, me):
        wire = self

        class Caller:
            async def ping(self, peer, data):
                wire.pings.append((trio.current_time(), me, peer))
                if peer in wire.refusing:
                    raise PeerUnreachableError("refused", refused=True)
                if (
                    me in wire.mute
                    or me in wire.dead
                    or peer in wire.dead
                    or (me, peer) in wire.cut
                ):
                    await trio.sleep_forever()
                await trio.sleep(0.002)
                answer = await wire.services[peer].answer(me, data)
                if (peer, me) in wire.cut:
                    await trio.sleep_forever()
                await trio.sleep(0.002)
                return answer

        return Caller()


class World:
    def __init__(self, size):
        self.layout = make_layout(size, 1, size, 0)
        self.wire = Wire()
        self.ids = [node.node for node in self.layout.nodes]
        self.holders = {n: Holder(self.layout) for n in self.ids}
        self.runtimes = {n: SimRuntime(Random(n)) for n in self.ids}

    def start(self, nursery, node):
        service = Membership(node, self.wire.caller(node), self.holders[node], self.runtimes[node])
        self.wire.services[node] = service
        nursery.start_soon(service.run)

    def states(self, of):
        return {self.wire.services[n].view.state(of) for n in self.ids if n != of}


@contextlib.asynccontextmanager
async def running(size):
    world = World(size)
    async with trio.open_nursery() as nursery:
        for node in world.ids:
            world.start(nursery, node)
        yield world
        nursery.cancel_scope.cancel()


async def test_every_node_pings_every_other_every_five_seconds(autojump_clock):
    async with running(4) as world:
        await trio.sleep(99.9)
        assert len(world.wire.pings) == pytest.approx(4 * 3 * 20, abs=12)
        assert all(world.states(n) == {PeerState.ALIVE} for n in world.ids)
        assert all(not runtime.events for runtime in world.runtimes.values())


async def test_a_dead_node_is_suspect_after_15_s_offline_after_30_s_and_alive_when_it_answers(
    autojump_clock,
):
    async with running(5) as world:
        await trio.sleep(20)
        gone = world.ids[-1]
        world.wire.dead.add(gone)
        await trio.sleep(9)
        assert world.states(gone) == {PeerState.ALIVE}
        await trio.sleep(8)
        assert world.states(gone) == {PeerState.SUSPECT}
        await trio.sleep(25)
        assert world.states(gone) == {PeerState.OFFLINE}
        view = world.wire.services[world.ids[0]].view
        assert not view.is_routable(gone)
        world.wire.dead.clear()
        await trio.sleep(6)
        assert world.states(gone) == {PeerState.ALIVE}
        seen = [e.state for e in world.runtimes[world.ids[0]].events if isinstance(e, PeerChanged)]
        assert seen == [PeerState.SUSPECT, PeerState.OFFLINE, PeerState.ALIVE]


async def test_a_refused_connection_is_dialled_again_at_once_and_then_suspicious(autojump_clock):
    async with running(3) as world:
        await trio.sleep(20)
        gone = world.ids[-1]
        world.wire.refusing.add(gone)
        await trio.sleep(6.5)
        assert world.states(gone) == {PeerState.SUSPECT}
        world.wire.refusing.clear()
        await trio.sleep(5.5)
        assert world.states(gone) == {PeerState.ALIVE}


async def test_a_cut_off_minority_takes_nobody_for_offline(autojump_clock):
    async with running(5) as world:
        few, many = world.ids[:2], world.ids[2:]
        await trio.sleep(20)
        world.wire.cut = {(a, b) for a in few for b in many} | {(b, a) for a in few for b in many}
        await trio.sleep(120)
        for a in few:
            assert all(
                world.wire.services[a].view.state(b) is not PeerState.OFFLINE for b in world.ids
            )
        for b in many:
            assert all(world.wire.services[b].view.state(a) is PeerState.OFFLINE for a in few)
        world.wire.cut = set()
        await trio.sleep(7)
        assert all(world.states(n) == {PeerState.ALIVE} for n in world.ids)


async def test_a_new_layout_reaches_everybody_at_once_and_the_cut_off_later(autojump_clock):
    async with running(5) as world:
        await trio.sleep(20)
        far = world.ids[-1]
        world.wire.cut = {(a, far) for a in world.ids} | {(far, a) for a in world.ids}
        first = world.ids[0]
        world.holders[first].current = replace(world.layout, epoch=2)
        world.wire.services[first].kick()
        await trio.sleep(0.5)
        assert [world.holders[n].current.epoch for n in world.ids] == [2, 2, 2, 2, 1]
        world.wire.cut = set()
        await trio.sleep(6)
        assert world.holders[far].current.epoch == 2
        assert {holder.adopted for holder in world.holders.values()} <= {0, 1}


async def test_a_node_that_joins_is_watched_and_one_that_is_removed_is_not(autojump_clock):
    async with running(3) as world:
        await trio.sleep(20)
        stranger = NodeId(77)
        service = world.wire.services[world.ids[0]]
        assert service.view.state(stranger) is PeerState.LEFT
        holder = world.holders[world.ids[0]]
        holder.current = replace(
            world.layout, epoch=2, nodes=(*world.layout.nodes, Node(stranger, "x:1"))
        )
        world.wire.dead.add(stranger)
        with trio.fail_after(1):
            service.kick()
            await service.view.wait_changed()
        await trio.sleep(0.1)
        assert world.states(stranger) == {PeerState.ALIVE}
        await trio.sleep(60)
        assert world.states(stranger) == {PeerState.OFFLINE}
        holder.current = replace(world.layout, epoch=3)
        service.kick()
        await trio.sleep(1)
        assert world.states(stranger) == {PeerState.LEFT}
        assert stranger not in service.detector.peers


async def test_a_removed_node_is_told_so(autojump_clock):
    """It does not hear of it otherwise: the others do not ping it any more."""
    async with running(3) as world:
        await trio.sleep(20)
        removed = world.ids[-1]
        newer = make_layout(2, 1, 2, 0)
        for node in world.ids[:2]:
            world.holders[node].current = replace(newer, epoch=2)
            world.wire.services[node].kick()
        await trio.sleep(6)
        assert [n.node for n in world.holders[removed].current.nodes] == world.ids[:2]


async def test_bad_answers_and_bad_layouts_harm_nobody(autojump_clock):
    async with running(3) as world:
        await trio.sleep(20)
        first, liar = world.ids[0], world.ids[-1]
        service = world.wire.services[first]

        class Liar:
            said = b""

            async def answer(self, sender, data):
                return self.said

        world.wire.services[liar] = Liar()
        world.wire.mute.add(liar)  # or its own pings would refute
        lies = (b"junk", encode_heartbeat(Heartbeat(world.ids[1], 1, 1)))
        for lie in lies:
            Liar.said = lie
            await trio.sleep(20)
            assert service.view.state(liar) is not PeerState.ALIVE
        Liar.said = encode_heartbeat(Heartbeat(liar, 1, 9, (), b"no layout"))
        await trio.sleep(20)
        refused = [e for e in world.runtimes[first].events if isinstance(e, LayoutNotAdopted)]
        assert refused
        assert (refused[0].peer, world.holders[first].current.epoch) == (liar, 1)


async def test_a_ping_in_another_name_is_refused(autojump_clock):
    async with running(2) as world:
        one, two = world.ids
        with pytest.raises(HeartbeatError, match="pings as"):
            await world.wire.services[one].answer(two, encode_heartbeat(Heartbeat(one, 1, 1)))
        with pytest.raises(HeartbeatError):
            await world.wire.services[one].answer(two, b"junk")
        # Who is no member is answered all the same, with the layout that it may lack.
        stranger = NodeId(99)
        ping = encode_heartbeat(Heartbeat(stranger, 1, 1))
        world.holders[one].current = replace(world.layout, epoch=5)
        answer = decode_heartbeat(await world.wire.services[one].answer(stranger, ping))
        assert decode_layout(answer.layout).epoch == 5
        with pytest.raises(LayoutError):
            decode_layout(answer.layout[:-1])


def test_a_view_takes_this_node_for_alive_and_a_stranger_for_gone():
    view = MembershipView(NodeId(1))
    view.set_members([NodeId(i) for i in range(1, 5)])
    view.note(PeerChanged(NodeId(2), PeerState.ALIVE, PeerState.SUSPECT, 15.0))
    view.note(PeerChanged(NodeId(9), PeerState.ALIVE, PeerState.SUSPECT, 15.0))
    assert view.is_routable(NodeId(1))
    assert view.is_routable(NodeId(2))
    assert not view.is_routable(NodeId(9))
