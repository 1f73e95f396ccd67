"""Which drives to ask first: those of this node, then those whose nodes answer sooner. Pure."""

import math
from collections.abc import Sequence

from cluster.drives.drive import Drive

_FINEST_SECONDS = 0.001  # nodes of one room differ by less, and by chance
_WEIGHT = 1 / 4  # of the newest answer: the fourth ping tells two thirds of a change


class Latency:
    """Smoothed seconds from a question to its answer."""

    def __init__(self) -> None:
        self.seconds = 0.0  # 0: nothing was measured yet

    def note(self, seconds: float) -> None:
        """An answer took so long."""
        if self.seconds:
            self.seconds += (seconds - self.seconds) * _WEIGHT
        else:
            self.seconds = seconds


def rank(cost: float) -> int:
    """Costs of one rank are alike: 0 is here, then each factor of two is a rank, and what cannot be reached comes last.

    Coarse on purpose: among equals the order of positions stays, which puts data before parity.
    """
    if cost <= 0:
        return 0
    return 1 + int(cost / _FINEST_SECONDS).bit_length() if math.isfinite(cost) else 1 << 10


def order(drives: Sequence[Drive], among: Sequence[int]) -> Sequence[int]:
    """The indexes `among`, those of the nearest drives first, equals as they stand. Where all are local, `among` itself."""
    for index in among:
        if drives[index].cost:
            return sorted(among, key=lambda index: rank(drives[index].cost))
    return among
