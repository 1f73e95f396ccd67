"""The white box: what drives say is watched at their border, and what they hold is looked at, against the invariants of the protocol.

Nothing of the product is changed for it: `watch` stands between a drive and whoever asks it, and reads the drive's platter,
which no message shows. Names of invariants (I1, I4, ...) are the protocol's.
"""

import hashlib

from cluster.clock import BALLOT_ZERO
from cluster.drives.drive import ANSWERING, VOTING
from cluster.drives.index_rows import unpack_bodies
from cluster.erasure.shard_format import block_crc
from cluster.ids import SYSTEM_BUCKET
from cluster.quorum import Quorum, durable_shards
from cluster.register.acceptor import introduced
from cluster.register.keys import bucket_of, is_part, owner_row, part_upload
from cluster.register.messages import (
    CHOSEN,
    Accept,
    Accepted,
    Page,
    Prepare,
    Promise,
    Query,
    Scan,
    ScanUploads,
    Value,
)
from cluster.register.records import decode_parts, decode_state
from tests.sim.checkers import ViolationError


class Oracle:
    """Of one world, whose drives are in the order of their positions in the one set, unless it says otherwise in `sets`."""

    def __init__(self):
        self.drives = []  # all that there are
        self.sets = lambda: [self.drives]  # for each set its drives, in the order of the positions
        self.system = self.members  # the drives of the system set
        self._promised = {}  # (drive, row): [(ballot shown, ballot promised)]
        self._states = {}  # (row, ballot): hash of the state
        self._durable = set()  # (data id, position) that a drive said to be durable
        self._prints = {}  # drive: {(data id, position): fingerprint}
        self._buried = {}  # row: the highest ballot at which a tombstone was proposed
        self._ballots = {}  # drive: {row: ballot} at the last look

    def members(self):
        """The drives of all sets."""
        return [drive for drives in self.sets() for drive in drives]

    def holders(self, drive, row):
        """Those that hold the row with this drive, and are not gone."""
        groups = [self.system()] if bucket_of(row) == SYSTEM_BUCKET else self.sets()
        there = {other.drive_id for other in self.drives}
        for drives in groups:
            if any(other.drive_id == drive.drive_id for other in drives):
                return [other for other in drives if other.drive_id in there]
        return []  # it has no place any more

    def forget(self, drive):
        """It is gone, with what was on it."""
        self.drives = [other for other in self.drives if other.drive_id != drive.drive_id]

    def watch(self, drive, bare):
        """The drive, watched; `bare` is the MemoryDrive that it is, or stands before."""
        self.drives.append(bare)
        return WatchedDrive(self, drive, bare)

    # -- what is said

    def on_accept_sent(self, message):
        """I4: no ACCEPT introduces a body before enough of its shards are durable. I1: a ballot names one state."""
        self._same_state(message.row, message.ballot, message.encoded)
        if message.state.is_tombstone:
            buried = self._buried.get(message.row, BALLOT_ZERO)
            self._buried[message.row] = max(buried, message.ballot)
        for part in introduced(message.state, message.ballot):
            if part.intro == message.ballot:
                self._check_staged(message, part)

    def _check_staged(self, message, part):
        held = {p for p in range(part.k + part.m) if (part.data_id, p) in self._durable}
        named = {p for p in range(part.k + part.m) if part.staged >> p & 1}
        if named - held or len(held) < durable_shards(part.k, part.k + part.m):
            raise ViolationError(
                f"I4: {message.row!r} at {message.ballot}: {sorted(named)} named, {sorted(held)} durable"
            )

    def _same_state(self, row, ballot, encoded):
        digest = hashlib.blake2b(encoded, digest_size=8).digest()
        if self._states.setdefault((row, ballot), digest) != digest:
            raise ViolationError(f"I1: two states of {row!r} at {ballot}")

    def on_reply(self, drive, request, reply, asked):
        """I12: only who may, votes: when it was `asked`, the drive was in this state. What it decided then may become durable later. I1: nothing below a promise. I5, and I11: what is shown is durable."""
        if not isinstance(reply, Promise | Accepted | Value | Page):
            return
        if drive.state not in ANSWERING or {drive.state, asked}.isdisjoint(VOTING):
            raise ViolationError(f"I12: {type(reply).__name__} from a drive that is {drive.state}")
        if isinstance(reply, Page):
            return
        key = (drive.drive_id, request.row)
        if isinstance(reply, Accepted):
            shown = request.ballot
            for seen, promised in self._promised.get(key, ()):
                if seen < shown < promised:
                    raise ViolationError(
                        f"I1: {drive.drive_id[0]} accepted {shown} after it promised {promised}"
                    )
        else:
            shown = reply.register.ballot
        if isinstance(reply, Promise):
            self._promised.setdefault(key, []).append((shown, request.ballot))
        if shown > BALLOT_ZERO and self._durable_ballot(drive, request.row, shown) < shown:
            raise ViolationError(
                f"I5: {drive.drive_id[0]} says {type(reply).__name__} of {shown}, which is not durable"
            )

    @staticmethod
    def _durable_ballot(drive, row, forgotten=BALLOT_ZERO):
        """`forgotten`, where the row may have been forgotten by right since."""
        index = drive.platter.index
        head = index.rows.get(row)
        if head is not None:
            return head.ballot
        control = index.control()
        gone = bucket_of(row) in control.dead or is_part(row) or control.gc_floor >= forgotten
        return forgotten if gone else BALLOT_ZERO

    def on_staged(self, drive, header):
        """I5: a shard is durable before it is said to be. I6: its bytes are what they were."""
        if not drive.platter.holds(header.data_id, header.position):
            raise ViolationError(f"I5: {drive.drive_id[0]} calls a shard durable that it lacks")
        self._durable.add((header.data_id, header.position))
        self._check_prints(drive)

    def acknowledged(self, row, stamp):
        """I5: a write that a client was told of is durable on an accept quorum."""
        have = sum(self._durable_ballot(drive, row, stamp) >= stamp for drive in self.drives)
        if have < Quorum(len(self.drives)).accept:
            raise ViolationError(f"I5: {row!r} at {stamp} was acknowledged with {have} drives")

    # -- what is held

    def damaged(self, drive):
        """The atlas has changed bytes under this drive: they are what they are now."""
        self._prints.pop(drive.drive_id, None)
        self._check_prints(drive)

    def look(self):
        """At every drive, as it is on the disk."""
        for drive in self.drives:
            self._check_prints(drive)
            self._check_rows(drive)
        self.check_debt()

    def _check_prints(self, drive):
        """I6: a shard's bytes never change under its name."""
        known = self._prints.setdefault(drive.drive_id, {})
        for key, shard in drive.platter.shards.items():
            found = (len(shard.blocks), shard.digests, *(crc for _, crc in shard.blocks))
            if known.setdefault(key, found) != found:
                raise ViolationError(f"I6: shard {key} of {drive.drive_id[0]} has changed")

    def _check_rows(self, drive):
        """I1: one state for each ballot. I9: a row goes only as a tombstone that all hold, and ballots only rise."""
        index = drive.platter.index
        before = self._ballots.get(drive.drive_id, {})
        now = {row: head.ballot for row, head in index.rows.items()}
        for row, head in index.rows.items():
            self._same_state(row, head.ballot, head.state)
        for row, ballot in before.items():
            if row in now:
                if now[row] < ballot and not is_part(row):
                    raise ViolationError(f"I9: {row!r} went back from {ballot} to {now[row]}")
            elif self._durable_ballot(drive, row, ballot) < ballot:
                raise ViolationError(f"I9: {row!r} at {ballot} is gone from {drive.drive_id[0]}")
            elif not is_part(row) and bucket_of(row) not in index.control().dead:
                if self._buried.get(row, BALLOT_ZERO) < ballot:
                    raise ViolationError(f"I9: {row!r} at {ballot} was purged, and is no tombstone")
                for other in self.holders(drive, row):
                    if self._durable_ballot(other, row, ballot) < ballot:
                        raise ViolationError(
                            f"I9: {row!r} was purged at {ballot}, {other.drive_id[0]} is below"
                        )
        self._ballots[drive.drive_id] = now

    def dead(self):
        """Buckets that some drive knows to be gone."""
        return {bucket for drive in self.members() for bucket in drive.platter.index.control().dead}

    def newest(self, drives):
        """The newest chosen state of every row of a bucket that lives, of those that these drives hold."""
        dead, best = self.dead(), {}
        for drive in drives:
            index = drive.platter.index
            for row, head in index.rows.items():
                known = best.get(row)
                if (
                    bucket_of(row) not in dead
                    and row not in index.corrupt
                    and (
                        known is None
                        or (head.ballot, head.flags & CHOSEN)
                        > (known[0].ballot, known[0].flags & CHOSEN)
                    )
                ):
                    best[row] = (head, index)
        return best

    def parts_of(self, head, index):
        """All parts of a stored state, those of a list that lies beside it included."""
        bodies = unpack_bodies(head.bodies)
        for version in decode_state(head.state).versions:
            yield from version.parts
            if version.body is not None and version.body.count:
                data = index.body(bodies[version.body.id])
                yield from decode_parts(data) if data is not None else ()

    def check_debt(self):
        """I17: for every chosen state, a position without its shard is a durable debt. What lies in other sets is owed there."""
        for set_id, drives in enumerate(self.sets()):
            for row, (head, index) in self.newest(drives).items():
                if head.flags & CHOSEN and not is_part(row):
                    parts = [p for p in self.parts_of(head, index) if p.set_id == set_id]
                    self._check_owed(drives, row, head, parts)

    def _check_owed(self, drives, row, head, parts):
        hints = 0
        for drive in drives:
            hints |= drive.platter.index.hints.get(row, 0)
        for part in parts:
            for position, drive in enumerate(drives):
                here = drive.platter.index
                if (
                    not drive.platter.holds(part.data_id, position)
                    and self._durable_ballot(drive, row) >= head.ballot
                    and row not in here.corrupt
                    and (part.data_id, position) not in here.heal
                    and not hints >> position & 1
                ):
                    raise ViolationError(
                        f"I17: {row!r} at {head.ballot}: nothing owes drive {position} its shard"
                    )

    def sound_shards(self, part):
        """How many positions of a body hold their shard, and no block of it is rotten."""
        drives = self.sets()[part.set_id]
        return sum(is_sound(drive.platter, part.data_id, p) for p, drive in enumerate(drives))

    def unreferenced(self):
        """What nobody refers to and is still there, in words."""
        newest, found = self.newest(self.members()), []
        referred = {part.data_id for state in newest.values() for part in self.parts_of(*state)}
        for drive in self.members():
            index = drive.platter.index
            for (data_id, position), shard in index.shards.items():
                known = newest.get(shard.owner)
                # Superseded parts stay with their upload.
                is_open = known is not None and decode_state(known[0].state).uploads
                if data_id not in referred and not is_open:
                    found.append(f"{data_id.hex()} of {shard.owner!r} on drive {position}")
            used = {s.body for s in index.shards.values() if s.body is not None}
            for head in index.rows.values():
                used.update(unpack_bodies(head.bodies).values())
            found += [f"body {b} on {drive.drive_id[0]}" for b in index._bodies.keys() - used]
        return found

    def strays(self):
        """Rows of parts whose upload is closed, in words."""
        newest = self.newest(self.members())
        found = []
        for row in filter(is_part, newest):
            owner = newest.get(owner_row(row))
            uploads = decode_state(owner[0].state).uploads if owner is not None else ()
            if part_upload(row) not in {upload.upload_id for upload in uploads}:
                found.append(f"{row!r} is part of a closed upload")
        return found

    def differences(self):
        """Rows that not all drives of their set hold at one ballot, in words, but for dead buckets, which go drive by drive."""
        dead = self.dead()
        held = {
            drive.drive_id: {
                row: head.ballot
                for row, head in drive.platter.index.rows.items()
                if bucket_of(row) not in dead
            }
            for drive in {
                drive.drive_id: drive for drive in (*self.members(), *self.system())
            }.values()
        }
        different = set()
        for drives, is_system in (
            *((drives, False) for drives in self.sets()),
            (self.system(), True),
        ):
            rows = [held[drive.drive_id] for drive in drives]
            different |= {
                row
                for row in set().union(*rows)
                if (bucket_of(row) == SYSTEM_BUCKET) is is_system
                and len({some.get(row) for some in rows}) > 1
            }
        return sorted(f"{row!r} differs from drive to drive" for row in different)


class WatchedDrive:
    """A drive, with the oracle at its border."""

    def __init__(self, oracle, drive, bare):
        self._oracle, self._drive, self._bare = oracle, drive, bare

    def __getattr__(self, name):
        return getattr(self._drive, name)

    def submit(self, request, reply):
        if isinstance(request, Accept):
            self._oracle.on_accept_sent(request)

        asked = self._bare.state

        def heard(message):
            if isinstance(request, Prepare | Accept | Query | Scan | ScanUploads):
                self._oracle.on_reply(self._bare, request, message, asked)
            reply(message)

        self._drive.submit(request, heard)

    def open_stage(self, header, size_hint):
        return WatchedStage(
            self._oracle, self._bare, header, self._drive.open_stage(header, size_hint)
        )


class WatchedStage:
    """A stage, whose end the oracle hears of."""

    def __init__(self, oracle, drive, header, stage):
        self._oracle, self._drive, self._header, self._stage = oracle, drive, header, stage

    async def write(self, blocks):
        await self._stage.write(blocks)

    async def close(self, digests):
        await self._stage.close(digests)
        self._oracle.on_staged(self._drive, self._header)

    def abort(self):
        self._stage.abort()


def is_sound(platter, data_id, position):
    """Whether the shard is there, and every block has its checksum."""
    if not platter.holds(data_id, position):
        return False
    shard = platter.shards.get((data_id, position))
    return shard is None or all(
        block_crc(data_id, position, number, payload) == crc
        for number, (payload, crc) in enumerate(shard.blocks)
    )
