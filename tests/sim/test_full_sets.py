"""A set whose drives are full, and one whose drives have hardly room for records: what is still taken, and what is refused."""

from random import Random

import attrs
import pytest
import trio

from cluster.drives.drive import DriveState
from cluster.errors import NotFoundError, StorageFullError
from cluster.objects.model import PartChoice, Seal
from tests.sim.content import part_request, put_request
from tests.sim.spread import Plan
from tests.sim.test_data_sets import bucket_in_the_first_set, fill_up, run
from tests.sim.test_puts import holders
from tests.sim.test_reads import read

pytestmark = pytest.mark.sim
SMALL, LARGE = 1_000, 200_000


async def crowd(world, set_id, count=6):
    for drive in world.bare[set_id][:count]:
        drive.faults.crowded = True
    await trio.sleep(2)  # until every node has heard of it
    assert world.bare[set_id][0].state is DriveState.CROWDED


def test_a_small_body_goes_to_another_set_where_its_record_has_no_room_for_it():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        fill_up(world, 0)
        await trio.sleep(2)
        names = {size: key() for size in (0, 1, SMALL)}
        for size, name in names.items():
            version = await store.put(bucket, name, put_request((1, size), Random(1)))
            assert version.body is None
            assert [part.set_id for part in version.parts] == ([1] if size else [])
        assert holders(world, version.parts[0], 1) == list(range(6))
        for node in world.nodes:
            for size, name in names.items():
                await read(world.lives[node].store, bucket, name, size)

    run(work)


def test_a_small_body_finds_no_place_where_there_is_no_other_set():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        fill_up(world, 0)
        await trio.sleep(2)
        with pytest.raises(StorageFullError):
            await store.put(bucket, key(), put_request((1, SMALL), Random(1)))

    run(work, Plan(sets=1))


@pytest.mark.parametrize("sets", [1, 2])
def test_drives_with_hardly_room_for_records_only_forget(sets):
    """Or their index would run full, and with it the set could not even be read."""

    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        names = {size: key() for size in (SMALL, LARGE)}
        for size, name in names.items():
            await store.put(bucket, name, put_request((1, size), Random(1)))
        uploading = key()
        upload = await store.create_upload(bucket, uploading, b"")
        part = await store.put_part(
            bucket, uploading, upload, 1, part_request(b"x" * SMALL, Random(1))
        )
        await crowd(world, 0)
        staged = sum(len(drive.platter.shards) for drives in world.bare for drive in drives)
        for size in (0, SMALL, LARGE):
            with pytest.raises(StorageFullError, match="hardly have room"):
                await store.put(bucket, key(), put_request((1, size), Random(1)))
        with pytest.raises(StorageFullError, match="hardly have room"):
            await store.create_upload(bucket, key(), b"")
        with pytest.raises(StorageFullError, match="hardly have room"):
            await store.put_part(
                bucket, uploading, upload, 2, part_request(b"y" * SMALL, Random(1))
            )
        assert staged == sum(len(d.platter.shards) for drives in world.bare for d in drives)

        for size, name in names.items():
            await read(store, bucket, name, size)
            await store.delete(bucket, name)
            with pytest.raises(NotFoundError):
                await store.get(bucket, name)
        seal = Seal(validator="v", attributes=b"")
        choices = [PartChoice(number=1, validator=part.validator)]
        await store.complete_upload(bucket, uploading, upload, choices, lambda _, __: seal)
        await store.delete(bucket, uploading)
        await store.delete_bucket(bucket)
        await store.create_bucket("other", "me", b"")

    run(work, Plan(sets=sets))


def test_a_few_crowded_drives_get_records_but_no_bodies_in_them():
    """The others alone are a quorum: nothing is refused, and who is full is spared what can lie elsewhere."""

    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        await crowd(world, 0, 2)
        name = key()
        version = await store.put(bucket, name, put_request((1, SMALL), Random(1)))
        assert (version.body, version.parts[0].set_id) == (None, 1)
        await read(store, bucket, name, SMALL)
        world.crash(world.nodes[1])  # with two of the six: that is no matter of room
        await trio.sleep(3)
        await store.put(bucket, key(), put_request((1, SMALL), Random(1)))

    run(work)


def test_a_new_bucket_leaves_out_sets_that_take_no_records():
    async def work(world):
        store = world.lives[world.nodes[0]].store
        await crowd(world, 0)
        bucket = await store.create_bucket("new", "me", b"")
        assert bucket.generation == (1,)
        for number in range(10):
            await store.put(bucket, b"%d" % number, put_request((1, SMALL), Random(1)))
        await crowd(world, 1)
        assert (await store.create_bucket("newer", "me", b"")).generation == (0, 1)

    run(work)


def test_a_body_whose_home_set_became_crowded_while_it_came_in_is_taken():
    """Its shards are durable: to throw them away would cost more than a record."""

    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        request = put_request((1, LARGE), Random(1))
        seal = request.seal

        def late(size):
            for drive in world.bare[0]:
                drive.faults.crowded = True
            return seal(size)

        await store.put(bucket, key(), attrs.evolve(request, seal=late))

    run(work)
