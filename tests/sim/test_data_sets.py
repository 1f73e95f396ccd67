"""Bodies go to another set where the home set has no room, or not enough drives; records and readers follow."""

import contextlib
from collections import Counter
from random import Random

import msgspec
import pytest
import trio

from cluster.drives import away_notes
from cluster.drives.away_notes import AwayNotes
from cluster.drives.drive import DriveError, DriveState
from cluster.drives.index_rows import NoteKind
from cluster.erasure.codec import CODEC
from cluster.erasure.shard_format import ShardHeader
from cluster.errors import (
    NotEmptyError,
    NotFoundError,
    QuorumError,
    StorageFullError,
    UnavailableError,
)
from cluster.healing.settings import HealingSettings
from cluster.objects import away, buckets
from cluster.objects.away import AwaySettings
from cluster.objects.model import PartChoice, Seal
from cluster.objects.source import object_source
from cluster.register.acceptor import Limits
from cluster.register.away import Note
from cluster.register.keys import object_row
from tests.sim.content import content, part_request, put_request
from tests.sim.run import simulate
from tests.sim.spread import Plan, Spread, in_a_spread
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


def test_a_note_that_names_a_set_which_is_not_there_waits():
    """Notes come from other nodes: whatever they say, asking does no harm."""

    async def work(world):
        drive, away = world.bare[1][0], world.lives[world.nodes[0]].core.away
        owner = b"b" * 16 + b"okey"
        note = Note(bytes(16), 1, 99, owner, bytes(16), b"", False, False, 1)
        await drive.look(
            [note, msgspec.structs.replace(note, data_id=b"x" * 16, owner=b"?", home=0)]
        )
        await away.look()
        await away.deliver()
        await trio.sleep(1)
        assert not await drive.notes.due(NoteKind.LOOK)  # asked, and to be asked again
        assert len(drive.platter.index.notes) == 1  # the other has no owner to ask
        assert not drive.platter.index.trash

    run(work)


QUICK = Limits(op_ttl_ms=2_000, max_put_ms=5_000, ceiling_lease_ms=1_000)
QUICKLY = AwaySettings(
    period_seconds=1.0, again_ms=1_000, later_ms=2_000, open_ms=3_000, limits=QUICK
)


async def upkeep(world):
    while True:
        await trio.sleep(1)
        for drive in [drive for drives in world.bare for drive in drives]:
            with contextlib.suppress(DriveError), trio.move_on_after(1):
                await drive.collect()


async def object_of_a_long_list_away(world):
    """An object whose parts are too many for its record, all of them in the other set; its store and bucket."""
    world.nursery.start_soon(upkeep, world)
    life = world.lives[world.nodes[0]]
    life.core.agreement._take(msgspec.structs.replace(world.layout, sets=world.layout.sets[:1]))
    bucket = await life.store.create_bucket("sim", "me", b"")
    life.core.agreement._take(world.layout)
    fill_up(world, 0)
    await trio.sleep(2)
    upload = await life.store.create_upload(bucket, b"key", b"")
    choices = []
    for number in range(1, 19):
        piece = part_request(content((number, 9_000)), Random(1))
        part = await life.store.put_part(bucket, b"key", upload, number, piece)
        assert part.set_id == 1
        choices.append(PartChoice(number=number, validator=part.validator))
    seal = Seal(validator="v", attributes=b"")
    await life.store.complete_upload(bucket, b"key", upload, choices, lambda _, __: seal)
    return life.store, bucket


def is_empty(world, set_id):
    return not any(drive.platter.index.shards for drive in world.bare[set_id])


def test_a_hint_about_what_some_drives_lacked_does_not_hide_that_it_is_superfluous():
    async def work(world):
        world.crash(world.nodes[2])
        await trio.sleep(2)
        store, bucket = await object_of_a_long_list_away(world)
        await trio.sleep(20)
        await store.delete(bucket, b"key")
        await trio.sleep(5)
        world.start(world.nodes[2])
        await world.settle()
        await trio.sleep(60)
        assert is_empty(world, 1)

    run(work, Plan(sets=2, limits=QUICK, away=QUICKLY, grace_ms=3_000))


def test_a_hint_that_was_lost_is_made_up_for(monkeypatch):
    """All nodes lose power between the ACCEPT and the LEARN of a deletion: of a long list nothing else tells."""
    monkeypatch.setattr(AwayNotes, "on_superfluous", lambda *_: None)
    monkeypatch.setattr(away_notes, "KEPT_MS", 30_000)

    async def work(world):
        store, bucket = await object_of_a_long_list_away(world)
        await trio.sleep(20)  # every drive has asked, and knows its shards to be referred to
        await store.delete(bucket, b"key")
        await trio.sleep(10)
        assert not is_empty(world, 1)
        await trio.sleep(60)
        assert is_empty(world, 1)

    run(work, Plan(sets=2, limits=QUICK, away=QUICKLY, grace_ms=3_000))


def test_what_is_due_is_done_page_after_page(monkeypatch):
    """And not a page in a period: whoever overwrites faster than that would fill the set."""
    monkeypatch.setattr(away_notes, "NOTES_AT_A_TIME", 4)
    monkeypatch.setattr(away, "NOTES_AT_A_TIME", 4)
    monkeypatch.setattr(AwayNotes.due, "__defaults__", (4,))

    async def work(world):
        world.nursery.start_soon(upkeep, world)
        store, bucket, key = await bucket_in_the_first_set(world)
        fill_up(world, 0)
        await trio.sleep(2)
        keys = [key() for _ in range(40)]
        for name in keys:
            await store.put(bucket, name, put_request((1, 20_000), Random(1)))
        assert not is_empty(world, 1)
        await trio.sleep(10)
        for name in keys:
            await store.delete(bucket, name)
        await trio.sleep(12)
        assert is_empty(world, 1)

    run(work, Plan(sets=2, limits=QUICK, away=QUICKLY, grace_ms=3_000))


def test_a_body_that_no_record_names_goes_when_its_bucket_is_gone():
    """The drives of the other set do not hear of the deletion; and the registers say nothing of a dead bucket any more."""
    limits = Limits(op_ttl_ms=1_000, max_put_ms=1_000)

    async def work(world):
        life = world.lives[world.nodes[0]]
        life.core.agreement._take(msgspec.structs.replace(world.layout, sets=world.layout.sets[:1]))
        bucket = await life.store.create_bucket("sim", "me", b"")
        life.core.agreement._take(world.layout)
        drive = world.bare[1][0]
        header = ShardHeader(
            data_id=life.store._context.draw_data_id(), owner=object_row(bucket.bucket_id, b"key"), position=0,
            k=4, m=2, block=8192, codec=CODEC, home=0,
        )  # fmt: skip
        stage = drive.open_stage(header, 0)
        await stage.write([memoryview(b"block")])
        await stage.close(bytes(16))
        await life.store.delete_bucket(bucket)
        await trio.sleep(10)
        await drive.collect()
        await trio.sleep(world.plan.grace_ms / 1000)
        await drive.collect()
        assert not drive.platter.index.shards
        assert not drive.platter.index.notes

    run(work, Plan(sets=2, limits=limits, away=AwaySettings(period_seconds=1.0, limits=limits)))


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


def test_a_bucket_whose_end_was_told_to_nobody_leaves_nothing(monkeypatch):
    """Whoever deleted it died when its record was gone; an upload was open in it."""
    fence_set = buckets.fence_set

    async def work(world):
        async def die(members, fence, watch):
            if fence.dead:
                world.crash(world.nodes[0])
                await trio.sleep_forever()
            return await fence_set(members, fence, watch)

        world.nursery.start_soon(upkeep, world)
        stores = [world.lives[node].store for node in world.nodes]
        bucket = await stores[0].create_bucket("sim", "me", b"")
        alive = await stores[0].create_bucket("alive", "me", b"")
        for number in range(8):
            upload = await stores[0].create_upload(bucket, b"%d" % number, b"")
            piece = part_request(content((1, SIZE)), Random(1))
            await stores[0].put_part(bucket, b"%d" % number, upload, 1, piece)
        await stores[0].put(alive, b"key", put_request((1, SIZE), Random(1)))
        with pytest.raises(NotEmptyError):
            await stores[0].delete_bucket(alive)
        assert not any(is_empty(world, set_id) for set_id in (0, 1))
        monkeypatch.setattr(buckets, "fence_set", die)
        with trio.move_on_after(5):
            await stores[0].delete_bucket(bucket)
        monkeypatch.undo()
        world.start(world.nodes[0])
        await world.settle()
        with pytest.raises(NotFoundError):
            await stores[1].get_bucket("sim")
        await trio.sleep(60)
        for drive in (*world.bare[0], *world.bare[1]):
            assert not [row for row in drive.platter.index.rows if row[:16] == bucket.bucket_id]
            assert len(drive.platter.index.shards) <= 1
        await read(stores[1], await stores[1].get_bucket("alive"), b"key", SIZE)

    healing = HealingSettings(limits=QUICK, bury_seconds=5.0)
    run(work, Plan(sets=2, limits=QUICK, healing=healing, grace_ms=3_000))


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
