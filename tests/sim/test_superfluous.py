"""What becomes of bodies in another set than their register's, when nothing refers to them any more."""

import contextlib
from random import Random

import msgspec
import pytest
import trio

from cluster.drives import away_notes
from cluster.drives.away_notes import AwayNotes
from cluster.drives.drive import DriveError
from cluster.drives.index_rows import NoteKind
from cluster.erasure.codec import CODEC
from cluster.erasure.shard_format import ShardHeader
from cluster.errors import NotEmptyError, NotFoundError
from cluster.healing.settings import HealingSettings
from cluster.objects import away, buckets
from cluster.objects.away import AwaySettings
from cluster.objects.model import PartChoice, Seal
from cluster.register.acceptor import Limits
from cluster.register.away import Note
from cluster.register.keys import object_row
from tests.sim.content import content, part_request, put_request
from tests.sim.spread import Plan
from tests.sim.test_data_sets import SIZE, bucket_in_the_first_set, fill_up, run
from tests.sim.test_reads import read

pytestmark = pytest.mark.sim
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


async def bucket_of_before_the_pool(world, store):
    """Its registers are all in the first set."""
    agreement = world.lives[world.nodes[0]].core.agreement
    agreement._take(msgspec.structs.replace(world.layout, sets=world.layout.sets[:1]))
    bucket = await store.create_bucket("sim", "me", b"")
    agreement._take(world.layout)
    return bucket


async def object_of_a_long_list_away(world):
    """An object whose parts are too many for its record, all of them in the other set; its store and bucket."""
    world.nursery.start_soon(upkeep, world)
    life = world.lives[world.nodes[0]]
    bucket = await bucket_of_before_the_pool(world, life.store)
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
        bucket = await bucket_of_before_the_pool(world, life.store)
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
