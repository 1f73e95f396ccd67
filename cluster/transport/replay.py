"""Which calls of a peer have come before: a sliding window over their numbers (RFC 4303, section 3.4.3). Pure.

A transport may deliver a call twice (0-RTT data, a relay that tries again). Registers bear that, a shard that is
written under one name twice does not; so every call is carried out at most once. What is too old to tell counts as
repeated.
"""

from collections import OrderedDict

import attrs

WINDOW = 4096  # calls that may overtake one another
MAX_STARTS = 8  # process starts of one peer that are remembered


@attrs.define
class _Window:
    highest: int = -1
    seen: int = 0  # bit i: number highest - i


class ReplayGuard:
    """The calls of one peer."""

    def __init__(self) -> None:
        self._starts: OrderedDict[int, _Window] = OrderedDict()

    def is_new(self, start: int, number: int) -> bool:
        """Take note of a call; False: it came before, or is too old to tell."""
        window = self._starts.get(start)
        if window is None:
            window = self._starts[start] = _Window()
            if len(self._starts) > MAX_STARTS:
                self._starts.popitem(last=False)
        self._starts.move_to_end(start)
        if number > window.highest:
            shift = number - window.highest
            kept = (window.seen << shift) & ((1 << WINDOW) - 1) if shift < WINDOW else 0
            window.highest, window.seen = number, kept | 1
            return True
        behind = window.highest - number
        if behind >= WINDOW or window.seen >> behind & 1:
            return False
        window.seen |= 1 << behind
        return True
