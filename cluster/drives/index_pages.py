"""What a drive shows of its index, for healing to judge: shards to which no row refers, parts whose upload is closed, chosen rows.

Early looks at stored rows: whoever collects asks for the chosen state besides.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from cluster.drives.group_read import GroupRead
from cluster.drives.index_rows import HeadRow, IndexReads
from cluster.ids import DataId, RowKey, UploadId
from cluster.register.acceptor import Control
from cluster.register.anti_entropy import (
    Known,
    RowAt,
    RowPage,
    ShardPage,
    StrayParts,
    Unreferenced,
)
from cluster.register.keys import bucket_of, owner_row, part_upload, parts_span, successor
from cluster.register.messages import CHOSEN, Failed, Reply
from cluster.register.mutations import record_data
from cluster.register.records import decode_state

BUCKETS_AT_A_TIME = 64

ReplyTo = Callable[[Reply], None]


class IndexPages:
    """One page at a time. What belongs to dead buckets is left out: data are discarded on the way, rows are swept."""

    def __init__(
        self, control: Control, reads: GroupRead, discard: Callable[[set[DataId]], None]
    ) -> None:
        self._control, self._reads, self._discard = control, reads, discard

    def show(self, request: Unreferenced | StrayParts | Known, reply: ReplyTo) -> None:
        """Answer when the index has been read."""

        def landed(page: ShardPage | RowPage | None, error: str) -> None:
            reply(Failed(error) if page is None else self._without_dead(page))

        self._reads.submit(partial(_find, request), landed)

    def _without_dead(self, page: ShardPage | RowPage) -> ShardPage | RowPage:
        dead = self._control.dead
        if isinstance(page, RowPage):
            return RowPage([at for at in page.rows if bucket_of(at.row) not in dead], page.next)
        gone = {shard.data_id for shard in page.shards if bucket_of(shard.owner) in dead}
        self._discard(gone)
        return ShardPage([s for s in page.shards if s.data_id not in gone], page.next)


def _find(request: Unreferenced | StrayParts | Known, index: IndexReads) -> ShardPage | RowPage:
    if isinstance(request, StrayParts):
        return _find_stray_parts(request, index)
    if isinstance(request, Known):
        return _find_known(request, index)
    return _find_unreferenced(request, index)


def _find_unreferenced(request: Unreferenced, index: IndexReads) -> ShardPage:
    """Bodies with shards here that no row of their owner refers to that is known to be chosen."""
    found = index.bodies_between(request.after, request.before, request.limit)
    heads = index.heads(list({shard.owner for shard in found}))
    referred = set[DataId]()
    for head in heads.values():
        if head is not None and head.flags & CHOSEN:
            with suppress(msgspec.DecodeError):  # a corrupt row refers to nothing that we know
                referred |= record_data(decode_state(head.state))
    more = found[-1].data_id if len(found) == request.limit else None
    return ShardPage([shard for shard in found if shard.data_id not in referred], more)


def _find_stray_parts(request: StrayParts, index: IndexReads) -> RowPage:
    """Rows of parts whose upload is not in the row of their owner."""
    heads, following = _part_heads(request, index)
    owners = index.heads(list({owner_row(head.row) for head in heads}))
    still_open = {row: _open_uploads(head) for row, head in owners.items()}
    strays = [
        RowAt(head.row, head.ballot)
        for head in heads
        if part_upload(head.row) not in still_open.get(owner_row(head.row), ())
    ]
    return RowPage(strays, following)


def _find_known(request: Known, index: IndexReads) -> RowPage:
    found = index.flags_from(RowKey(request.after + b"\0"), request.stop, request.limit)
    chosen = [RowAt(row, ballot) for row, ballot, flags in found if flags & CHOSEN]
    return RowPage(chosen, found[-1][0] if len(found) == request.limit else None)


def _part_heads(request: StrayParts, index: IndexReads) -> tuple[list[HeadRow], RowKey | None]:
    """Rows of parts, and after which to go on. Corrupt ones are left to their repair.

    Each bucket's parts lie together: the walk goes from one such span to the next, and reads one object of each bucket.
    """
    found: list[HeadRow] = []
    cursor = RowKey(request.after + b"\0")
    for _ in range(BUCKETS_AT_A_TIME):
        ahead = index.checked_heads(cursor, None, 1)
        if not ahead:
            return found, None
        bucket = bucket_of(ahead[0][0])
        start, stop = parts_span(bucket)
        room = request.limit - len(found)
        heads = index.checked_heads(max(cursor, start), stop, room)
        found += [head for _, head in heads if head is not None]
        if len(heads) == room:
            return found, heads[-1][0]
        beyond = successor(bucket)
        if beyond is None:
            return found, None
        cursor = RowKey(beyond)
    return found, cursor  # which is shorter than any row's name


def _open_uploads(head: HeadRow | None) -> set[UploadId]:
    if head is None:
        return set()
    try:
        return {upload.upload_id for upload in decode_state(head.state).uploads}
    except msgspec.DecodeError:
        return set()
