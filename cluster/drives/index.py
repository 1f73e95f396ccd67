"""One drive's index: SQLite through apsw, one file per drive, every page checksummed. Synchronous: for the drive's threads.

Head rows are small and say what a register holds; bodies (inline objects, long part lists, shards of up to 16 KiB) are appended to a
rowid table, so that updating a head never rewrites them. docs/formats/index.md has the tables.
"""

import ctypes
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import apsw.sqlite_extra
import crc32c

from cluster.clock import Ballot
from cluster.drives.index_rows import Batch, HeadRow, NoteKind, ShardRow, body_crc, unpack_control
from cluster.drives.index_writes import write_batch
from cluster.ids import DataId, RowKey
from cluster.register.acceptor import Control
from cluster.register.anti_entropy import ShardOf
from cluster.register.messages import ScanRow

FILE = "meta.db"
CHECKSUM_VFS = "cksmvfs"
SCHEMA_VERSION = 1
PAGE_BYTES = 4096  # of the file; 8,192 would hold one inline row: twice the writes
_RESERVED_BYTES = 8  # at the end of every page, for its checksum
_SCHEMA = """
CREATE TABLE head(row BLOB PRIMARY KEY, ballot BLOB NOT NULL, flags INTEGER NOT NULL, state BLOB NOT NULL,
                  bodies BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE body(id INTEGER PRIMARY KEY, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE upload(row BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE shard(data_id BLOB, position INTEGER, owner BLOB NOT NULL, bytes INTEGER NOT NULL, digests BLOB,
                   body INTEGER, PRIMARY KEY(data_id, position)) WITHOUT ROWID;
CREATE TABLE heal(data_id BLOB, position INTEGER, owner BLOB NOT NULL, reason TEXT NOT NULL,
                  PRIMARY KEY(data_id, position)) WITHOUT ROWID;
CREATE TABLE hint(row BLOB PRIMARY KEY, missed INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE trash(data_id BLOB PRIMARY KEY, due_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX trash_due ON trash(due_ms);
CREATE TABLE fence(bucket BLOB PRIMARY KEY, epoch INTEGER NOT NULL, dead INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE ctl(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
# Tables that came after the first drives of version 1 were made; an older program leaves them alone.
_LATER = """
CREATE TABLE IF NOT EXISTS note(kind INTEGER, data_id BLOB, due_ms INTEGER NOT NULL, rank BLOB NOT NULL,
                                packed BLOB NOT NULL, PRIMARY KEY(kind, data_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS note_due ON note(kind, due_ms);
"""


class IndexDamagedError(Exception):
    """The index cannot be read: the drive is out until it is rebuilt."""


class Index:
    """A connection to a drive's index. One writes; the others read."""

    def __init__(self, root: Path, *, vfs: str = CHECKSUM_VFS, writable: bool = False) -> None:
        _load_checksums()
        self.path = root / FILE
        self.log_bytes = 0  # of the write-ahead log that a checkpoint would move
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if writable else 0)
        self._db = apsw.Connection(str(self.path), flags=flags, vfs=vfs)
        run = self._db.execute
        if writable:
            self._db.reserve_bytes("main", _RESERVED_BYTES)
            run(f"PRAGMA page_size={PAGE_BYTES}")
            run("PRAGMA journal_mode=WAL")
            run("PRAGMA synchronous=FULL")
            self._keep_log()
        run("PRAGMA mmap_size=0")
        run("PRAGMA wal_autocheckpoint=0")
        run("PRAGMA cell_size_check=ON")
        run("PRAGMA trusted_schema=OFF")
        run("PRAGMA cache_size=-8000")
        self._db.set_busy_timeout(10_000)
        if writable:
            self._create()
            self._db.set_wal_hook(self._logged)
        else:
            run("PRAGMA query_only=ON")

    def _keep_log(self) -> None:
        """Leave the log's file in place at close: overwriting it costs half as much as growing it (measured)."""
        keep = ctypes.c_int(1)
        self._db.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))

    def _logged(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self.log_bytes = pages * PAGE_BYTES
        return apsw.SQLITE_OK

    def _create(self) -> None:
        version = self._one("PRAGMA user_version")[0]
        if version == 0:
            with self._db:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise IndexDamagedError(f"index version {version} is not one that this program knows")
        with self._db:
            self._db.execute(_LATER)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _one(self, sql: str, arguments: Sequence[Any] = ()) -> Any:
        return next(iter(self._db.execute(sql, arguments)), None)

    # -- writing

    def apply(self, batch: Batch) -> None:
        """Write and commit a batch: durable when this returns. Raises apsw.Error, after which nothing is known."""
        with self._db:
            write_batch(self._db, batch)

    def checkpoint(self) -> None:
        """Move what the log holds into the database file; readers and the writer go on meanwhile."""
        self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    # -- reading

    def heads(self, rows: Sequence[RowKey]) -> dict[RowKey, HeadRow | None]:
        """The stored rows among those asked for; None for one that fails its checksum."""
        found: dict[RowKey, HeadRow | None] = {}
        for at in range(0, len(rows), 64):
            some = rows[at : at + 64]
            marks = ",".join("?" * len(some))
            sql = f"SELECT row, ballot, flags, state, bodies, crc FROM head WHERE row IN ({marks})"
            for row, ballot, flags, state, bodies, crc in self._db.execute(sql, some):
                head = HeadRow(RowKey(row), Ballot.unpack(ballot), flags, state, bodies)
                found[head.row] = head if head.crc == crc else None
        return found

    def body(self, rowid: int) -> bytes | None:
        """A body row; None: it is not there, or fails its checksum."""
        row = self._one("SELECT data, crc FROM body WHERE id=?", (rowid,))
        return row[0] if row is not None and body_crc(rowid, row[0]) == row[1] else None

    def last_body(self) -> int:
        """The highest rowid in use."""
        return self._one("SELECT max(id) FROM body")[0] or 0

    def scan(self, start: RowKey, stop: RowKey | None, limit: int) -> list[ScanRow]:
        """Rows start <= row < stop, at most limit, still encoded."""
        sql = "SELECT row, ballot, flags, state, bodies, crc FROM head WHERE row >= ?"
        arguments: tuple[Any, ...] = (start,)
        if stop is not None:
            sql, arguments = sql + " AND row < ?", (start, stop)
        # All rows at once: a step of the statement releases the GIL, and three drives that scan would pass it around.
        rows: list[Any] = self._db.execute(
            f"{sql} ORDER BY row LIMIT {int(limit)}", arguments
        ).fetchall()
        return [
            ScanRow(row, ballot, flags, state)
            if crc32c.crc32c(b"".join((row, ballot, state, bodies))) == crc
            else ScanRow(row, None, flags, state)
            for row, ballot, flags, state, bodies, crc in rows
        ]

    def scan_heads(self, start: RowKey, stop: RowKey | None, limit: int) -> list[HeadRow]:
        """Rows start <= row < stop, at most limit, as stored, unchecked: for dropping them."""
        sql = (
            "SELECT row, ballot, flags, state, bodies FROM head "
            "WHERE row >= ?1 AND (?2 IS NULL OR row < ?2) ORDER BY row LIMIT ?3"
        )
        return [
            HeadRow(RowKey(row), Ballot.unpack(ballot), flags, state, bodies)
            for row, ballot, flags, state, bodies in self._db.execute(sql, (start, stop, limit))
        ]

    def flags_from(
        self, start: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, Ballot, int]]:
        """Rows start <= row < stop, at most limit, with ballots and flags, unchecked: without what they hold."""
        sql = (
            "SELECT row, ballot, flags FROM head "
            "WHERE row >= ?1 AND (?2 IS NULL OR row < ?2) ORDER BY row LIMIT ?3"
        )
        found: list[Any] = self._db.execute(sql, (start, stop, limit)).fetchall()
        return [(RowKey(row), Ballot.unpack(ballot), flags) for row, ballot, flags in found]

    def checked_heads(
        self, start: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, HeadRow | None]]:
        """Rows start <= row < stop, at most limit; None for one that fails its checksum."""
        sql = (
            "SELECT row, ballot, flags, state, bodies, crc FROM head "
            "WHERE row >= ?1 AND (?2 IS NULL OR row < ?2) ORDER BY row LIMIT ?3"
        )
        found: list[tuple[RowKey, HeadRow | None]] = []
        for row, ballot, flags, state, bodies, crc in self._db.execute(sql, (start, stop, limit)):
            head = HeadRow(RowKey(row), Ballot.unpack(ballot), flags, state, bodies)
            found.append((head.row, head if head.crc == crc else None))
        return found

    def uploads(self, start: RowKey, stop: RowKey, limit: int) -> list[RowKey]:
        """Object rows with open uploads."""
        sql = "SELECT row FROM upload WHERE row >= ? AND row < ? ORDER BY row LIMIT ?"
        return [RowKey(row) for (row,) in self._db.execute(sql, (start, stop, limit))]

    def shard(self, data_id: DataId, position: int) -> ShardRow | None:
        """The row of a durable shard."""
        sql = "SELECT owner, bytes, digests, body FROM shard WHERE data_id=? AND position=?"
        row = self._one(sql, (data_id, position))
        if row is None:
            return None
        return ShardRow(
            data_id=data_id,
            position=position,
            owner=row[0],
            payload_bytes=row[1],
            digests=row[2],
            body=row[3],
        )

    def shards_of(self, data_id: DataId) -> list[ShardRow]:
        """All positions of a body that this drive holds: normally one."""
        sql = "SELECT position, owner, bytes, digests, body FROM shard WHERE data_id=?"
        return [
            ShardRow(
                data_id=data_id,
                position=p,
                owner=owner,
                payload_bytes=size,
                digests=digests,
                body=body,
            )
            for p, owner, size, digests, body in self._db.execute(sql, (data_id,))
        ]

    def bodies_between(self, after: DataId, before: DataId, limit: int) -> list[ShardOf]:
        """Bodies of this set's registers, after < data_id < before, that have shards here, in order."""
        sql = (
            "SELECT data_id, min(owner) FROM shard WHERE data_id > ? AND data_id < ? AND NOT EXISTS "
            f"(SELECT 1 FROM note WHERE kind={NoteKind.LOOK:d} AND data_id = shard.data_id) "
            "GROUP BY data_id ORDER BY data_id LIMIT ?"
        )
        return [
            ShardOf(DataId(data_id), RowKey(owner))
            for data_id, owner in self._db.execute(sql, (after, before, limit))
        ]

    def hints_after(
        self, after: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, int]]:
        """Rows between these that some drives missed, and a bitmap of the drives. `stop` None: to the end."""
        bound, values = (
            ("", (after, limit)) if stop is None else ("AND row < ? ", (after, stop, limit))
        )
        sql = f"SELECT row, missed FROM hint WHERE row > ? {bound}ORDER BY row LIMIT ?"
        return [(RowKey(row), missed) for row, missed in self._db.execute(sql, values)]

    def hints_of(self, rows: Sequence[RowKey]) -> dict[RowKey, int]:
        """Which drives missed these rows, as a bitmap, where there are any."""
        found = {}
        for row in rows:
            hint = self._one("SELECT missed FROM hint WHERE row=?", (row,))
            if hint is not None:
                found[row] = int(hint[0])
        return found

    def due_trash(self, now_ms: int, limit: int) -> list[DataId]:
        """Bodies whose grace is over."""
        sql = "SELECT data_id FROM trash WHERE due_ms <= ? ORDER BY due_ms LIMIT ?"
        return [DataId(data_id) for (data_id,) in self._db.execute(sql, (now_ms, limit))]

    def due_notes(self, kind: int, now_ms: int, limit: int) -> list[bytes]:
        """Notes of a kind whose time has come, the oldest first, as stored."""
        sql = "SELECT packed FROM note WHERE kind=? AND due_ms <= ? ORDER BY due_ms LIMIT ?"
        return [packed for (packed,) in self._db.execute(sql, (kind, now_ms, limit))]

    def notes_after(self, kind: int, after: DataId, limit: int) -> list[bytes]:
        """See IndexReads."""
        sql = "SELECT packed FROM note WHERE kind=? AND data_id > ? ORDER BY data_id LIMIT ?"
        return [packed for (packed,) in self._db.execute(sql, (kind, after, limit))]

    def spare_bytes(self) -> int:
        """See IndexReads."""
        return int(self._one("PRAGMA freelist_count")[0]) * PAGE_BYTES

    def count(self, table: str) -> int:
        """Rows of a table: for status, not for hot paths."""
        assert table in {"heal", "hint", "trash", "shard", "head", "note"}
        return int(self._one(f"SELECT count(*) FROM {table}")[0])

    def heal_rows(self) -> Iterator[tuple[DataId, int, RowKey, str]]:
        """The heal debt."""
        yield from self._db.execute("SELECT data_id, position, owner, reason FROM heal")

    def control(self) -> Control:
        """The acceptor's durable values."""
        values = dict(self._db.execute("SELECT name, value FROM ctl"))
        return unpack_control(values, self._db.execute("SELECT bucket, epoch, dead FROM fence"))

    def value(self, name: str) -> bytes | None:
        """One control value."""
        row = self._one("SELECT value FROM ctl WHERE name=?", (name,))
        return row[0] if row is not None else None

    def check(self) -> None:
        """A bounded look at the structure after an unclean stop. Raises IndexDamagedError."""
        verdict = self._one("PRAGMA quick_check(1)")[0]
        if verdict != "ok":
            raise IndexDamagedError(verdict)


_loading = threading.Lock()  # drives are opened in threads
_loaded = False


def _load_checksums() -> None:
    """Register the checksum VFS, once per process, without making it everybody's default."""
    global _loaded  # noqa: PLW0603 - SQLite's VFS list is a global of the process, too
    with _loading:
        if not _loaded:
            connection = apsw.Connection(":memory:")
            apsw.sqlite_extra.load(connection, "cksumvfs")
            connection.close()
            _loaded = True
