"""Bodies go to another set where the home set has no room, or not enough drives; records and readers follow."""

from collections import Counter
from functools import partial
from random import Random

import msgspec
import pytest
import trio

from cluster.drives.drive import DriveState
from cluster.drives.memory_drive import MemoryDrive
from cluster.errors import (
    NotEmptyError,
    QuorumError,
    StorageFullError,
    UnavailableError,
)
from cluster.ids import DriveId
from cluster.layout import Seat
from cluster.objects.away import AwaySettings
from cluster.objects.model import PartChoice, Seal
from cluster.objects.source import object_source
from cluster.register.acceptor import Limits
from cluster.topology.changes import Place, position_at, replace_drive
from tests.sim.content import content, part_request, put_request
from tests.sim.run import simulate
from tests.sim.spread import Face, Plan, Spread, in_a_spread
from tests.sim.test_puts import holders, keep_stages, timed_put
from tests.sim.test_reads import read

pytestmark = pytest.mark.sim
SIZE = 200_000


def run(work, plan=None, seed=1):
    simulate(in_a_spread(plan or Plan(sets=2), work, seed), seed=seed)


def fill_up(world: Spread, set_id: int, count: int = 6) -> None:
    for drive in world.bare[set_id][:count]:
        drive.faults.full = True


async def bucket_in_the_first_set(world: Spread):
    """As one that was made before the other sets were added."""
    layout, store = world.layout, world.lives[world.nodes[0]].store
    keys = iter(range(1_000_000))
    bucket = await store.create_bucket("sim", "me", b"")
    assert bucket.generation == tuple(s.set_id for s in layout.sets)

    def key():
        while True:
            name = b"%d" % next(keys)
            if store._context.key_ref(bucket, name).set_id == 0:
                return name

    return store, bucket, key


@pytest.mark.parametrize("size", [SIZE, 6_000_000])
def test_a_full_home_set_sends_bodies_to_another_and_they_are_read_from_there(size):
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        at_home, away = key(), key()
        version = await store.put(bucket, at_home, put_request((1, size), Random(1)))
        assert version.parts[0].set_id == 0
        fill_up(world, 0)
        await trio.sleep(2)
        version = await store.put(bucket, away, put_request((1, size), Random(1)))
        part = version.parts[0]
        assert (part.set_id, part.k, part.staged) == (1, 4, 0b111111)
        assert holders(world, part, 1) == list(range(6))
        assert holders(world, part, 0) == []
        for node in world.nodes:
            for name in (at_home, away):
                await read(world.lives[node].store, bucket, name, size)
        world.crash(world.nodes[1])
        await read(store, bucket, away, size)

    run(work)


def test_drives_that_turn_out_to_be_full_send_a_body_that_is_still_at_hand_elsewhere():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        keep_stages(world)
        fill_up(world, 0)  # the other nodes do not know yet
        version = await store.put(bucket, key(), put_request((1, SIZE), Random(1)))
        assert version.parts[0].set_id == 1

    run(work)


def test_a_weak_home_set_sends_bodies_to_a_set_with_more_drives():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        for drive in world.bare[0][:2]:
            drive.fail("broken")
        await trio.sleep(2)
        name = key()
        version = await store.put(bucket, name, put_request((1, SIZE), Random(1)))
        assert (version.parts[0].set_id, version.parts[0].k) == (1, 4)
        await read(store, bucket, name, SIZE)

    run(work)


def test_where_no_set_is_whole_the_home_set_takes_a_weaker_code_and_then_the_strongest_other():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        for drives in world.bare:
            for drive in drives[:2]:
                drive.faults.full = True
        await trio.sleep(2)
        version = await store.put(bucket, key(), put_request((1, SIZE), Random(1)))
        assert (version.parts[0].set_id, version.parts[0].k) == (0, 3)
        fill_up(world, 0)
        await trio.sleep(2)
        version = await store.put(bucket, key(), put_request((1, SIZE), Random(1)))
        assert (version.parts[0].set_id, version.parts[0].k) == (1, 3)
        fill_up(world, 1)
        await trio.sleep(2)
        with pytest.raises(StorageFullError):
            await store.put(bucket, key(), put_request((1, SIZE), Random(1)))

    run(work)


def test_without_enough_drives_anywhere_there_is_no_place():
    async def work(world):
        await timed_put(world, SIZE)
        for node in world.nodes[1:]:
            world.crash(node)
        await trio.sleep(3)
        with pytest.raises(QuorumError):
            await timed_put(world, SIZE)

    run(work)


def test_free_space_weighs_and_is_measured_now_and_then():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        fill_up(world, 0)
        asked = Counter()
        for set_id, free in ((1, 1 << 30), (2, 9 << 30)):
            for drive in world.bare[set_id]:

                async def status(inner=drive.status, set_id=set_id, free=free):
                    asked[set_id] += 1
                    found = await inner()
                    object.__setattr__(found.usage, "free", free)
                    return found

                drive.status = status
        await trio.sleep(2)
        await store.put(bucket, key(), put_request((1, 20_000), Random(1)))
        await trio.sleep(1)
        asked.clear()
        went = Counter()
        begun = trio.current_time()
        for _ in range(100):
            version = await store.put(bucket, key(), put_request((1, 20_000), Random(1)))
            went[version.parts[0].set_id] += 1
        assert 2 <= went[1] <= 20
        assert went[1] + went[2] == 100
        assert asked[1] <= 6 * (1 + (trio.current_time() - begun) / 5)

    run(work, Plan(sets=3))


def test_multipart_and_copy_use_any_set():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        name, copied = key(), key()
        data = content((1, 3 * SIZE))
        upload = await store.create_upload(bucket, name, b"")
        choices, sets = [], []
        for number in range(1, 4):
            if number == 2:
                fill_up(world, 0)
                await trio.sleep(2)
            piece = data[(number - 1) * SIZE : number * SIZE]
            part = await store.put_part(
                bucket, name, upload, number, part_request(piece, Random(1))
            )
            sets.append(part.set_id)
            choices.append(PartChoice(number=number, validator=part.validator))
        assert sets == [0, 1, 1]
        seal = Seal(validator="v", attributes=b"")
        await store.complete_upload(bucket, name, upload, choices, lambda _, __: seal)
        await read(store, bucket, name, 3 * SIZE)
        found = await store.get(bucket, name)
        source = await object_source(found)
        request = put_request((1, 3 * SIZE), Random(1), source=source)
        version = await store.copy(found, bucket, copied, request)
        await source.aclose()
        assert version.parts[0].set_id == 1
        await read(store, bucket, copied, 3 * SIZE)

    run(work)


def test_a_drive_that_only_votes_takes_no_bodies():
    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        fill_up(world, 0, 1)
        await trio.sleep(2)
        assert world.bare[0][0].state is DriveState.READONLY
        version = await store.put(bucket, key(), put_request((1, SIZE), Random(1)))
        assert (version.parts[0].set_id, version.parts[0].staged) == (0, 0b111110)

    run(work)


def test_a_listing_that_one_of_several_sets_cannot_answer_fails_as_itself():
    """What goes wrong in one set is said in the words of the store, not as a group of errors that nobody expects."""

    async def work(world):
        store, bucket, key = await bucket_in_the_first_set(world)
        await store.put(bucket, key(), put_request((1, 10), Random(1)))
        with pytest.raises(NotEmptyError):
            await store.delete_bucket(bucket)  # fences it: what is known of it here is out of date
        shown = await store.list(bucket, prefix=b"", delimiter=b"", start=b"", limit=9)
        assert len(shown.entries) == 1
        for drive in world.bare[1]:
            drive.fail("broken")
        await trio.sleep(2)
        with pytest.raises(QuorumError):
            await store.list(bucket, prefix=b"", delimiter=b"", start=b"", limit=9)

    run(work)


def test_a_body_may_go_to_a_set_that_was_added_while_its_first_bytes_were_awaited():
    async def work(world):
        store, agreement = (
            world.lives[world.nodes[0]].core.store,
            world.lives[world.nodes[0]].core.agreement,
        )
        agreement._take(msgspec.structs.replace(world.layout, sets=world.layout.sets[:1]))
        bucket = await store.create_bucket("sim", "me", b"")
        fill_up(world, 0)
        await trio.sleep(2)
        request = put_request((1, SIZE), Random(1))
        readinto = request.source.readinto

        async def grow(buffer):
            agreement._take(world.layout)
            request.source.readinto = readinto
            return await readinto(buffer)

        request.source.readinto = grow
        version = await store.put(bucket, b"key", request)
        assert version.parts[0].set_id == 1

    run(work)


def test_a_drive_that_takes_over_a_position_owes_what_other_sets_registers_keep_there():
    limits = Limits(op_ttl_ms=2_000, max_put_ms=5_000)

    async def work(world):
        life = world.lives[world.nodes[0]]
        store, bucket, key = await bucket_in_the_first_set(world)
        fill_up(world, 0)
        await trio.sleep(2)
        versions = [
            await store.put(bucket, key(), put_request((1, SIZE), Random(1))) for _ in range(3)
        ]
        assert {version.parts[0].set_id for version in versions} == {1}
        await trio.sleep(20)  # every drive has asked, and knows its shards to be referred to
        old, place = world.bare[1][2], Place(1, 2)
        node = world.node_of(old.drive_id)
        new = MemoryDrive(
            DriveId(b"N" * 16), world.runtime, world.nursery, set_id=1, position=2, limits=limits
        )
        world.lives[node].core._own()[new.drive_id] = Face(new, world.lives[node].died)
        replace = partial(replace_drive, place=place, new=Seat(new.drive_id, node))
        await life.core.agreement.propose(life.core.table, replace)
        old.vanish()
        with trio.fail_after(60):
            while not position_at(life.core.layout, place).voting:
                await life.core.agreement.wait_changed()
        await trio.sleep(10)
        owed = {data_id for data_id, _ in new.platter.index.heal}
        assert owed == {version.parts[0].data_id for version in versions}

    away = AwaySettings(period_seconds=1.0, again_ms=1_000, later_ms=2_000, limits=limits)
    run(work, Plan(sets=2, limits=limits, away=away))


def test_what_lies_in_a_set_that_a_node_has_not_heard_of_is_unavailable():
    async def work(world):
        store, behind = (world.lives[node] for node in world.nodes[:2])
        bucket = await store.store.create_bucket("sim", "me", b"")
        context = store.store._context
        key = next(b"%d" % n for n in range(99) if context.key_ref(bucket, b"%d" % n).set_id == 1)
        behind.core.agreement._take(
            msgspec.structs.replace(world.layout, sets=world.layout.sets[:1])
        )
        for size in (1, SIZE):
            with pytest.raises(UnavailableError, match="set 1 is not known here yet"):
                await behind.store.put(bucket, key, put_request((1, size), Random(1)))
        with pytest.raises(UnavailableError):
            await behind.store.get(bucket, key)

    run(work)
