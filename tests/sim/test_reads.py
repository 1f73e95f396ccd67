"""Reads over several nodes: the near ones first, late ones doubled, and never many of these."""

from random import Random

import attrs
import pytest
import trio

from cluster.erasure.profile import Profile
from cluster.objects.context import ObjectSettings
from tests.sim.content import content, put_request
from tests.sim.network import LinkSettings
from tests.sim.run import simulate
from tests.sim.spread import Plan, Spread, in_a_spread

pytestmark = pytest.mark.sim
SIZE = 600_000
HEDGED, PLAIN = ObjectSettings(), ObjectSettings(hedge_share=0.0)


async def read(store, bucket, key=b"key", size=SIZE):
    found = await store.get(bucket, key)
    reader = await found.open(0, size)
    data = b""
    while (buffers := await reader.next()) is not None:
        data += b"".join(buffers)
    await reader.aclose()
    assert data == content((1, size))


async def timed_reads(world: Spread, count: int) -> list[float]:
    store = world.lives[world.nodes[0]].store
    bucket = await store.create_bucket("sim", "me", b"")
    await store.put(bucket, b"key", put_request((1, SIZE), Random(1)))
    await trio.sleep(2)
    return [await timed(store, bucket) for _ in range(count)]


async def timed(store, bucket) -> float:
    begun = trio.current_time()
    await read(store, bucket)
    took = trio.current_time() - begun
    await trio.sleep(0.05)
    return took


def count_reads(world: Spread) -> dict[bytes, int]:
    counts = {}
    for drive in world.bare[0]:
        counts[drive.drive_id] = 0
        inner = drive.read_blocks

        async def counting(*args, inner=inner, drive_id=drive.drive_id):
            counts[drive_id] += 1
            return await inner(*args)

        drive.read_blocks = counting
    return counts


def run(work, plan=None, seed=1):
    simulate(in_a_spread(plan or Plan(), work, seed), seed=seed)


def test_a_reader_asks_its_own_drives_and_then_the_nearest():
    async def work(world):
        near, far = world.nodes[1:]
        for one, other in ((world.nodes[0], far), (far, world.nodes[0])):
            world.network.link(one, other).settings = attrs.evolve(world.plan.links, delay=0.01)
        await trio.sleep(10)
        counts = count_reads(world)
        await timed_reads(world, 5)
        nodes = {world.node_of(drive) for drive, count in counts.items() if count}
        assert nodes == {world.nodes[0], near}

    run(work)


def test_among_equals_data_is_read_before_parity():
    async def work(world):
        await trio.sleep(10)
        counts = count_reads(world)
        store = world.lives[world.nodes[5]].store  # without drives of the set's first five
        bucket = await store.create_bucket("sim", "me", b"")
        await store.put(bucket, b"key", put_request((1, SIZE), Random(1)))
        await read(store, bucket)
        read_from = [position for position, count in enumerate(counts.values()) if count]
        assert read_from == [0, 1, 2, 5]

    run(work, Plan(nodes=6, links=LinkSettings(delay=0.0001, jitter=0.0002)))


def slow_disks(world, node, seconds):
    for drive in world.drives_on(node):
        drive.faults.read_seconds = seconds


@pytest.mark.parametrize("objects", [HEDGED, PLAIN], ids=["hedged", "not hedged"])
def test_a_node_that_becomes_slow_does_not_make_reads_slow(objects):
    """Its pings are quick, its disks are not: what is late is read elsewhere, and soon nobody asks there first."""

    async def work(world):
        before = await timed_reads(world, 20)
        slow_disks(world, world.nodes[1], 1.0)
        store = world.lives[world.nodes[0]].store
        bucket = await store.get_bucket("sim")
        times = world.lives[world.nodes[0]].store._context.read_times
        begun = times.started
        after = [await timed(store, bucket) for _ in range(100)]
        usual = sorted(before)[len(before) // 2]
        if objects is HEDGED:
            assert max(after) < usual + 0.2
            assert sum(after) / len(after) < usual + 0.01
        else:
            assert max(after) > 0.4
        assert times.doubled <= 10 + 0.03 * (times.started - begun)

    run(work, Plan(objects=objects))


def test_a_slow_local_drive_is_left_for_remote_ones():
    async def work(world):
        await timed_reads(world, 20)
        slow_disks(world, world.nodes[0], 1.0)
        store = world.lives[world.nodes[0]].store
        bucket = await store.get_bucket("sim")
        after = [await timed(store, bucket) for _ in range(50)]
        assert sorted(after)[45] < 0.05

    run(work)


def test_when_everything_is_slow_reads_are_not_doubled_for_long():
    async def work(world):
        await timed_reads(world, 20)
        store = world.lives[world.nodes[0]].store
        bucket = await store.get_bucket("sim")
        times = store._context.read_times
        for node in world.nodes:
            slow_disks(world, node, 1.0)
        begun, doubled = times.started, times.doubled
        for _ in range(60):
            await timed(store, bucket)
        assert times.doubled - doubled <= 10 + 0.03 * (times.started - begun) + 1
        assert times.doubled > doubled

    run(work)


def test_a_damaged_and_a_missing_shard_are_replaced_at_once():
    async def work(world):
        store = world.lives[world.nodes[0]].store
        bucket = await store.create_bucket("sim", "me", b"")
        version = await store.put(bucket, b"key", put_request((1, SIZE), Random(1)))
        data_id = version.parts[0].data_id
        usual = await timed(store, bucket)
        del world.bare[0][0].platter.shards[data_id, 0]
        shard = world.bare[0][1].platter.shards[data_id, 1]
        shard.blocks[0] = (b"\0" * len(shard.blocks[0][0]), shard.blocks[0][1])
        assert await timed(store, bucket) < 3 * usual + 0.01

    run(work, Plan(links=LinkSettings(jitter=0.0)))


def test_a_set_without_parity_has_nothing_to_hedge_with():
    async def work(world):
        await timed_reads(world, 3)
        slow_disks(world, world.nodes[1], 0.5)
        store = world.lives[world.nodes[0]].store
        assert await timed(store, await store.get_bucket("sim")) > 0.2

    run(work, Plan(profile=Profile(3, 0)))
