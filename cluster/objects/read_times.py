"""How long shard reads take: which drives are slow, when a read is late, and how many may be doubled for it. Pure.

A read that is late is joined by one of another shard (Dean and Barroso, The Tail at Scale, 2013). That costs little as long as it is
rare: a budget keeps it so when everything is slow at once.
"""

from collections import deque

import attrs

from cluster.ids import DriveId

KEPT = 128  # answers that the percentiles look at
RENEWED = 16  # answers after which they are computed again
_WEIGHT = 1 / 4  # of the newest answer in a drive's mean
_SLOW_FACTOR, _SLOW_SECONDS = 4, 0.02  # a drive is slow above so many medians, and so many seconds
_FORGOTTEN_SECONDS = 10.0  # a slow drive that nobody read from since is tried again
_FIRST_DELAY = 0.1  # before anything is known
_BURST = 10.0  # reads that may be doubled at once


@attrs.define
class _Drive:
    mean: float
    since: float


class ReadTimes:
    """Of the shard reads of one node. `share`: how many of the reads may be doubled, 0.03 for three of a hundred."""

    def __init__(self, share: float, least_seconds: float) -> None:
        self._share, self._least = share, least_seconds
        self._tokens = _BURST if share else 0.0
        self._recent: deque[float] = deque(maxlen=KEPT)
        self._fresh = 0  # answers since the percentiles were computed
        self._median = 0.0
        self._drives: dict[DriveId, _Drive] = {}
        self._slow: set[DriveId] = set()
        self.delay = max(_FIRST_DELAY, least_seconds)  # after which a read is late
        self.started = self.doubled = 0

    def note_start(self) -> None:
        """A read begins."""
        self.started += 1
        self._tokens = min(self._tokens + self._share, _BURST)

    def note(self, drive: DriveId, seconds: float, now: float) -> None:
        """A read was answered after so long."""
        self._recent.append(seconds)
        self._fresh += 1
        if self._fresh >= RENEWED:
            self._fresh = 0
            ordered = sorted(self._recent)
            self._median = ordered[len(ordered) // 2]
            self.delay = max(1.5 * ordered[len(ordered) * 95 // 100], self._least)
        self._note(drive, seconds, now)

    def note_given_up(self, drive: DriveId, seconds: float, now: float) -> None:
        """A read was not answered within so long: no answer for the percentiles, which would feed on themselves."""
        known = self._drives.get(drive)
        if known is None or seconds > known.mean:
            self._note(drive, seconds, now)
        elif seconds >= self.delay:
            known.since = now

    def _note(self, drive: DriveId, seconds: float, now: float) -> None:
        known = self._drives.get(drive)
        if known is None:
            known = self._drives[drive] = _Drive(seconds, now)
        else:
            known.mean += (seconds - known.mean) * _WEIGHT
            known.since = now
        if self._median and known.mean > max(_SLOW_FACTOR * self._median, _SLOW_SECONDS):
            self._slow.add(drive)
        else:
            self._slow.discard(drive)

    @property
    def are_alike(self) -> bool:
        """Whether no drive has been slow."""
        return not self._slow

    def is_slow(self, drive: DriveId, now: float) -> bool:
        """Whether others are to be read from first."""
        return drive in self._slow and now - self._drives[drive].since <= _FORGOTTEN_SECONDS

    def try_double(self) -> bool:
        """Take a read out of the budget for doubling a late one; False: it is used up."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self.doubled += 1
        return True
