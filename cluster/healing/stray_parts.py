"""Rows of parts whose upload is closed, and that stayed all the same: dropped when a quorum says so. Their data are orphans."""

import attrs

from cluster.clock import Ballot
from cluster.drives.drive import Drive
from cluster.healing.copying import Copier, for_each
from cluster.healing.settings import healing_ref
from cluster.ids import RowKey
from cluster.metadata.table import RegisterRef
from cluster.register.anti_entropy import FIRST_ROW, RowAt, RowPage, StrayParts, Unneeded
from cluster.register.keys import owner_row, part_upload
from cluster.register.messages import Done, Learn, Query, Value
from cluster.register.records import BOTTOM


@attrs.frozen
class Dropped:
    """What a round came to."""

    rows: int = 0
    next: RowKey | None = None  # where the next round goes on; None: from the start


async def drop_stray_parts(copier: Copier, drive: Drive, after: RowKey | None = None) -> Dropped:
    """One round for one drive of the owners' home set.

    A part is accepted only where its upload was read as open, and an upload that is closed stays closed: where the
    owner's chosen state does not have it, nobody reads the part's row any more, however young it is. The drive itself
    still does as long as it does not know that state for chosen: what the upload leaves behind is found by its parts.
    """
    settings, epoch = copier.settings, copier.epoch
    start = FIRST_ROW if after is None else after
    page = await copier.ask(drive, StrayParts(after=start, limit=settings.rows, epoch=epoch))
    if not isinstance(page, RowPage):
        return Dropped(next=after)
    by_owner: dict[RowKey, list[RowAt]] = {}
    for stray in page.rows:
        by_owner.setdefault(owner_row(stray.row), []).append(stray)
    doomed: list[RowAt] = []

    async def look(owner: RowKey) -> bool:
        ref = healing_ref(owner, copier.set_id)
        reading = await copier.table.read(ref)
        still_open = {upload.upload_id for upload in reading.state.uploads}
        closed = [s for s in by_owner[owner] if part_upload(s.row) not in still_open]
        if closed and await _knows_chosen(copier, drive, ref, reading.ballot):
            doomed.extend(closed)
        return True

    await for_each(list(by_owner), settings.at_once, look)
    if doomed:
        reply = await copier.ask(drive, Unneeded(rows=doomed, epoch=copier.epoch))
        if not isinstance(reply, Done):
            doomed.clear()
    return Dropped(len(doomed), page.next)


async def _knows_chosen(copier: Copier, drive: Drive, ref: RegisterRef, chosen: Ballot) -> bool:
    """Whether the drive has dealt with all that it holds of a register; if not it is told, and has by the next round."""
    query = Query(row=ref.row, epoch=copier.epoch, bucket_epoch=ref.bucket_epoch)
    value = await copier.ask(drive, query)
    if not isinstance(value, Value):
        return False
    if value.register.chosen or value.register == BOTTOM:
        return True
    await copier.ask(drive, Learn(row=ref.row, ballot=chosen))
    return False
