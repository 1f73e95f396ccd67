"""The index: all or nothing, in order, and nothing damaged passes for absent."""

import apsw
import pytest

from cluster.clock import Ballot
from cluster.drives import roll_up
from cluster.drives.index import CHECKSUM_VFS, FILE, PAGE_BYTES, Index, IndexDamagedError
from cluster.drives.index_rows import (
    CHOSEN,
    LIVE,
    Batch,
    HeadRow,
    ShardRow,
    pack_bodies,
    unpack_bodies,
)
from cluster.ids import BucketId, DataId, RowKey
from cluster.register.keys import object_row

BUCKET = BucketId(bytes(16))
DATA, OTHER = DataId(b"d" * 16), DataId(b"e" * 16)
OWNER = object_row(BUCKET, b"owner")


def head(key: bytes, flags: int = LIVE, state: bytes = b"state") -> HeadRow:
    return HeadRow(object_row(BUCKET, key), Ballot(1, 2, 3), flags, state, b"")


def heads(*rows: HeadRow) -> Batch:
    return Batch(heads={row.row: row for row in rows})


@pytest.fixture
def index(tmp_path):
    opened = Index(tmp_path, writable=True)
    yield opened
    opened.close()


def test_a_row_comes_back_as_it_went_in_and_an_absent_one_does_not(index):
    row = head(b"a")
    index.apply(heads(row))
    assert index.heads([row.row, object_row(BUCKET, b"b")]) == {row.row: row}
    index.apply(Batch(chosen={row.row}))
    found = index.heads([row.row])[row.row]
    assert found is not None
    assert found.flags == LIVE | CHOSEN
    index.apply(Batch(heads={row.row: None}))
    assert index.heads([row.row]) == {}


def test_more_rows_than_one_statement_takes(index):
    rows = [head(b"%04d" % number) for number in range(333)]
    index.apply(Batch(heads={r.row: r for r in rows}, chosen={r.row for r in rows[:100]}))
    assert len(index.heads([row.row for row in rows])) == 333
    assert index.count("head") == 333
    # Flags in a batch's own heads come with the rows: `chosen` is for the others.
    assert index.heads([rows[0].row])[rows[0].row].flags == LIVE | CHOSEN


def test_a_batch_is_written_as_a_whole_or_not_at_all(index):
    index.apply(Batch(bodies={7: b"data"}))
    with pytest.raises(apsw.ConstraintError):
        index.apply(Batch(heads={OWNER: head(b"owner")}, bodies={8: b"more", 7: b"again"}))
    assert index.heads([OWNER]) == {}
    assert index.body(8) is None
    index.apply(Batch(bodies={8: b"more"}))
    assert index.body(8) == b"more"
    assert index.last_body() == 8


def test_a_row_that_was_exchanged_for_another_is_noticed(index, tmp_path):
    index.apply(heads(head(b"a"), head(b"b", state=b"other")))
    index.apply(Batch(bodies={1: b"one", 2: b"two"}))
    index._db.execute(
        "UPDATE head SET state=(SELECT state FROM head WHERE row=?1), crc=(SELECT crc FROM head WHERE row=?1) WHERE row=?2",
        (object_row(BUCKET, b"b"), object_row(BUCKET, b"a")),
    )
    index._db.execute("UPDATE body SET data=x'00' WHERE id=2")
    assert index.heads([object_row(BUCKET, b"a")]) == {object_row(BUCKET, b"a"): None}
    assert index.scan(object_row(BUCKET, b""), None, 10)[0].ballot is None
    assert index.body(1) == b"one"
    assert index.body(2) is None


def test_a_flipped_bit_in_any_page_is_an_error_and_never_an_absence(tmp_path):
    rows = [head(b"%04d" % number, state=bytes(300)) for number in range(200)]
    index = Index(tmp_path, writable=True)
    index.apply(heads(*rows))
    index.checkpoint()
    index.close()
    path = tmp_path / FILE
    clean = path.read_bytes()
    pages = len(clean) // PAGE_BYTES
    assert pages > 15
    noticed = 0
    for page in range(1, pages):
        damaged = bytearray(clean)
        damaged[page * PAGE_BYTES + 1000] ^= 4
        path.write_bytes(damaged)
        (tmp_path / f"{FILE}-wal").unlink(missing_ok=True)
        found = {}
        try:
            reading = Index(tmp_path)
            try:
                found = reading.heads([row.row for row in rows])
            finally:
                reading.close()
        except apsw.Error:
            noticed += 1
            continue
        assert found == {row.row: row for row in rows}, f"page {page}"
    assert noticed > 10


def test_an_index_of_another_version_is_refused(tmp_path):
    Index(tmp_path, writable=True).close()
    db = apsw.Connection(str(tmp_path / FILE), vfs=CHECKSUM_VFS)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(IndexDamagedError, match="version 99"):
        Index(tmp_path, writable=True)


def test_a_reader_sees_what_is_committed_and_cannot_write(index, tmp_path):
    reader = Index(tmp_path)
    index.apply(heads(head(b"a")))
    assert reader.heads([object_row(BUCKET, b"a")])
    with pytest.raises(apsw.Error):
        reader.apply(heads(head(b"b")))
    reader.close()


def test_the_log_stays_in_place_and_says_how_much_it_holds(tmp_path):
    index = Index(tmp_path, writable=True)
    index.apply(Batch(bodies={number: bytes(3000) for number in range(100)}))
    assert index.log_bytes >= 100 * PAGE_BYTES
    index.checkpoint()
    index.apply(heads(head(b"a")))
    assert index.log_bytes < 10 * PAGE_BYTES
    index.close()
    assert (tmp_path / f"{FILE}-wal").stat().st_size >= 100 * PAGE_BYTES


def test_debt_is_noted_only_where_no_shard_is(index):
    shard = ShardRow(data_id=DATA, position=1, owner=OWNER, payload_bytes=5)
    index.apply(Batch(shards=[shard], debt={(DATA, 1): OWNER, (OTHER, 1): OWNER}))
    assert list(index.heal_rows()) == [(OTHER, 1, OWNER, "not staged at commit")]
    # A shard whose content is bad is debt although it is here, until it is replaced.
    index.apply(Batch(heal={(DATA, 1): (OWNER, "bad")}))
    assert index.count("heal") == 2
    index.apply(Batch(heal={(DATA, 1): None, (OTHER, 1): None}))
    assert index.count("heal") == 0


def test_trash_is_due_in_its_time_and_its_first_date_stands(index):
    index.apply(Batch(trash={DATA: 100, OTHER: 50}))
    index.apply(Batch(trash={OTHER: 5000}))
    assert index.due_trash(49, 10) == []
    assert index.due_trash(99, 10) == [OTHER]
    assert index.due_trash(100, 1) == [OTHER]
    index.apply(Batch(drop_trash=[OTHER]))
    assert index.due_trash(100, 10) == [DATA]


def test_shards_are_found_by_position_and_together(index):
    rows = [
        ShardRow(data_id=DATA, position=p, owner=OWNER, payload_bytes=p, digests=b"x", body=p)
        for p in (0, 3)
    ]
    index.apply(Batch(shards=rows))
    assert index.shard(DATA, 3) == rows[1]
    assert index.shard(DATA, 1) is None
    assert index.shards_of(DATA) == rows
    index.apply(Batch(drop_shards=[(DATA, 0)]))
    assert index.shards_of(DATA) == rows[1:]


def test_control_values_and_fences_come_back(index):
    index.apply(
        Batch(
            ctl={"ceiling_ms": b"77", "epoch": b"3", "gc_floor": Ballot(5, 0, 1).pack()},
            fences={BUCKET: (4, False), BucketId(b"x" * 16): (2, True)},
        )
    )
    control = index.control()
    assert (control.ceiling_ms, control.epoch, control.gc_floor) == (77, 3, Ballot(5, 0, 1))
    assert control.fences == {BUCKET: 4, BucketId(b"x" * 16): 2}
    assert control.dead == {BucketId(b"x" * 16)}


def test_a_rolled_up_page_has_its_price_and_is_continued(index, monkeypatch):
    monkeypatch.setattr(roll_up, "ROWS_SEEN", 128)
    dead = [head(b"p/%04d" % number, flags=CHOSEN) for number in range(500)]
    index.apply(heads(*dead, head(b"z")))
    cursor, found, asked = object_row(BUCKET, b""), [], 0
    while cursor is not None:
        rows, cursor = index.scan_rolled(cursor, None, 10, b"/", 17)
        found += [row.row for row in rows]
        asked += 1
    assert found == [object_row(BUCKET, b"z")]
    assert asked == 4


def test_a_prefix_without_a_successor_ends_the_scan(index):
    last = RowKey(b"\xff" * 20)
    index.apply(Batch(heads={last: HeadRow(last, Ballot(1, 2, 3), LIVE, b"", b"")}))
    rows, cursor = index.scan_rolled(RowKey(b"\xff"), None, 10, b"\xff", 0)
    assert [row.row for row in rows] == [last]
    assert cursor is None


def test_packed_bodies_unpack():
    bodies = {b"a" * 16: 1, b"b" * 16: 1 << 40}
    assert unpack_bodies(pack_bodies(bodies.items())) == bodies
    assert unpack_bodies(b"") == {}
