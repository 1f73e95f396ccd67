"""A set of MemoryDrives with a table over it, in virtual time, and words to write, break and look."""

import contextlib
from random import Random

import trio
import xxhash

from cluster.clock import BALLOT_ZERO, HybridClock
from cluster.drives.memory_drive import MemoryDrive
from cluster.erasure.shard_format import ShardHeader
from cluster.healing.copying import Copier
from cluster.healing.settings import HealingSettings
from cluster.ids import BucketId, DataId, NodeId, UploadId, new_data_id
from cluster.layout import encode_layout
from cluster.metadata.commit import TableSettings
from cluster.metadata.table import RegisterRef, Table
from cluster.register.keys import object_row
from cluster.register.messages import Learn, Query
from cluster.register.mutations import DeleteVersion, OpenUpload, PutVersion
from cluster.register.records import BodyId, BodyRef, Part, Upload, Version
from tests.contracts.benches import Answers
from tests.sim.run import SimRuntime
from tests.topology.layouts import make_layout

BUCKET = BucketId(b"b" * 16)
K, M = 2, 2


class World:
    """Four drives; `layout` is what the table goes by, and each drive serves the epoch that it was told."""

    def __init__(self, nursery, **settings):
        self.nursery = nursery
        self.runtime = SimRuntime(Random(1))
        self.layout = make_layout(K + M, 1, K, M)
        self.drives = [self.make(p.drive, i) for i, p in enumerate(self.layout.sets[0].positions)]
        self.clock = HybridClock(self.runtime.wall_ms, 7)
        self.table = Table(
            drives_of=lambda _: self.drives, layout=lambda: self.layout, clock=self.clock,
            runtime=self.runtime, settings=TableSettings(round_seconds=0.5, straggler_seconds=0.1),
        )  # fmt: skip
        nursery.start_soon(self.table.run)
        self.copier = Copier(self.table, 0, HealingSettings(round_seconds=0.5, **settings))

    def make(self, drive_id, position):
        return MemoryDrive(drive_id, self.runtime, self.nursery, position=position, grace_ms=1000)

    def ref(self, key=b"key"):
        return RegisterRef(object_row(BUCKET, key), 0, 1)

    async def put(self, key=b"key", *, inline=None, parts=(), listed=None):
        """A version with that content; the committed outcome."""
        body, bodies = None, {}
        data = inline if inline is not None else listed
        if data is not None:
            body = BodyRef(
                id=BodyId(self.runtime.rng.randbytes(16)), size=len(data), digest=xxhash.xxh3_128_digest(data),
                count=17 if listed is not None else 0,
            )  # fmt: skip
            bodies = {body.id: data}
        version = Version(
            version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=0, size=1, validator="v",
            attributes=b"", mtime_ms=0, body=body, parts=parts,
        )  # fmt: skip
        return await self.table.commit(self.ref(key), PutVersion(version=version), bodies=bodies)

    async def delete(self, key=b"key"):
        return await self.table.commit(self.ref(key), DeleteVersion())

    async def open_upload(self, key=b"key"):
        upload = Upload(UploadId(b"u" * 16), BALLOT_ZERO, b"", 0)
        return await self.table.commit(self.ref(key), OpenUpload(upload=upload))

    async def stage(self, key=b"key", drives=range(K + M)):
        """A body on these drives; the part that names it."""
        data_id = new_data_id(self.clock.tick().hlc, NodeId(1), self.runtime.rng)
        for position in drives:
            header = ShardHeader(
                data_id=data_id, owner=self.ref(key).row, position=position, k=K, m=M, block=65536, codec="c"
            )  # fmt: skip
            stage = self.drives[position].open_stage(header, 10)
            await stage.write([bytes(10)])
            await stage.close(bytes(16))
        return Part(
            number=1, size=10, validator="v", attributes=b"", data_id=data_id, intro=BALLOT_ZERO, codec="c",
            set_id=0, k=K, m=M, block=65536, staged=sum(1 << i for i in drives), digest_root=bytes(16),
        )  # fmt: skip

    async def ask(self, position, request):
        answers = Answers()
        self.drives[position].submit(request, answers)
        return await answers.first()

    async def held(self, position, key=b"key"):
        """What a drive holds."""
        query = Query(row=self.ref(key).row, epoch=self.layout.epoch, bucket_epoch=1, bodies=True)
        return await self.ask(position, query)

    async def learn(self, position, ballot, key=b"key"):
        await self.ask(position, Learn(row=self.ref(key).row, ballot=ballot))

    @contextlib.contextmanager
    def hung(self, *positions):
        """Deaf and dumb; what is not answered within is never answered."""
        for position in positions:
            self.drives[position].faults.hung = True
        yield
        for position in positions:
            self.drives[position].faults.hung = False

    async def adopt(self, layout, positions=range(K + M)):
        """The table and these drives go by a new layout."""
        self.layout = layout
        for position in positions:
            await self.drives[position].layout.keep(layout.epoch, encode_layout(layout))

    async def collect(self):
        for drive in self.drives:
            await drive.collect()
            await trio.sleep(0.1)

    def has_shard(self, position, data_id: DataId):
        return self.drives[position].platter.holds(data_id, position)


@contextlib.asynccontextmanager
async def world(**settings):
    async with trio.open_nursery() as nursery:
        yield World(nursery, **settings)
        nursery.cancel_scope.cancel()
