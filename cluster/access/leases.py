"""How long what was read of a register may be used: by a lease, without asking; without a quorum, for a while. Pure.

An answer counts from the moment when the read *began*: what was acknowledged before that is in it. So a revocation is
seen by every decision that is made later than its acknowledgement and the lease.
"""

from collections.abc import Iterable

import attrs

from cluster.access.records import Policy, User
from cluster.clock import Ballot

NEVER = float("-inf")


@attrs.frozen(kw_only=True)
class KnownKey:
    """An access key as it is kept in memory, its secret opened."""

    user: str
    user_id: bytes
    disabled: bool
    secret: str = attrs.field(repr=False)


Known = User | KnownKey | Policy


@attrs.frozen(kw_only=True)
class LeaseSettings:
    """Seconds, and bounds of the tables."""

    lease: float = 2.0  # without asking
    outage: float = 60.0  # while no quorum answers, since the last read that one answered
    max_known: int = 10_000
    max_absent: int = 4_096


@attrs.define
class Kept:
    """What a register was read to hold."""

    known: Known | None  # None: the register is empty
    stamp: Ballot | None
    began: float
    in_vain: float = NEVER  # when it was last found that no quorum answers


class Leases:
    """Registers by name. What is absent has a table of its own, so that a flood of strangers displaces nobody."""

    def __init__(self, settings: LeaseSettings) -> None:
        self.settings = settings
        self._known: dict[bytes, Kept] = {}
        self._absent: dict[bytes, Kept] = {}

    def find(self, name: bytes) -> Kept | None:
        """What was last read, however long ago."""
        return self._known.get(name) or self._absent.get(name)

    def is_usable(self, kept: Kept, *, now: float, since: float) -> bool:
        """Whether a request that came at `since` may be judged by it at `now`."""
        if kept.began >= min(since, now - self.settings.lease):
            return True
        return now - kept.in_vain <= self.settings.lease and self._bridges(kept, now)

    def _bridges(self, kept: Kept, now: float) -> bool:
        return kept.known is not None and now - kept.began <= self.settings.outage

    def keep(self, name: bytes, known: Known | None, stamp: Ballot | None, began: float) -> None:
        """A quorum has answered a read that began then."""
        self.forget([name])
        table, limit = (
            (self._absent, self.settings.max_absent)
            if known is None
            else (self._known, self.settings.max_known)
        )
        if len(table) >= limit:
            del table[next(iter(table))]  # the one that was read longest ago
        table[name] = Kept(known, stamp, began)

    def note_outage(self, name: bytes, now: float) -> bool:
        """No quorum has answered. Whether what is kept may be used meanwhile."""
        kept = self._known.get(name)
        if kept is None or not self._bridges(kept, now):
            return False
        kept.in_vain = now
        return True

    def forget(self, names: Iterable[bytes]) -> None:
        """These may have changed: they are asked for before they are used again."""
        for name in names:
            self._known.pop(name, None)
            self._absent.pop(name, None)

    def __len__(self) -> int:
        return len(self._known) + len(self._absent)
