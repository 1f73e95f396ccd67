"""Records of users, keys and policies as documents on the system set: read, written by compare-and-set, listed."""

from collections.abc import Sequence

from cluster.access.records import R, Record, decode_record, encode_record, name_of
from cluster.clock import Ballot
from cluster.ids import RowKey
from cluster.layout import SYSTEM
from cluster.metadata.scan import Scanner, Span
from cluster.metadata.table import Table
from cluster.register.keys import successor, system_row
from cluster.register.mutations import Absent, DeleteVersion, HeadIs

_PAGE = 1000


async def read_record(table: Table, name: bytes, kind: type[R]) -> tuple[R, Ballot] | None:
    """A record and its stamp; None: there is none. Raises QuorumError, RecordError."""
    found = await table.read_document(name)
    return None if found is None else (decode_record(name, found[0], kind), found[1].stamp)


async def read_stamp(table: Table, name: bytes) -> Ballot | None:
    """The stamp alone: one quorum read that moves no document. None: there is no record."""
    live = (await table.read(table.system_ref(name))).state.live
    return None if live is None else live.stamp


async def write_record(table: Table, record: Record, over: Ballot | None) -> None:
    """Replace the record of that stamp, or write a first one (None). Raises PreconditionError, QuorumError, OutcomeUnknownError."""
    expect = Absent() if over is None else HeadIs(stamp=over)
    await table.write_document(name_of(record), encode_record(record), expect=(expect,))


async def remove_record(table: Table, name: bytes, over: Ballot) -> None:
    """Remove the record of that stamp. Raises like write_record."""
    await table.commit(table.system_ref(name), DeleteVersion(), expect=(HeadIs(stamp=over),))


async def list_records(table: Table, prefix: bytes, kind: type[R]) -> Sequence[R]:
    """All records below a prefix, by name. Raises QuorumError, RecordError."""
    low = system_row(prefix)
    high = successor(low)
    assert high is not None
    records: list[R] = []
    cursor: RowKey | None = low
    while cursor is not None:
        span = Span(start=cursor, stop=RowKey(high), bucket_epoch=0)
        rows, cursor = await Scanner(table).scan([SYSTEM], span, _PAGE)
        for row in rows:
            found = await read_record(table, prefix + row.row[len(low) :], kind)
            if found is not None:
                records.append(found[0])
    return records
