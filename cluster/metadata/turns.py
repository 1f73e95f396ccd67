"""Writers of one register in one process take turns, in order: proposers that outrank each other only wait for drives.

No more than an optimisation. Whoever has waited too long goes on beside the others, which is as safe, and slower.
"""

from collections import OrderedDict

import trio

from cluster.ids import RowKey


class Turns:
    """Of all registers that are being written now."""

    def __init__(self) -> None:
        self._queues: dict[RowKey, OrderedDict[trio.Event, None]] = {}

    async def take(self, row: RowKey, seconds: float) -> bool:
        """Wait for those before us. Whether it is our turn, to be given back; False: `seconds` have passed first."""
        queue = self._queues.get(row)
        if queue is None:
            self._queues[row] = OrderedDict()
            return True
        called = trio.Event()
        queue[called] = None
        try:
            with trio.move_on_after(seconds):
                await called.wait()
        except trio.Cancelled:
            if called.is_set():  # in the very moment when we gave up: the next must not wait for us
                self.give_back(row)
            raise
        finally:
            queue.pop(called, None)
        return called.is_set()

    def is_taken(self, row: RowKey) -> bool:
        """Whether somebody writes the register now."""
        return row in self._queues

    def give_back(self, row: RowKey) -> None:
        """The next, if there is one."""
        queue = self._queues[row]
        if queue:
            called, _ = queue.popitem(last=False)
            called.set()
        else:
            del self._queues[row]
