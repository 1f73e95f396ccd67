"""One node over six MemoryDrives in virtual time: faults by an atlas, clients, and every checker afterwards."""

import contextlib
import hashlib
import itertools
from functools import partial
from random import Random

import trio

from cluster.clock import HybridClock
from cluster.drives.drive import DriveError, DriveState
from cluster.drives.index_rows import HeadRow
from cluster.drives.memory_drive import MemoryDrive
from cluster.erasure.codec import CODEC
from cluster.erasure.profile import Profile
from cluster.errors import (
    ClusterError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    UnavailableError,
)
from cluster.ids import ClusterId, DriveId, NodeId
from cluster.layout import Layout
from cluster.metadata.commit import TableSettings
from cluster.metadata.table import Table
from cluster.objects.context import ObjectSettings
from cluster.objects.model import Absent, PartChoice, PutRequest, Seal, ValidatorIn
from cluster.objects.source import object_source
from cluster.objects.store import ObjectStore
from cluster.quorum import Quorum
from cluster.register.acceptor import Limits
from cluster.register.keys import is_part, owner_row
from cluster.register.messages import CHOSEN
from cluster.register.records import decode_state
from cluster.topology.formation import form_sets
from tests.sim.checkers import ListPage, Op, ViolationError, check_linearizable, check_page
from tests.sim.run import SimRuntime

GRACE_MS = 1_000
KEYS = (b"a", b"b/1", b"b/2", b"c")
KINDS = {
    "put": 26, "get": 33, "delete": 14, "create": 8, "replace": 10, "upload": 6, "copy": 5,
}  # fmt: skip
SIZES = (0, 1, 100, 4096, 4097, 20_000, 70_000, 300_000)


class Bytes:
    """A Source over bytes, in pieces as a network would give them."""

    def __init__(self, data, rng):
        self.data, self.at, self.rng = data, 0, rng
        self.size_hint = len(data)

    async def readinto(self, buffer):
        await trio.lowlevel.checkpoint()
        count = min(len(buffer), len(self.data) - self.at, self.rng.choice([1000, 60_000, 1 << 20]))
        buffer[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count


def content(value):
    """The bytes of a value name their writer: any mixture of generations shows."""
    number, size = value
    seed = hashlib.sha256(b"%d" % number).digest()
    return (seed * (size // 32 + 1))[:size]


def part_request(data, rng):
    validator = hashlib.sha256(data).hexdigest()
    return PutRequest(
        source=Bytes(data, rng), seal=lambda _: Seal(validator=validator, attributes=b"")
    )


def put_request(value, rng, expect=(), source=None):
    md5 = hashlib.md5(usedforsecurity=False)
    return PutRequest(
        source=Bytes(content(value), rng) if source is None else source,
        digests=[md5],
        seal=lambda size: Seal(validator=f"{value[0]}-{value[1]}", attributes=b""),
        expect=expect,
    )


class World:
    """The node, its drives, and what clients saw."""

    def __init__(self, rng: Random, nursery: trio.Nursery, trace, mutate=None):
        self.rng, self.trace = rng, trace
        self.runtime = SimRuntime(Random(rng.getrandbits(64)))
        profile = rng.choice([Profile(4, 2), Profile(2, 1), Profile(2, 2), Profile(1, 1)])
        # The atlas: never more than m shards of a set, nor a drive that the accept quorum needs, at once.
        self.budget = min(profile.m, profile.n - Quorum(profile.n).accept)
        limits = Limits(
            op_ttl_ms=rng.choice([2_000, 300_000]), ceiling_lease_ms=rng.choice([0, 50, 1000])
        )
        self.drives = [
            MemoryDrive(
                DriveId(bytes([i]) * 16),
                self.runtime,
                nursery,
                position=i,
                limits=limits,
                grace_ms=GRACE_MS,
                cache_bytes=rng.choice([0, 4_000, 1 << 20]),
            )
            for i in range(profile.n)
        ]
        self.faces = [mutate(drive) for drive in self.drives] if mutate else self.drives
        sets = form_sets(
            [(d.drive_id, NodeId(1), 0, i) for i, d in enumerate(self.drives)], profile
        )
        self.layout = Layout(
            epoch=1, cluster=ClusterId(b"c" * 16), nodes=(), sets=sets, system_set=0, k=profile.k, m=profile.m, codec=CODEC,
        )  # fmt: skip
        self.settings = TableSettings(
            round_seconds=0.5,
            hedge_seconds=0.02,
            op_ttl_ms=limits.op_ttl_ms,
            ring_kept=rng.choice([2, 8, 64]),
        )
        self.history: list[Op] = []
        self.pages: list[ListPage] = []
        self.numbers = iter(range(1, 1_000_000))
        self.drive_faults = 0

    def coordinator(self, nursery):
        """A store of its own over the same drives: several proposers, as several nodes would be."""
        runtime = SimRuntime(
            Random(self.rng.getrandbits(64)), offset_ms=self.rng.randint(-2000, 2000)
        )
        clock = HybridClock(runtime.wall_ms, self.rng.getrandbits(64))
        table = Table(
            drives_of=lambda _: self.faces,
            layout=lambda: self.layout,
            clock=clock,
            runtime=runtime,
            settings=self.settings,
        )
        nursery.start_soon(table.run)
        settings = ObjectSettings(
            straggler_max_seconds=0.2, stage_seconds=3.0, straggler_feed_seconds=1.0
        )
        return ObjectStore(
            table=table, drives_of=lambda _: self.faces, layout=lambda: self.layout, clock=clock, runtime=runtime,
            node_id=NodeId(1), nursery=nursery, settings=settings,
        )  # fmt: skip

    # -- clients

    async def client(self, store, name, turns):
        bucket = await persist(lambda: store.get_bucket("sim"))
        for _ in range(turns):
            await trio.sleep(self.rng.choice([0, 0.001, 0.01, 0.1]))
            if self.rng.random() < 0.12:
                await self.list_page(store, bucket)
            else:
                await self.one(store, bucket, name)

    async def one(self, store, bucket, name):
        kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        key = self.rng.choice(KEYS)
        # An upload and a copy are PUTs, as far as the key is concerned.
        as_key = "put" if kind in {"upload", "copy"} else kind
        op = Op(kind=as_key, key=key, start=trio.current_time())
        if kind in {"put", "create", "replace", "upload"}:
            op.value = (next(self.numbers), self.rng.choice(SIZES))
        if kind == "replace":
            seen = [other.value for other in self.history if other.key == key and other.value]
            op.expected = self.rng.choice(seen) if seen else (0, 0)
        self.history.append(op)
        try:
            with trio.move_on_after(self.rng.choice([0.01, 30, 30, 30, 30])) as scope:
                await self.carry_out(kind, store, bucket, op)
                op.outcome = "ok"
            if scope.cancelled_caught:
                op.outcome = "failed" if kind == "copy" and op.value is None else "unknown"
        except PreconditionError:
            op.outcome = "refused"
        except OutcomeUnknownError:
            op.outcome = "unknown"
        except ClusterError as error:
            op.outcome = "failed"
            self.trace.say(name, type(error).__name__)
        op.end = trio.current_time() if op.outcome in {"ok", "refused"} else float("inf")
        self.trace.say(name, kind, op.key, op.value, op.outcome)

    async def carry_out(self, kind, store, bucket, op):
        match kind:
            case "get":
                op.value = await self.read(store, bucket, op.key)
            case "delete":
                await store.delete(bucket, op.key)
            case "put":
                await store.put(bucket, op.key, put_request(op.value, self.rng))
            case "create":
                await store.put(bucket, op.key, put_request(op.value, self.rng, (Absent(),)))
            case "replace":
                tag = f"{op.expected[0]}-{op.expected[1]}"
                await store.put(
                    bucket,
                    op.key,
                    put_request(op.value, self.rng, (ValidatorIn(validators=(tag,)),)),
                )

            case "upload":
                await self.upload(store, bucket, op)
            case "copy":
                await self.copy(store, bucket, op)

    async def upload(self, store, bucket, op):
        """A multipart upload: parts are sent twice, Complete is repeated, Abort races with it."""
        rng, data = self.rng, content(op.value)
        upload = await store.create_upload(bucket, op.key, b"")
        count = rng.choice([1, 2, 3, 3, 18]) if len(data) > 100 else 1
        cuts = [0, *sorted(rng.sample(range(1, max(len(data), 2)), count - 1)), len(data)]
        choices = []
        for number, (start, stop) in enumerate(itertools.pairwise(cuts), 1):
            bodies = [b"superseded"] if rng.random() < 0.1 else []
            for body in [*bodies, data[start:stop]]:
                part = await store.put_part(bucket, op.key, upload, number, part_request(body, rng))
            choices.append(PartChoice(number=number, validator=part.validator))
        verdicts = []

        async def finish(call):
            try:
                verdicts.append(await call())
            except ClusterError as error:
                verdicts.append(error)

        seal = Seal(validator=f"{op.value[0]}-{op.value[1]}", attributes=b"")
        complete = partial(
            store.complete_upload, bucket, op.key, upload, choices, lambda _, __: seal
        )
        async with trio.open_nursery() as nursery:
            for _ in range(rng.choice([1, 1, 2])):
                nursery.start_soon(finish, complete)
            if rng.random() < 0.2:
                nursery.start_soon(self.abort, store, bucket, op.key, upload)
        errors = [verdict for verdict in verdicts if isinstance(verdict, ClusterError)]
        if len(errors) == len(verdicts):
            unknown = [error for error in errors if isinstance(error, OutcomeUnknownError)]
            raise (unknown or errors)[0]

    @staticmethod
    async def abort(store, bucket, key, upload):
        with contextlib.suppress(ClusterError):
            await store.abort_upload(bucket, key, upload)

    async def copy(self, store, bucket, op):
        """A copy of whatever lies under another key."""
        try:
            found = await store.get(bucket, self.rng.choice(KEYS))
        except NotFoundError as error:
            raise UnavailableError("there is nothing to copy") from error
        number, _, size = found.version.validator.partition("-")
        source = await object_source(found)
        try:
            op.value = (int(number), int(size))
            await store.copy(found, bucket, op.key, put_request(op.value, self.rng, source=source))
        finally:
            await source.aclose()

    async def read(self, store, bucket, key):
        try:
            found = await store.get(bucket, key)
        except NotFoundError:
            return None
        number, _, size = found.version.validator.partition("-")
        value = (int(number), int(size))
        reader = await found.open(0, found.version.size)
        data = b""
        while (buffers := await reader.next()) is not None:
            data += b"".join(buffers)
        await reader.aclose()
        if data != content(value):
            raise ViolationError(f"{key!r}: wrong bytes for {value}")
        if data and self.rng.random() < 0.3:
            await self.read_range(found, key, data)
        return value

    async def read_range(self, found, key, data):
        start = self.rng.randrange(len(data))
        stop = self.rng.randint(start + 1, len(data))
        with contextlib.suppress(UnavailableError):  # it was replaced meanwhile, or drives went
            reader = await found.open(start, stop)
            got = b""
            try:
                while (buffers := await reader.next()) is not None:
                    got += b"".join(buffers)
            finally:
                await reader.aclose()
            if got != data[start:stop]:
                raise ViolationError(f"{key!r}: wrong bytes in {start}..{stop}")

    async def list_page(self, store, bucket):
        begun = trio.current_time()
        try:
            listing = await store.list(
                bucket, prefix=b"", delimiter=b"", start=b"", limit=self.rng.choice([1, 2, 10])
            )
        except ClusterError:
            return
        keys = [entry.key for entry in listing.entries]
        self.pages.append(ListPage(b"", listing.resume, keys, begun, trio.current_time()))
        self.trace.say("list", keys)

    # -- faults: never more at once than the code and the quorums bear, so that any violation is a bug

    async def chaos(self):
        while True:
            await trio.sleep(self.rng.uniform(0.01, 0.5))
            drive = self.rng.choice(self.drives)
            hurt = [d for d in self.drives if is_hurt(d) or self.owes(d)]
            fault = self.rng.choice(
                [
                    "crash",
                    "crash",
                    "slow",
                    "hung",
                    "fsync",
                    "eio",
                    "rot",
                    "misdirect",
                    "full",
                    "row",
                ]
            )
            if fault == "crash":
                if len(hurt) < self.budget:
                    drive.crash()
            elif fault == "slow":
                drive.faults.commit_seconds = self.rng.choice([0.002, 0.02, 0.3])
            elif drive in hurt or len(hurt) >= self.budget:
                continue
            elif fault == "hung":
                drive.faults.hung = True
            elif fault == "fsync":
                drive.faults.fsync_fails = True
            elif fault == "eio":
                drive.faults.eio_rate = self.rng.choice([0.01, 0.1])
            elif fault == "full":
                drive.faults.full = True
            elif (
                (fault == "rot" and drive.platter.rot(self.rng))
                or (fault == "misdirect" and drive.platter.misdirect(self.rng))
                or (fault == "row" and drive.platter.corrupt_row(self.rng))
            ):
                drive.damaged = True
            self.trace.say("fault", fault, drive.drive_id[0])
            if self.rng.random() < 0.3:
                healed = self.rng.choice(self.drives)
                healed.faults.hung = healed.faults.full = False

    def owes(self, drive):
        """Whether it missed a shard while it was away: nothing repairs it here, so it cannot be counted on."""
        position = self.drives.index(drive)
        return any(
            not drive.platter.holds(part.data_id, position)
            for head in self.newest().values()
            for version in decode_state(head.state).versions
            for part in version.parts
        )

    def newest(self):
        """The newest state of every row that some drive holds, but for parts whose upload is closed: these are on their way out."""
        best: dict[bytes, HeadRow] = {}
        for drive in self.drives:
            index = drive.platter.index
            for row, head in index.rows.items():
                known = best.get(row)
                if row not in index.corrupt and (
                    known is None
                    or (head.ballot, head.flags & CHOSEN) > (known.ballot, known.flags & CHOSEN)
                ):
                    best[row] = head

        def is_open(row):
            owner = best.get(owner_row(row))
            uploads = decode_state(owner.state).uploads if owner is not None else ()
            return any(row[17:33] == upload.upload_id for upload in uploads)

        return {row: head for row, head in best.items() if not is_part(row) or is_open(row)}

    async def collect(self):
        """What the drives' upkeep does."""
        while True:
            await trio.sleep(self.rng.uniform(0.5, 1.5))
            for drive in self.drives:
                with contextlib.suppress(DriveError):
                    await drive.collect()

    def calm(self):
        for drive in self.drives:
            drive.faults.hung = drive.faults.full = False
            drive.faults.commit_seconds = 0.002

    # -- what must hold afterwards

    async def check(self, store):
        bucket = await persist(lambda: store.get_bucket("sim"))
        for key in KEYS:
            op = Op(kind="get", key=key, start=trio.current_time())
            with trio.fail_after(5):
                op.value = await persist(lambda key=key: self.read(store, bucket, key))
            op.end, op.outcome = trio.current_time(), "ok"
            self.history.append(op)
        check_linearizable(self.history)
        for page in self.pages:
            check_page(page, self.history)
        self.check_storage()

    def check_storage(self):
        """Enough shards of every chosen version, and durable debt for each that is not there (I17)."""
        for row, head in self.newest().items():
            if not head.flags & CHOSEN:
                continue
            for version in decode_state(head.state).versions:
                for part in version.parts:
                    held = [
                        d for p, d in enumerate(self.drives) if d.platter.holds(part.data_id, p)
                    ]
                    if len(held) < part.k:
                        raise ViolationError(f"{row!r}: {len(held)} of {part.k} shards are left")


def is_hurt(drive):
    return (
        drive.state is not DriveState.ACTIVE
        or drive.faults.hung
        or drive.faults.fsync_fails
        or drive.faults.eio_rate > 0
        or getattr(drive, "damaged", False)
    )


async def persist(call):
    """Repeat what may be refused for a moment."""
    for _ in range(200):
        try:
            return await call()
        except NotFoundError:
            raise
        except ClusterError:
            await trio.sleep(0.05)
    raise ViolationError("the store did not recover")


async def scenario(rng, trace, *, mutate=None, turns=12):
    """One seed: clients and faults together, then calm, then the checks."""
    async with trio.open_nursery() as nursery:
        world = World(rng, nursery, trace, mutate)
        stores = [world.coordinator(nursery) for _ in range(rng.randint(1, 3))]
        await stores[0].create_bucket("sim", "root", b"")
        with trio.CancelScope() as faults:
            async with trio.open_nursery() as clients:

                async def run_clients():
                    async with trio.open_nursery() as inner:
                        for number in range(rng.randint(2, 4)):
                            inner.start_soon(
                                world.client, rng.choice(stores), f"client-{number}", turns
                            )
                    faults.cancel()

                clients.start_soon(run_clients)
                clients.start_soon(world.chaos)
                clients.start_soon(world.collect)
        world.calm()
        await trio.sleep(2)
        await world.check(stores[0])
        nursery.cancel_scope.cancel()
    return world
