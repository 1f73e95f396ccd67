"""A drive that voted all along, and missed something: others tell it what, it says what it wants, and gets it."""

from collections.abc import Sequence

import attrs

from cluster.drives.drive import Drive
from cluster.healing.copying import Copier, for_each
from cluster.healing.settings import span_of
from cluster.ids import DriveId, RowKey
from cluster.register.anti_entropy import DropHints, Have, Held, Hints, Known, RowAt, RowPage, Want


@attrs.frozen
class CaughtUp:
    """What a round came to. What is left is wanted still, and asked for again."""

    brought: int = 0
    left: int = 0


async def catch_up(copier: Copier, drive: Drive) -> CaughtUp:
    """One round for one drive: rows that it missed are installed, corrupt ones repaired."""
    wants = await copier.wants(drive, copier.settings.rows)
    if wants is None:
        return CaughtUp()

    async def bring(want: Want) -> bool:
        if want.ballot is None:
            return await copier.repair(drive, want.row)
        if not want.chosen:
            await copier.settle(drive, want.row, want.ballot)
            return True
        return await copier.install_chosen(drive, want.row, was_chosen=want.ballot)

    left = await for_each(wants.rows, copier.settings.at_once, bring)
    return CaughtUp(len(wants.rows) - left, left)


async def pass_hints(
    copier: Copier, drive: Drive, peers: Sequence[Drive], cursors: dict[DriveId, RowKey]
) -> int:
    """Tell a drive what its peers know that it missed, one page of each. How many rows it lacked.

    What it lacks it wants from then on; what it has is forgotten by the peer. `cursors` is where to go on with each for this drive, as it
    was left; a peer that is through begins again. The hints of n - Qw + 1 peers hold all that was ever learnt as chosen.
    """
    members = copier.table.members_of(copier.set_id)
    position = next(
        (i for i, one in enumerate(members.drives) if one.drive_id == drive.drive_id), None
    )
    if position is None:
        return 0
    epoch, lacked, places = members.epoch, 0, len(members.drives)
    limit, (start, stop) = copier.settings.rows, span_of(copier.set_id)
    afters = [cursors.get(peer.drive_id, start) for peer in peers]
    # Most begin at the start: one message object for them all, which goes to a node once.
    questions = {
        after: Hints(position=position, after=after, stop=stop, limit=limit, epoch=epoch)
        for after in afters
    }
    pages = await copier.ask_each([(p, questions[a]) for p, a in zip(peers, afters, strict=True)])
    for peer, page in zip(peers, pages, strict=True):
        if not isinstance(page, RowPage):
            continue
        has = await _confront(copier, drive, page.rows, epoch)
        if has is None:
            return lacked  # the drive does not answer
        lacked += len(page.rows) - len(has)
        if has:
            drop = DropHints(position=position, places=places, rows=has, epoch=epoch)
            await copier.ask(peer, drop)
        cursors[peer.drive_id] = page.next or start
    return lacked


async def compare(
    copier: Copier, drive: Drive, peer: Drive, after: RowKey | None = None
) -> tuple[int, RowKey | None]:
    """Some of what a peer knows to be chosen, the next rows at every call: what the drive lacks it wants from then on.

    Hints are written a moment after LEARN, and a coordinator may die in between. How many rows it lacked, and after which to go on; None: the
    peer has been walked through.
    """
    start, stop = span_of(copier.set_id)
    limit, epoch = copier.settings.rows, copier.epoch
    request = Known(after=start if after is None else after, stop=stop, limit=limit, epoch=epoch)
    page = await copier.ask(peer, request)
    if not isinstance(page, RowPage):
        return 0, after
    has = await _confront(copier, drive, page.rows, epoch)
    return (0, after) if has is None else (len(page.rows) - len(has), page.next)


async def _confront(
    copier: Copier, drive: Drive, rows: Sequence[RowAt], epoch: int
) -> list[RowAt] | None:
    """Which of these the drive holds, or something newer; None: it does not say."""
    if not rows:
        return []
    held = await copier.ask(drive, Have(rows=rows, epoch=epoch))
    if not isinstance(held, Held) or len(held.ballots) != len(rows):
        return None
    answers = zip(rows, held.ballots, strict=True)
    return [row for row, ballot in answers if ballot is not None and ballot >= row.ballot]
