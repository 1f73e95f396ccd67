"""A drive that voted all along, and missed something: it says what it wants, and gets it."""

import attrs

from cluster.drives.drive import Drive
from cluster.healing.copying import Copier, for_each
from cluster.register.anti_entropy import Want


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
        return await copier.install_chosen(drive, want.row)

    left = await for_each(wants.rows, copier.settings.at_once, bring)
    return CaughtUp(len(wants.rows) - left, left)
