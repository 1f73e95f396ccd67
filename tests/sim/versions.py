"""Versioned buckets under faults: puts, markers, deletions by id, reads and listings, while the bucket's mode changes.

On one node with several coordinators, or through each of three nodes. `python -m tests.sim.replay SEED versions` (or
`versions-cluster`) replays one seed.
"""

from itertools import count

import trio

from cluster.errors import (
    ClusterError,
    DeleteMarkerError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
)
from cluster.objects.model import Absent, PartChoice, Seal, Versioning, VersionPlace
from cluster.register.messages import Learn
from tests.sim.checkers import ViolationError
from tests.sim.cluster import NODES, ClusterWorld
from tests.sim.content import content, part_request, put_request, tag_of
from tests.sim.single_node import SingleNode
from tests.sim.version_checker import (
    MARKER,
    ModeChange,
    Observations,
    VersionOp,
    check_versions,
)
from tests.sim.world import persist

SIZES = (0, 1, 100, 4096, 4097, 20_000, 70_000, 300_000)
KEYS = (b"a", b"b/1", b"c")
KINDS = {
    "put": 24, "create": 6, "upload": 5, "delete": 14, "remove": 16, "get": 12, "get-version": 12, "list": 16,
}  # fmt: skip
WRITES = {"put", "create", "upload"}


class Deaf:
    """A drive that misses most of what it should learn, as over a lossy link: readers must confirm."""

    def __init__(self, drive, rng):
        self._drive, self._rng = drive, rng

    def __getattr__(self, name):
        return getattr(self._drive, name)

    def submit(self, request, reply):
        if not isinstance(request, Learn) or self._rng.random() < 0.2:
            self._drive.submit(request, reply)


class VersionClients:
    """What clients do in a versioned bucket, and what they saw."""

    def __init__(self, rng, trace, habits):
        self.rng, self.trace, self.habits = rng, trace, habits
        self.numbers = count(1)
        self.versions: list[VersionOp] = []
        self.observed = Observations()
        self.changes = [ModeChange(Versioning.UNVERSIONED, -1.0, -1.0)]
        self.ids: dict[bytes, list[bytes]] = {key: [b""] for key in KEYS}  # that clients know

    async def administrator(self, any_store):
        """Changes the mode now and then: one at a time."""
        for mode in (
            Versioning.ENABLED,
            *self.rng.choices([Versioning.ENABLED, Versioning.SUSPENDED], weights=[1, 2], k=2),
        ):
            await trio.sleep(self.rng.choice([0.0, 0.05, 0.5]))
            with trio.move_on_after(30):  # the node may die over it
                await self.change(any_store(), mode)

    async def change(self, store, mode):
        try:
            bucket = await store.get_bucket("sim")
        except ClusterError:
            return
        change = ModeChange(mode, trio.current_time())
        self.changes.append(change)
        try:
            await store.set_versioning(bucket, mode)
            change.acknowledged = trio.current_time()
        except ClusterError as error:
            self.trace.say("mode", mode, type(error).__name__)
        self.trace.say("mode", mode, change.acknowledged)

    async def turn(self, store, name):
        """One thing that a client does."""
        try:
            bucket = await store.get_bucket("sim")
        except ClusterError as error:
            self.trace.say(name, type(error).__name__)
            return
        if self.rng.random() < 0.12:
            await self.list_page(store, bucket)
        else:
            await self.one(store, bucket, name)

    async def one(self, store, bucket, name):
        rng = self.rng
        kind, key = rng.choices(list(KINDS), list(KINDS.values()))[0], rng.choice(KEYS)
        as_key = "put" if kind == "upload" else kind
        op = VersionOp(kind=as_key, key=key, start=trio.current_time())
        if kind in WRITES:
            op.value = (next(self.numbers), rng.choice(SIZES))
        if kind in {"remove", "get-version"}:
            op.version_id = rng.choice(self.ids[key])
        self.versions.append(op)
        try:
            with trio.move_on_after(rng.choice([0.01, 30, 30, 30, 30])):
                await self.carry_out(kind, store, bucket, op)
                op.outcome = "ok"
        except PreconditionError:
            op.outcome = "refused"
        except OutcomeUnknownError:
            op.outcome = "unknown"
        except ClusterError as error:
            op.outcome = "failed"
            self.trace.say(name, type(error).__name__)
        if op.outcome in {"ok", "refused"}:
            op.end = trio.current_time()
        self.trace.say(name, op.kind, op.key, op.value, op.version_id, op.seen, op.outcome)

    async def carry_out(self, kind, store, bucket, op):
        match kind:
            case "put" | "create":
                expect = (Absent(),) if kind == "create" else ()
                made = await store.put(bucket, op.key, put_request(op.value, self.rng, expect))
                op.version_id = self.note(op.key, op.value, made)
            case "upload":
                await self.upload(store, bucket, op)
            case "delete":
                done = await store.delete(bucket, op.key)
                if done is not None and done.delete_marker:
                    op.version_id = self.note(op.key, MARKER, done)
            case "remove":
                done = await store.delete(bucket, op.key, version_id=op.version_id)
                op.seen = done is not None
            case "get":
                op.seen = await self.look(store, bucket, op.key)
            case "get-version":
                op.seen = await self.look(store, bucket, op.key, op.version_id)
            case _:
                op.seen = await self.listed(store, bucket, op.key)

    def note(self, key, value, version):
        version_id = self.observed.note(key, value, version)
        if version_id not in self.ids[key]:
            self.ids[key].append(version_id)
        return version_id

    async def look(self, store, bucket, key, version_id=None):
        """What a version holds: the value that its bytes are checked against, MARKER, or None."""
        try:
            found = await store.get(bucket, key, version_id)
        except DeleteMarkerError:
            return MARKER
        except NotFoundError as error:
            if error.kind not in {"key", "version"}:
                raise
            return None
        value = value_of(found.version)
        self.note(key, value, found.version)
        reader = await found.open(0, found.version.size)
        data = b""
        try:
            while (buffers := await reader.next()) is not None:
                data += b"".join(buffers)
        finally:
            await reader.aclose()
        if data != content(value):
            raise ViolationError(f"{key!r}: wrong bytes for {value}")
        return value

    async def listed(self, store, bucket, key):
        """The versions of one key, on one page: its state at one moment."""
        page = await store.list_versions(
            bucket, prefix=key, delimiter=b"", start=VersionPlace(key), limit=1000
        )
        rows = [(value_of(e.version), e.version, e.is_latest) for e in page.entries]
        seen = self.observed.note_all(key, rows)
        for value, version, _ in rows:
            self.note(key, value, version)
        return seen

    async def list_page(self, store, bucket):
        """All keys over small pages: in order, and nothing twice."""
        start, rows = VersionPlace(b""), []
        try:
            while start is not None:
                page = await store.list_versions(
                    bucket, prefix=b"", delimiter=b"", start=start, limit=self.rng.choice([1, 2, 5])
                )
                rows += page.entries
                start = page.resume
        except ClusterError:
            return
        keys = [entry.key for entry in rows]
        if keys != sorted(keys):
            raise ViolationError(f"keys out of order: {keys}")
        named = [(entry.key, entry.version.version_id) for entry in rows]
        if len(set(named)) != len(named):
            raise ViolationError(f"a version is listed twice: {named}")

    async def upload(self, store, bucket, op):
        """A multipart upload of one part or two, completed once or twice."""
        data, choices = content(op.value), []
        upload = await store.create_upload(bucket, op.key, b"")
        bodies = (data[:100], data[100:]) if len(data) > 100 else (data,)
        for number, body in enumerate(bodies, 1):
            part = await store.put_part(
                bucket, op.key, upload, number, part_request(body, self.rng)
            )
            choices.append(PartChoice(number=number, validator=part.validator))
        seal = Seal(validator=tag_of(op.value), attributes=b"")
        verdicts = []

        async def complete():
            try:
                verdicts.append(
                    await store.complete_upload(bucket, op.key, upload, choices, lambda _, __: seal)
                )
            except ClusterError as error:
                verdicts.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(self.rng.choice([1, 1, 2])):
                nursery.start_soon(complete)
        errors = [verdict for verdict in verdicts if isinstance(verdict, ClusterError)]
        if len(errors) == len(verdicts):
            unknown = [error for error in errors if isinstance(error, OutcomeUnknownError)]
            raise (unknown or errors)[0]

    async def check(self, store):
        """What is left must be readable, and everything that was seen have one explanation."""
        bucket = await persist(lambda: store.get_bucket("sim"))
        for key in KEYS:
            op = VersionOp(kind="list", key=key, start=trio.current_time())
            with trio.fail_after(5):
                op.seen = await persist(lambda key=key: self.listed(store, bucket, key))
            op.end, op.outcome = trio.current_time(), "ok"
            self.versions.append(op)
            for version_id, value in op.seen:
                with trio.fail_after(5):
                    found = await persist(
                        lambda key=key, name=version_id: self.look(store, bucket, key, name)
                    )
                if found != value:
                    raise ViolationError(f"{key!r}: {version_id.hex()} is {found}, not {value}")
        check_versions(self.versions, self.changes, self.observed)


def value_of(version):
    if version.delete_marker:
        return MARKER
    number, _, size = version.validator.partition("-")
    return int(number), int(size)


class VersionedNode(SingleNode):
    """One node, whose drives are deaf in half of the seeds."""

    make_clients = VersionClients

    def __init__(self, rng, nursery, trace):
        deaf = rng.random() < 0.5
        super().__init__(rng, nursery, trace, (lambda drive: Deaf(drive, rng)) if deaf else None)

    async def check(self, store):
        await self.clients.check(store)
        self.check_storage()


class VersionedCluster(ClusterWorld):
    """Three nodes over a network."""

    make_clients = VersionClients

    async def check(self, store):
        await self.clients.check(store)
        self.check_storage()


async def scenario(rng, trace, *, turns=14):
    """One seed: clients, an administrator and faults together, then calm, then the checks."""
    async with trio.open_nursery() as nursery:
        world = VersionedNode(rng, nursery, trace)
        stores = [world.coordinator(nursery) for _ in range(rng.randint(1, 3))]
        await stores[0].create_bucket("sim", "root", b"")
        with trio.CancelScope() as faults:
            async with trio.open_nursery() as clients:
                clients.start_soon(run_clients, world, faults, lambda: rng.choice(stores), turns)
                clients.start_soon(world.chaos)
                clients.start_soon(world.collect)
        world.calm()
        await trio.sleep(2)
        await world.check(stores[0])
        nursery.cancel_scope.cancel()
    return world


async def cluster_scenario(rng, trace, *, turns=14):
    """The same through every node of three."""
    async with trio.open_nursery() as nursery:
        world = VersionedCluster(rng, nursery, trace)
        trace.say("links", world.links)

        def any_store():
            return world.processes[rng.choice(NODES)].store

        await world.settle()
        await persist(lambda: any_store().create_bucket("sim", "root", b""))
        with trio.CancelScope() as faults:
            async with trio.open_nursery() as clients:
                clients.start_soon(run_clients, world, faults, any_store, turns)
                clients.start_soon(world.chaos)
        world.calm()
        await world.settle()
        await trio.sleep(4)
        await world.check(any_store())
        nursery.cancel_scope.cancel()
    return world


async def run_clients(world, faults, any_store, turns):
    """Clients and administrator to their end; then the faults stop."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.clients.administrator, any_store)
        world.clients.habits.turns = turns
        for number in range(world.rng.randint(2, 4)):
            nursery.start_soon(world.client, any_store(), f"client-{number}")
    faults.cancel()
