"""What the simulator found in the store, each as a scenario of its own."""

from functools import partial

import attrs
import pytest
import trio
import trio.testing
from msgspec.structs import replace

from cluster.clock import Ballot
from cluster.drives.memory_drive import MemoryDrive
from cluster.errors import ClusterError, NotEmptyError, QuorumError, UnavailableError
from cluster.healing import service
from cluster.ids import BucketId, DataId, DriveId
from cluster.layout import SYSTEM
from cluster.objects.fencing import fence_set
from cluster.objects.model import PutRequest, Seal
from cluster.register.keys import bucket_of, object_row, system_row
from cluster.register.messages import (
    Accept,
    Accepted,
    Failed,
    Fence,
    Prepare,
    Query,
    Scan,
    ScanUploads,
)
from cluster.register.records import BodyId, BodyRef, KeyState, Part, Version, encode_parts
from cluster.topology.system_changes import begin_system_change
from tests.sim.cluster import NODES
from tests.sim.content import put_request
from tests.sim.quiet import quiet_world
from tests.sim.run import SimRuntime, simulate
from tests.sim.single_node import SingleNode

pytestmark = pytest.mark.sim
ROW, BALLOT = system_row(b"x"), Ballot(1, 0, 1)


def test_drives_that_break_under_a_body_fail_the_put_and_nothing_else():
    """The reader of the body, whose chunks nobody takes any more, has no say in why it failed."""

    async def main(rng, trace):
        async with trio.open_nursery() as nursery:
            world = SingleNode(rng, nursery, trace)
            store = world.coordinator(nursery)
            bucket = await store.create_bucket("sim", "1", b"")
            chunk = max(world.layout.chunk, world.layout.k * world.layout.block)

            class Source:
                size_hint, given = None, 0

                async def readinto(self, buffer):
                    for _ in range(rng.randrange(20)):
                        await trio.lowlevel.checkpoint()
                    self.given += len(buffer)
                    if self.given > 2 * chunk:
                        for drive in world.drives:
                            drive.fail("broken")
                    return len(buffer)

            seal = Seal(validator="v", attributes=b"")
            with pytest.raises(ClusterError):
                await store.put(bucket, b"key", PutRequest(source=Source(), seal=lambda _: seal))
            nursery.cancel_scope.cancel()

    for seed in range(20, 50):
        simulate(main, seed=seed)


def test_a_drive_that_failed_while_a_row_was_read_has_no_vote():
    """What it had made durable before is not wrong, but nobody may count on it any more (I12, I14)."""

    async def main(rng, trace):
        async with trio.open_nursery() as nursery:
            drive = MemoryDrive(DriveId(bytes(16)), SimRuntime(rng), nursery)
            replies = []
            drive.submit(Query(row=ROW, epoch=1, bucket_epoch=0), replies.append)
            drive.submit(Prepare(row=ROW, ballot=BALLOT, epoch=1, bucket_epoch=0), replies.append)
            drive.submit(
                Scan(start=ROW, stop=None, limit=9, epoch=1, bucket_epoch=0), replies.append
            )
            uploads = ScanUploads(
                bucket=bucket_of(ROW), start=ROW, limit=9, epoch=1, bucket_epoch=0
            )
            drive.submit(uploads, replies.append)
            await trio.testing.wait_all_tasks_blocked()
            drive.fail("broken")
            await trio.sleep(1)
            assert len(replies) == 4
            assert all(isinstance(reply, Failed) for reply in replies), replies
            nursery.cancel_scope.cancel()

    simulate(main, seed=1)


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_drive_that_missed_a_body_and_takes_the_next_write_owes_the_shard(is_listed):
    """The confirmation of a state, or an upload opened beside it, introduces nothing: the debt is older (I17)."""

    async def main(rng, trace):
        async with trio.open_nursery() as nursery:
            drive = MemoryDrive(DriveId(bytes(16)), SimRuntime(rng), nursery, position=1)
            replies = []
            part = Part(
                number=1, size=9000, validator="v", attributes=b"", data_id=DataId(b"d" * 16),
                intro=BALLOT, codec="c", set_id=0, k=4, m=2, block=65536, staged=0b111101,
                digest_root=bytes(16),
            )  # fmt: skip
            version = Version(
                version_id=None, delete_marker=False, stamp=BALLOT, op_hlc=1, size=9000,
                validator="v", attributes=b"", mtime_ms=1, parts=(part,),
            )  # fmt: skip
            bodies = {}
            if (
                is_listed
            ):  # and the parts' own registers, which knew of the debt, go with the upload
                body = BodyRef(id=BodyId(b"b" * 16), size=1, digest=bytes(16), count=1)
                bodies = {body.id: encode_parts((part,))}
                version = replace(version, parts=(), body=body)
            drive.submit(
                Accept(
                    row=ROW, ballot=Ballot(2, 0, 1), epoch=1, bucket_epoch=0, base=BALLOT,
                    state=KeyState(versions=(version,)), bodies=bodies,
                ),
                replies.append,
            )  # fmt: skip
            await trio.sleep(1)
            assert isinstance(replies[0], Accepted)
            assert (part.data_id, 1) in drive.platter.index.heal
            nursery.cancel_scope.cancel()

    simulate(main, seed=1)


def test_a_prefix_is_not_shown_for_keys_before_the_start_of_the_listing():
    """Where its witness is in doubt the prefix is searched for a living key: from where the listing begins."""

    async def main(rng, trace):
        async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, bucket):
            store = world.processes[NODES[0]].store
            for number, key in enumerate((b"b/1", b"b/2")):
                await store.put(bucket, key, put_request((number, 1), rng))
            await store.delete(bucket, b"b/2")
            await trio.sleep(2)
            (drive, *_) = world.drives  # of a copy that cannot be read nobody knows what it is
            drive.crash()
            drive.platter.index.corrupt.add(object_row(bucket.bucket_id, b"b/2"))
            for start, shown in ((b"b/1", [b"b/"]), (b"b/2", []), (b"", [b"b/"])):
                page = await store.list(bucket, prefix=b"", delimiter=b"/", start=start, limit=9)
                assert [entry.key for entry in page.entries] == shown, start

    simulate(main, seed=1)


def test_bytes_that_cannot_be_read_do_not_make_the_bucket_vanish():
    """A bucket whose deletion was refused since then stands, under another fence."""

    async def main(rng, trace):
        async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, bucket):
            store = world.processes[NODES[0]].store
            await store.put(bucket, b"key", put_request((1, 100_000), rng))
            found = await store.get(bucket, b"key")
            with pytest.raises(NotEmptyError):
                await store.delete_bucket(bucket)
            for drive in world.drives[:4]:
                drive.platter.shards.clear()
            with pytest.raises(UnavailableError):
                await found.open(0, 100_000)

    simulate(main, seed=1)


def test_a_system_drive_that_stays_when_others_go_has_taken_what_it_missed(monkeypatch):
    """It is one of few then, or the only one: what the others knew, and it not yet, would be lost."""

    async def not_yet(*_):
        """What the drive missed does not come by itself."""

    monkeypatch.setattr(service, "pass_hints", not_yet)
    monkeypatch.setattr(service, "catch_up", not_yet)
    monkeypatch.setattr(service.Healing, "_compare", not_yet)

    async def main(rng, trace):
        async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, _):
            core, drive = world.processes[NODES[0]].core, world.drives[0]
            drive.faults.hung = True
            bucket = await core.store.create_bucket("late", "root", b"")
            drive.faults.hung = False
            await core.agreement.propose(core.table, partial(begin_system_change, size=1))
            with trio.fail_after(30):
                while core.layout.system_set != SYSTEM:
                    await core.agreement.wait_changed()
            assert [seat.drive for seat in core.layout.system] == [drive.drive_id]
            found = await core.store.get_bucket("late")
            assert found.bucket_id == bucket.bucket_id

    simulate(main, seed=1)


def test_a_fence_that_busy_nodes_refuse_is_asked_for_again():
    """Else a bucket that is being deleted is in nobody's reach for seconds."""

    @attrs.frozen
    class Busy:
        drive: object
        refusals: list

        def submit(self, request, reply):
            if self.refusals:
                reply(self.refusals.pop())
            else:
                self.drive.submit(request, reply)

    async def main(rng, trace):
        async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, _):
            table = world.processes[NODES[0]].core.table
            members = table.members_of(0)
            busy = [Failed("too many operations wait")] * 3
            drives = [
                Busy(drive, list(busy) if position < 3 else [])
                for position, drive in enumerate(members.drives)
            ]
            fence = Fence(bucket=BucketId(b"b" * 16), bucket_epoch=2)
            began = trio.current_time()
            await fence_set(attrs.evolve(members, drives=drives), fence, table.watch)
            assert trio.current_time() - began < 1
            broken = [Busy(drive, busy * 1000) for drive in members.drives]
            with pytest.raises(QuorumError):
                await fence_set(attrs.evolve(members, drives=broken), fence, table.watch)
            assert trio.current_time() - began < 7

    simulate(main, seed=1)
