"""What one commit writes into a drive's index, as SQL: few statements, because each is a step and a release of the GIL."""

import itertools
from collections.abc import Sequence
from typing import Any

import apsw

from cluster.drives.index_rows import Batch, NoteKind, body_crc
from cluster.register.messages import CHOSEN


def write_batch(db: apsw.Connection, batch: Batch) -> None:
    """Within a transaction. Raises apsw.Error."""
    heads = [
        (h.row, h.ballot.pack(), h.flags, h.state, h.bodies, h.crc)
        for h in batch.heads.values()
        if h
    ]
    if heads:
        _many(db, "INSERT OR REPLACE INTO head", heads)
    gone = [(row,) for row, head in batch.heads.items() if head is None]
    if gone:
        db.executemany("DELETE FROM head WHERE row=?", gone)
    if batch.chosen:
        rows = list(batch.chosen)
        for at in range(0, len(rows), 64):
            some = rows[at : at + 64]
            marks = ",".join("?" * len(some))
            db.execute(f"UPDATE head SET flags=flags|{CHOSEN} WHERE row IN ({marks})", some)
    if batch.bodies:
        _many(
            db,
            "INSERT INTO body",
            [(rowid, data, body_crc(rowid, data)) for rowid, data in batch.bodies.items()],
        )
    _write_rest(db, batch)


def _write_rest(db: apsw.Connection, batch: Batch) -> None:
    run = db.executemany
    if batch.drop_bodies:
        run("DELETE FROM body WHERE id=?", [(rowid,) for rowid in batch.drop_bodies])
    for row, is_open in batch.uploads.items():
        sql = (
            "INSERT OR IGNORE INTO upload VALUES (?)"
            if is_open
            else "DELETE FROM upload WHERE row=?"
        )
        db.execute(sql, (row,))
    if batch.shards:
        _many(
            db,
            "INSERT OR REPLACE INTO shard",
            [
                (s.data_id, s.position, s.owner, s.payload_bytes, s.digests, s.body)
                for s in batch.shards
            ],
        )
    if batch.drop_shards:
        run("DELETE FROM shard WHERE data_id=? AND position=?", batch.drop_shards)
    _write_heal(db, batch)
    for row, missed in batch.hints.items():
        if missed:
            db.execute("INSERT OR REPLACE INTO hint VALUES (?,?)", (row, missed))
        else:
            db.execute("DELETE FROM hint WHERE row=?", (row,))
    if batch.trash:
        _many(db, "INSERT OR IGNORE INTO trash", list(batch.trash.items()))
    if batch.drop_trash:
        gone = [(data_id,) for data_id in batch.drop_trash]
        run("DELETE FROM trash WHERE data_id=?", gone)
        run("DELETE FROM heal WHERE data_id=?", gone)
        run(f"DELETE FROM note WHERE kind={NoteKind.LOOK:d} AND data_id=?", gone)
    if batch.settled or batch.notes:
        _write_notes(db, batch)
    for bucket, (epoch, dead) in batch.fences.items():
        db.execute("INSERT OR REPLACE INTO fence VALUES (?,?,?)", (bucket, epoch, dead))
    for name, value in batch.ctl.items():
        db.execute("INSERT OR REPLACE INTO ctl VALUES (?,?)", (name, value))


def _write_notes(db: apsw.Connection, batch: Batch) -> None:
    for (kind, data_id), (was, row) in batch.settled.items():
        which = (kind, data_id, was)
        if row is None:
            sql = "DELETE FROM note WHERE kind=? AND data_id=? AND packed=?"
            db.execute(sql, which)
        else:
            sql = (
                "UPDATE note SET due_ms=?, rank=?, packed=? WHERE kind=? AND data_id=? AND packed=?"
            )
            db.execute(sql, (row.due_ms, row.rank, row.packed, *which))
    _many(
        db,
        "INSERT INTO note",
        [(*key, row.due_ms, row.rank, row.packed) for key, row in batch.notes.items()],
        "ON CONFLICT(kind, data_id) DO UPDATE SET due_ms=excluded.due_ms, rank=excluded.rank, "
        "packed=excluded.packed WHERE excluded.rank >= rank",
    )


def _write_heal(db: apsw.Connection, batch: Batch) -> None:
    run = db.executemany
    if batch.debt:
        run(
            "INSERT OR IGNORE INTO heal SELECT ?1, ?2, ?3, 'not staged at commit' "
            "WHERE NOT EXISTS (SELECT 1 FROM shard WHERE data_id=?1 AND position=?2)",
            [(*key, owner) for key, owner in batch.debt.items()],
        )
    if batch.heal:
        bad = [(*key, *why) for key, why in batch.heal.items() if why is not None]
        _many(db, "INSERT OR REPLACE INTO heal", bad)
        healed = [key for key, why in batch.heal.items() if why is None]
        if healed:
            run("DELETE FROM heal WHERE data_id=? AND position=?", healed)


def _many(db: apsw.Connection, before: str, rows: Sequence[Sequence[Any]], after: str = "") -> None:
    """Multi-row VALUES statements: one step, and one release of the GIL, for up to 64 rows."""
    at = 0
    while at < len(rows):
        left = len(rows) - at
        count = 64 if left >= 64 else 16 if left >= 16 else 4 if left >= 4 else 1
        places = "(" + ",".join("?" * len(rows[at])) + ")"
        sql = f"{before} VALUES {','.join([places] * count)} {after}"
        db.execute(sql, tuple(itertools.chain.from_iterable(rows[at : at + count])))
        at += count
