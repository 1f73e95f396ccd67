"""A PUT over several nodes: one that is slow, stuck or dead is left out of it, or fed afterwards, and never waited for long."""

from functools import partial
from random import Random

import attrs
import pytest
import trio

from cluster.erasure.profile import Profile
from cluster.errors import NotFoundError, QuorumError, StorageFullError
from cluster.objects.context import ObjectSettings
from cluster.register.messages import Accept
from tests.sim.content import Bytes, put_request
from tests.sim.network import LinkSettings
from tests.sim.run import simulate
from tests.sim.spread import Plan, Spread, in_a_spread
from tests.sim.test_reads import read

pytestmark = pytest.mark.sim
MI = 1 << 20
LARGE, SMALL = 40 * MI, 300_000
SETTINGS = ObjectSettings()
LINKS = LinkSettings(jitter=0.0, bandwidth=1e9)
SIX = Plan(nodes=6, links=LINKS)  # a drive of the set each: D is reached without one of them
THREE = Plan(nodes=3, links=LINKS)


def run(work, plan=SIX, seed=1):
    simulate(in_a_spread(plan, work, seed), seed=seed)


class Sender(Bytes):
    """A body, and what happens when so many bytes of it are sent."""

    def __init__(self, data, at, happens):
        super().__init__(data, Random(1))
        self._when, self._happens = at, happens

    async def readinto(self, buffer):
        if self.at >= self._when and self._happens is not None:
            happens, self._happens = self._happens, None
            happens()
        return await super().readinto(buffer)


async def timed_put(world: Spread, size, *, happens=None, key=b"key"):
    store = world.lives[world.nodes[0]].store
    try:
        bucket = await store.get_bucket("sim")
    except NotFoundError:
        bucket = await store.create_bucket("sim", "me", b"")
    request = put_request((1, size), Random(1))
    if happens is not None:
        source = Sender(request.source.data, size // 2, happens)
        request = attrs.evolve(request, source=source)
    begun = trio.current_time()
    version = await store.put(bucket, key, request)
    return trio.current_time() - begun, version.parts[0]


def slow_down(world, node, seconds):
    """Each run of blocks takes so long."""
    for drive in world.drives_on(node):

        def open_stage(*args, inner=drive.open_stage):
            stage = inner(*args)
            stage.write = partial(slow_write, stage.write, seconds)
            return stage

        drive.open_stage = open_stage


async def slow_write(write, seconds, blocks):
    await trio.sleep(seconds)
    await write(blocks)


def stuck(world, node):
    """From now on no drive of the node takes another block: no credit comes back."""
    for drive in world.drives_on(node):

        def open_stage(*args, inner=drive.open_stage):
            stage = inner(*args)
            stage.write = sleep_forever
            return stage

        drive.open_stage = open_stage
        for stage in drive.stages:
            stage.write = sleep_forever


async def sleep_forever(*_):
    await trio.sleep_forever()


def keep_stages(world):
    for drives in world.bare:
        for drive in drives:
            drive.stages = []

            def open_stage(*args, inner=drive.open_stage, stages=drive.stages):
                stages.append(inner(*args))
                return stages[-1]

            drive.open_stage = open_stage


def holders(world, part, set_id=0):
    drives = enumerate(world.bare[set_id])
    return [position for position, drive in drives if drive.platter.holds(part.data_id, position)]


def debt(world, set_id=0):
    return [len(drive.platter.index.heal) for drive in world.bare[set_id]]


FAULTS = {
    "stuck": stuck,
    "dead": lambda world, node: world.crash(node),
    "silent": lambda world, node: world.cut_off(node),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_node_that_fails_in_the_middle_is_left_out_within_the_straggler_deadline(fault, size):
    async def work(world):
        keep_stages(world)
        usual, part = await timed_put(world, size)
        assert part.staged == 0b111111
        bad = world.nodes[4]
        took, part = await timed_put(world, size, happens=lambda: FAULTS[fault](world, bad))
        assert part.staged == 0b101111
        assert part.k == 4
        # A queue that stays full, and then shards that do not become durable: each is borne with once.
        assert took < usual + SETTINGS.overflow_seconds + SETTINGS.straggler_max_seconds
        if fault == "dead":
            assert took < usual + SETTINGS.straggler_max_seconds
        if fault == "stuck":
            await trio.sleep(2)
            assert debt(world)[4] == 1
        store = world.lives[world.nodes[0]].store
        await read(store, await store.get_bucket("sim"), size=size)

    run(work)


@pytest.mark.parametrize("size", [SMALL, 6 * MI])
def test_a_slow_node_is_fed_after_the_acknowledgement(size):
    """Its disks take seconds: not waited for, and fully redundant all the same."""

    async def work(world):
        usual, _ = await timed_put(world, size)
        slow_down(world, world.nodes[4], 2.0)
        took, part = await timed_put(world, size)
        assert took < usual + SETTINGS.straggler_max_seconds + 0.1
        assert part.staged == 0b101111
        assert holders(world, part) == [0, 1, 2, 3, 5]
        await trio.sleep(SETTINGS.straggler_feed_seconds)
        assert holders(world, part) == [0, 1, 2, 3, 4, 5]
        assert debt(world) == [0] * 6
        assert world.lives[world.nodes[0]].store._context.buffers.used == 0

    run(work)


def test_a_node_that_is_too_slow_is_not_fed_for_ever():
    async def work(world):
        await timed_put(world, SMALL)
        slow_down(world, world.nodes[4], 20.0)
        _, part = await timed_put(world, 2 * MI)
        buffers = world.lives[world.nodes[0]].store._context.buffers
        assert buffers.used > 0
        await trio.sleep(SETTINGS.straggler_feed_seconds + 1)
        assert holders(world, part) == [0, 1, 2, 3, 5]
        assert debt(world)[4] == 1
        assert buffers.used == 0

    run(work)


def test_memory_that_others_need_is_not_kept_for_stragglers():
    async def work(world):
        await timed_put(world, SMALL)
        slow_down(world, world.nodes[4], 20.0)
        buffers = world.lives[world.nodes[0]].store._context.buffers
        for number in range(6):
            took, _ = await timed_put(world, 6 * MI, key=b"%d" % number)
            assert took < 2.5
            assert buffers.used <= 16 * MI

    run(work, attrs.evolve(SIX, objects=attrs.evolve(SETTINGS, buffer_budget=16 * MI)))


@pytest.mark.parametrize("size", [SMALL, 6 * MI])
def test_a_node_known_to_be_dead_costs_a_put_nothing_but_space(size):
    async def work(world):
        usual, part = await timed_put(world, size)
        assert part.k == 4
        world.crash(world.nodes[2])
        await trio.sleep(3)
        took, part = await timed_put(world, size)
        assert (part.k, part.m, part.staged) == (3, 3, 0b011011)
        assert took < usual + 0.1

    run(work, THREE)


def test_a_node_that_is_silent_from_the_start_is_coded_around():
    """Nobody knows yet; when it shows, the body, still at hand, is coded anew for fewer drives."""

    async def work(world):
        usual, _ = await timed_put(world, 200_000)
        world.cut_off(world.nodes[2])
        took, part = await timed_put(world, 200_000)
        assert part.staged == 0b011011
        assert part.k == 3
        assert took < usual + SETTINGS.retry_seconds + 2 * SETTINGS.straggler_max_seconds

    run(work, THREE)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_body_of_several_stripes_fails_as_soon_as_a_node_is_known_to_be_silent(size):
    """Its first stripes are not at hand any more. The next request succeeds."""

    async def work(world):
        usual, _ = await timed_put(world, size)
        world.cut_off(world.nodes[2])
        begun = trio.current_time()
        with pytest.raises(QuorumError):
            await timed_put(world, size)
        assert trio.current_time() - begun < 3
        took, part = await timed_put(world, size)
        assert (part.k, part.staged) == (3, 0b011011)
        assert took < usual + 0.1

    run(work, THREE)


@pytest.mark.parametrize("when", ["before", "in the middle"])
@pytest.mark.parametrize("profile", [Profile(4, 2), Profile(2, 1)])
def test_with_too_few_shards_nothing_is_proposed_and_nothing_left(when, profile):
    async def work(world):
        _, part = await timed_put(world, SMALL, key=b"other")
        proposed = []
        for drive in world.bare[0]:

            def submit(request, reply, inner=drive.submit):
                if isinstance(request, Accept):
                    proposed.append(request)
                inner(request, reply)

            drive.submit = submit

        def fail():
            for node in world.nodes[1:]:
                world.crash(node)

        if when == "before":
            fail()
            await trio.sleep(3)
        with pytest.raises(QuorumError):
            await timed_put(world, LARGE, happens=None if when == "before" else fail)
        assert not proposed
        await trio.sleep(1)
        shards = {key[0] for drive in world.bare[0] for key in drive.platter.index.shards}
        assert shards == {part.data_id}

    run(work, attrs.evolve(THREE, profile=profile))


def test_full_drives_elsewhere_are_told_from_dead_ones():
    async def work(world):
        await timed_put(world, SMALL)
        for node in world.nodes[1:]:
            for drive in world.drives_on(node):
                drive.faults.full = True
        await trio.sleep(2)
        with pytest.raises(StorageFullError):
            await timed_put(world, SMALL)

    run(work, THREE)


@pytest.mark.parametrize("ack", ["shards", "node"])
@pytest.mark.parametrize("seconds", [0.4, 5.0])
def test_the_acknowledgement_may_wait_until_a_node_can_be_lost(ack, seconds):
    async def work(world):
        usual, _ = await timed_put(world, 200_000)
        slow_down(
            world, world.nodes[2], seconds
        )  # two drives: D are durable with one, four with none
        keep_quick(world.drives_on(world.nodes[2])[0])
        took, part = await timed_put(world, 200_000)
        if ack == "node" and seconds < SETTINGS.straggler_max_seconds:
            assert part.staged == 0b111111
            assert took > seconds
            world.crash(world.nodes[0])
            store = world.lives[world.nodes[1]].store
            await read(store, await store.get_bucket("sim"), size=200_000)
        else:
            assert part.staged.bit_count() == 5
            bound = SETTINGS.straggler_max_seconds if ack == "node" else 0.1
            assert took < usual + bound + 0.05

    run(work, attrs.evolve(THREE, objects=attrs.evolve(SETTINGS, ack=ack)))


def keep_quick(drive):
    del drive.open_stage


def test_nothing_is_waited_for_when_a_node_is_down_already():
    async def work(world):
        usual, _ = await timed_put(world, 200_000)
        world.crash(world.nodes[2])
        await trio.sleep(3)
        took, _ = await timed_put(world, 200_000)
        assert took < usual + 0.1

    run(work, attrs.evolve(THREE, objects=attrs.evolve(SETTINGS, ack="node")))
