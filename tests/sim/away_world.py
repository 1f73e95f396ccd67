"""Two sets on three nodes, bodies in the other set than their registers, crashes and partitions; afterwards nothing is lost or left."""

import contextlib
from functools import partial
from random import Random

import trio

from cluster.drives.drive import DriveError
from cluster.drives.index_rows import NoteKind
from cluster.erasure.profile import Profile
from cluster.errors import ClusterError, NotFoundError
from cluster.healing.settings import HealingSettings
from cluster.metadata.commit import TableSettings
from cluster.metadata.table import RegisterRef
from cluster.objects.away import AwaySettings
from cluster.objects.context import ObjectSettings
from cluster.objects.model import PartChoice, Seal
from cluster.objects.source import object_source
from cluster.register.acceptor import Limits
from cluster.register.keys import is_part, owner_row
from cluster.register.records import decode_parts
from tests.sim.checkers import ViolationError
from tests.sim.content import content, part_request, put_request
from tests.sim.spread import Plan, Spread
from tests.sim.world import persist

KEYS = (b"a", b"b", b"c")
SIZES = (100, 20_000, 70_000, 150_000)
LIMITS = Limits(op_ttl_ms=2_000, max_put_ms=5_000, ceiling_lease_ms=1000)
ANY_EPOCH = 1 << 62


def make_plan(rng: Random) -> Plan:
    return Plan(
        profile=rng.choice([Profile(2, 1), Profile(2, 1), Profile(4, 2)]),
        sets=2,
        limits=LIMITS,
        grace_ms=3_000,
        table=TableSettings(
            round_seconds=1.0, op_ttl_ms=LIMITS.op_ttl_ms, ring_kept=rng.choice([2, 8, 64])
        ),
        objects=ObjectSettings(
            straggler_max_seconds=0.2, stage_seconds=3.0, straggler_feed_seconds=1.0
        ),
        healing=HealingSettings(
            limits=LIMITS, purge_margin_ms=1_000, catch_up_seconds=1.0, forget_seconds=3.0
        ),
        away=AwaySettings(
            period_seconds=1.0, again_ms=1_000, later_ms=2_000, open_ms=3_000, limits=LIMITS
        ),
    )


class AwayWorld(Spread):
    """Clients through every node. The home set of most keys is full most of the time."""

    def __init__(self, rng, nursery, say) -> None:
        super().__init__(rng, nursery, make_plan(rng), say)
        self._numbers = iter(range(1, 1_000_000))
        self.outcomes: list[str] = []
        self.away = 0  # bodies that were stored away from home

    def drives(self):
        return [drive for drives in self.bare for drive in drives]

    # -- clients

    async def client(self, turns: int) -> None:
        for _ in range(turns):
            await trio.sleep(self.rng.choice([0, 0.1, 0.5, 1.5]))
            life = self.lives[self.rng.choice(self.nodes)]
            if not life.died.is_set():
                await self._until_dead(life, self._one)

    async def _until_dead(self, life, work) -> None:
        done = trio.Event()

        async def run():
            try:
                with trio.move_on_after(self.rng.choice([0.05, 20, 20, 20])):
                    await work(life.store)
                    self.outcomes.append("ok")
            except ClusterError as error:
                self.outcomes.append(type(error).__name__)
            done.set()

        async def watch():
            await life.died.wait()
            done.set()

        self.nursery.start_soon(run)
        self.nursery.start_soon(watch)
        await done.wait()

    async def _one(self, store) -> None:
        bucket = await store.get_bucket("sim")
        kind = self.rng.choice(["put", "put", "put", "delete", "upload", "upload", "copy"])
        key = self.rng.choice(KEYS)
        value = (next(self._numbers), self.rng.choice(SIZES))
        self.say(kind, key, value)
        match kind:
            case "put":
                self._note(await store.put(bucket, key, put_request(value, self.rng)))
            case "delete":
                await store.delete(bucket, key)
            case "upload":
                await self._upload(store, bucket, key, value)
            case "copy":
                found = await store.get(bucket, self.rng.choice(KEYS))
                number, _, size = found.version.validator.partition("-")
                source = await object_source(found)
                request = put_request((int(number), int(size)), self.rng, source=source)
                try:
                    self._note(await store.copy(found, bucket, key, request))
                finally:
                    await source.aclose()

    def _note(self, version) -> None:
        self.away += any(part.set_id != 0 for part in version.parts)

    async def _upload(self, store, bucket, key, value) -> None:
        """Parts that are sent twice, and left open, completed, repeated or aborted; some with a long list."""
        rng, data = self.rng, content(value)
        upload = await store.create_upload(bucket, key, b"")
        count = rng.choice([1, 2, 3, 18])
        step = -(-len(data) // count)
        choices = []
        for number in range(1, count + 1):
            piece = data[(number - 1) * step : number * step]
            for body in [b"superseded"] * rng.choice([0, 0, 1]) + [piece]:
                part = await store.put_part(bucket, key, upload, number, part_request(body, rng))
            choices.append(PartChoice(number=number, validator=part.validator))
        end = rng.random()
        if end < 0.2:
            return
        if end < 0.4:
            await store.abort_upload(bucket, key, upload)
            return
        seal = Seal(validator=f"{value[0]}-{value[1]}", attributes=b"")
        self._note(await store.complete_upload(bucket, key, upload, choices, lambda _, __: seal))

    # -- what goes on beside

    async def upkeep(self) -> None:
        while True:
            await trio.sleep(self.rng.uniform(0.5, 1.5))
            for drive in self.drives():
                # A drive whose power fails meanwhile answers nothing of that life.
                with contextlib.suppress(DriveError), trio.move_on_after(1):
                    await drive.collect()

    async def change_room(self) -> None:
        """Bodies go to the other set and back: the set of the registers is full, more often than not."""
        while True:
            for set_id, drives in enumerate(self.bare):
                is_full = set_id == 0 and self.rng.random() < 0.8
                for drive in drives:
                    drive.faults.full = is_full
            await trio.sleep(self.rng.uniform(1, 6))

    async def chaos(self) -> None:
        """One node at a time: each has as many drives of a set as the code bears."""
        while True:
            await trio.sleep(self.rng.uniform(0.1, 2))
            node, long = self.rng.choice(self.nodes), self.rng.choice([0.05, 0.5, 2, 8])
            match self.rng.choice(["crash", "crash", "isolate", "power"]):
                case "crash":
                    self.crash(node)
                    await trio.sleep(long)
                    self.start(node)
                case "isolate":
                    self.cut_off(node)
                    await trio.sleep(long)
                    self.network.heal()
                case _:
                    self.say("power of one drive")
                    self.rng.choice(self.drives_on(node)).crash()

    async def calm(self) -> None:
        self.network.heal()
        for node in self.nodes:
            if self.lives[node].died.is_set():
                self.start(node)
        for drive in self.drives():
            drive.faults.full = False
        await self.settle()

    async def close_uploads(self) -> None:
        """What belongs to an open upload, or may, stays until that is closed."""
        store = self.lives[self.nodes[0]].store
        bucket = await persist(lambda: store.get_bucket("sim"))
        for key in KEYS:
            listing = partial(store.list_uploads, bucket, prefix=key, start=key, limit=1000)
            for found in (await persist(listing))[0]:
                with contextlib.suppress(NotFoundError):
                    abort = partial(store.abort_upload, bucket, key, found.upload.upload_id)
                    await persist(abort)

    async def last_writes(self) -> None:
        """Of bodies whose age says nothing any more, only hints tell that they are superfluous."""
        store = self.lives[self.nodes[1]].store
        bucket = await persist(lambda: store.get_bucket("sim"))
        for key in KEYS:
            value = next(self._numbers), self.rng.choice(SIZES)
            match self.rng.choice(["put", "delete", "nothing"]):
                case "put":
                    await persist(partial(self._put, store, bucket, key, value))
                case "delete":
                    await persist(partial(store.delete, bucket, key))

    async def _put(self, store, bucket, key, value):
        return await store.put(bucket, key, put_request(value, self.rng))

    # -- what must hold afterwards

    async def check(self) -> None:
        life = self.lives[self.nodes[0]]
        bucket = await persist(lambda: life.store.get_bucket("sim"))
        referred = {}
        for key in KEYS:
            await persist(partial(self._read, life.store, bucket, key))
            home = life.store._context.key_ref(bucket, key)
            referred |= await self._parts_of(life, home)
        self._check_shards(referred)

    async def _read(self, store, bucket, key) -> None:
        try:
            found = await store.get(bucket, key)
        except NotFoundError:
            return
        number, _, size = found.version.validator.partition("-")
        reader = await found.open(0, found.version.size)
        data = b""
        while (buffers := await reader.next()) is not None:
            data += b"".join(buffers)
        await reader.aclose()
        if data != content((int(number), int(size))):
            raise ViolationError(f"{key!r}: wrong bytes")

    async def _parts_of(self, life, home: RegisterRef) -> dict:
        """All bodies that the key's record, its list of parts, and its open uploads refer to; with the set of the register."""
        table = life.core.table
        state = (await persist(lambda: table.read(home))).state
        parts = [part for version in state.versions for part in version.parts]
        for version in state.versions:
            if version.body is not None and version.body.count:
                data = await table.read_body(home, version.body)
                parts += decode_parts(data)
        still_open = {upload.upload_id for upload in state.uploads}
        rows = {
            row
            for drive in self.bare[home.set_id]
            for row in drive.platter.index.rows
            if is_part(row) and owner_row(row) == home.row and row[17:33] in still_open
        }
        for row in sorted(rows):
            ref = RegisterRef(row, home.set_id, ANY_EPOCH)
            part_state = (await persist(partial(table.read, ref))).state
            parts += [part for version in part_state.versions for part in version.parts]
        return {(part.set_id, part.data_id): (part, home.set_id) for part in parts}

    def _check_shards(self, referred: dict) -> None:
        for (set_id, data_id), (part, home) in referred.items():
            if home == set_id:
                continue
            held = [p for p, d in enumerate(self.bare[set_id]) if d.platter.holds(data_id, p)]
            if len(held) < part.k:
                raise ViolationError(f"{data_id.hex()}: {len(held)} of {part.k} shards are left")
            for position, drive in enumerate(self.bare[set_id]):
                owed = (data_id, position) in drive.platter.index.heal
                if position not in held and not owed:
                    raise ViolationError(f"{data_id.hex()}: nobody owes the shard at {position}")
        for set_id, drives in enumerate(self.bare):
            for drive in drives:
                index = drive.platter.index
                for data_id, _ in index.shards:
                    is_away = (NoteKind.LOOK, data_id) in index.notes
                    if is_away and (set_id, data_id) not in referred:
                        raise ViolationError(f"{data_id.hex()} is left in set {set_id}")
                    if not is_away and (set_id, data_id) in referred:
                        _, home = referred[set_id, data_id]
                        if home != set_id:
                            raise ViolationError(f"{data_id.hex()} does not know its home")


async def scenario(rng, trace, *, turns=8):
    """One seed: clients and faults together, then calm, then time for the collection, then the checks."""
    async with trio.open_nursery() as nursery:
        world = AwayWorld(rng, nursery, trace.say)
        await world.settle()
        nursery.start_soon(world.upkeep)
        await persist(lambda: world.lives[world.nodes[0]].store.create_bucket("sim", "root", b""))
        with trio.CancelScope() as faults:
            async with trio.open_nursery() as clients:

                async def run_clients():
                    async with trio.open_nursery() as inner:
                        for _ in range(rng.randint(2, 4)):
                            inner.start_soon(world.client, turns)
                    faults.cancel()

                clients.start_soon(run_clients)
                clients.start_soon(world.chaos)
                clients.start_soon(world.change_room)
        await world.calm()
        await world.close_uploads()
        await trio.sleep(9)
        await world.last_writes()
        await trio.sleep(25)  # the age after which nobody can name a body, some rounds, the grace
        await world.check()
        nursery.cancel_scope.cancel()
    return world
