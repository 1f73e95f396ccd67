"""What the simulated worlds have in common: drives with a budget of faults, what they hold, and the checks afterwards."""

import contextlib
from functools import partial

import trio

from cluster.drives.drive import ANSWERING, DriveError, DriveState
from cluster.drives.index_rows import HeadRow
from cluster.errors import ClusterError, NotFoundError
from cluster.register.keys import is_part, owner_row
from cluster.register.messages import CHOSEN
from cluster.register.records import decode_state
from tests.sim.bucket_checker import check_buckets, check_refusals, seals
from tests.sim.checkers import ViolationError, by_key, check_linearizable, check_page
from tests.sim.workload import LIVE_SECONDS, Workload


class World:
    """Drives, clients, and what both say. A subclass makes `rng`, `trace`, `drives`, `calendar` and `clients`."""

    make_clients = Workload
    checks_space = False  # whether what nobody refers to must be gone when every grace is over

    @property
    def sets(self):
        """For each erasure set its drives, in the order of the positions. Where nothing else is said, there is one."""
        return [self.drives]

    def home_of(self, row):
        """The set that holds a row of an object or a part."""
        for set_id, drives in enumerate(self.sets):
            if any(row in drive.platter.index.rows for drive in drives):
                return set_id
        raise LookupError(f"no drive has {row!r}")

    async def look(self):
        """The oracle, every now and then."""
        while True:
            await trio.sleep(self.rng.uniform(0.5, 3))
            self.oracle.look()

    def calm(self):
        """Nothing is broken any more, but for what is broken for good."""
        for drive in self.drives:
            drive.faults.hung = drive.faults.full = False
            drive.faults.commit_seconds = 0.002
        for face in self.faces:
            face.rate = 0.0

    async def collect(self):
        """What the drives' upkeep does."""
        while True:
            await trio.sleep(self.rng.uniform(0.5, 1.5))
            for drive in self.drives:
                with contextlib.suppress(DriveError):
                    await drive.collect()

    async def pass_days(self):
        """Now and then hours or days pass at once, with uploads open and requests under way."""
        for _ in range(self.clients.habits.leaps):
            await trio.sleep(self.rng.uniform(0.1, 4))
            hours = self.rng.choice([0.1, 5, 30, 100])
            self.trace.say("leap", hours)
            self.calendar.leap(hours)

    def hurt(self, drive, fault):
        """Something happens to one drive."""
        match fault:
            case "crash":
                drive.crash()
            case "hung":
                drive.faults.hung = True
            case "fsync":
                drive.faults.fsync_fails = True
            case "eio":
                drive.faults.eio_rate = self.rng.choice([0.01, 0.1])
            case "full":
                drive.faults.full = True
            case "rot" | "misdirect":
                drive.damaged = getattr(drive.platter, fault)(self.rng)
                self.oracle.damaged(drive)
            case "row":
                drive.damaged = drive.platter.corrupt_row(self.rng)
                drive.crash()  # or the row in memory would hide it

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

    def owes(self, drive):
        """Whether it missed a shard while it was away: nothing repairs it here, so it cannot be counted on."""
        return any(
            member is drive and not drive.platter.holds(part.data_id, position)
            for head in self.newest().values()
            for version in decode_state(head.state).versions
            for part in version.parts
            for position, member in enumerate(self.sets[part.set_id])
        )

    # -- what must hold afterwards

    async def check(self, store):
        """Everything can be read and written within seconds, all that was seen makes sense, and the drives hold it."""
        await self.use_everything(store)
        self.check_history()
        self.check_storage()
        if self.checks_space:
            await self.check_space()

    async def check_space(self):
        """When every grace is over, nothing is left that nobody refers to, and all drives hold the same rows."""
        self.calendar.leap(100)
        left = []
        for _ in range(100):  # a seed may have healing look at one row in two seconds
            await trio.sleep(2)
            for drive in self.drives:
                with contextlib.suppress(DriveError):
                    await drive.collect()
            left = self.oracle.unreferenced() + self.oracle.strays() + self.oracle.differences()
            if not left:
                return
            self.calendar.leap(0.1)
        raise ViolationError(f"space, or equality: {left}")

    async def use_everything(self, store):
        """Each kind of operation once more, with nothing broken."""
        clients = self.clients
        clients.habits.patience = (2 * LIVE_SECONDS,)
        for name in clients.habits.names:
            bucket = await self.live(partial(clients.find, store, name, "final"))
            if bucket is None:
                await self.live(partial(clients.create_bucket, store, name, "final"))
                continue
            for key in clients.habits.keys:
                await self.live(partial(clients.on_key, "get", store, bucket, key, "final"))
            key = clients.draw_key()
            for kind in ("put", "get", "delete", "get", "create", "head", "remove"):
                await self.live(partial(clients.on_key, kind, store, bucket, key, "final"))
            for delimiter in (b"", b"/"):
                await self.live(
                    partial(clients.list_page, store, bucket, "final", b"", delimiter, b"", 1000)
                )
            await self.live(partial(clients.list_uploads, store, bucket, "final"))
            await self.live(partial(clients.on_key, "put", store, bucket, key, "final"))
            await self.live(
                partial(clients.copy, store, bucket, key, "final", origin=(bucket, key))
            )
            await self.live(partial(clients.open_upload, store, bucket, key, "final"))
            for upload in clients.of(bucket):
                if self.rng.random() < 0.5:
                    await self.live(partial(clients.complete, store, upload, "final"))
            if self.rng.random() < 0.3:
                await self.live(partial(clients.drop_bucket, store, bucket, "final", clear=True))
            await self.live(partial(clients.find, store, name, "final"))

    async def live(self, call):
        """`call` says first whether it was answered; it is repeated for as long as an operation may take."""
        with trio.move_on_after(LIVE_SECONDS):
            while True:
                answered, found = await call()
                if answered:
                    return found
                await trio.sleep(0.05)
        raise ViolationError(f"the store did not recover in {LIVE_SECONDS} s: {call}")

    def check_history(self):
        """Buckets, keys, parts, listings."""
        clients = self.clients
        keys = by_key(clients.history)
        check_buckets(clients.names)
        check_refusals(clients.names, keys)
        seen = []
        for page in clients.pages:
            inside = {key[1]: ops for key, ops in keys.items() if key[0] == page.bucket}
            seen += check_page(page, inside)
        check_linearizable([*clients.history, *seen, *seals(clients.names, list(keys))])
        check_linearizable(clients.part_history)
        clients.check_uploads()

    def check_storage(self):
        """The oracle's last word; and enough shards of every chosen version are left, but for deleted buckets."""
        self.oracle.look()
        rows = self.newest().keys()
        spare = 0 if any(is_harmed(drive) for drive in self.drives) else 1
        for drives in self.sets:
            for row, (head, index) in self.oracle.newest(drives).items():
                if row in rows and head.flags & CHOSEN:
                    for part in self.oracle.parts_of(head, index):
                        self._check_shards(row, part, part.k + spare)

    def _check_shards(self, row, part, needed):
        held = self.oracle.sound_shards(part)
        if held < needed:
            raise ViolationError(f"{row!r}: {held} shards of {part.k}+{part.m} are left")


def is_harmed(drive):
    """Whether something is wrong with the drive that does not pass."""
    return (
        drive.state not in ANSWERING
        or drive.faults.fsync_fails
        or drive.faults.eio_rate > 0
        or getattr(drive, "damaged", False)
    )


def is_hurt(drive):
    """Whether the drive cannot be counted on."""
    return drive.state is not DriveState.ACTIVE or drive.faults.hung or is_harmed(drive)


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
