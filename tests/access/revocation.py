"""Three nodes, an operator who revokes and gives back, and clients who try: what a lookup said is held against what was so.

A change is known to be in effect from its acknowledgement on; one whose outcome is unknown may be, until the next that is
acknowledged. A lookup may be as much behind as the lease, or where a node may bridge an outage, as that.
"""

import contextlib

import attrs
import trio

from cluster.access.directory import tell_nobody
from cluster.access.leases import LeaseSettings
from cluster.errors import ClusterError, OutcomeUnknownError, UnavailableError
from cluster.topology.system_changes import begin_system_change
from tests.access.world import SEALING_KEY
from tests.sim.checkers import ViolationError
from tests.sim.cluster import NODES, ClusterWorld
from tests.sim.world import persist


@attrs.define
class Change:
    disabled: bool
    start: float
    end: float = float("inf")
    outcome: str = "unknown"


@attrs.frozen
class Lookup:
    node: int
    start: float
    end: float
    disabled: bool


def check_lookup(lookup: Lookup, changes: list[Change], behind: float) -> None:
    """Raises ViolationError where the answer was true at no moment between `behind` before the question and the answer."""
    low, high = lookup.start - behind, lookup.end
    possible, since = {False}, float("-inf")
    seen: set[bool] = set()
    for change in changes:
        if change.outcome == "failed":
            continue
        if since <= high and change.start >= low:
            seen |= possible
        possible = possible | {change.disabled}
        since = change.start
        if change.outcome == "ok":
            if since <= high and change.end >= low:
                seen |= possible
            possible, since = {change.disabled}, change.end
    if since <= high:
        seen |= possible
    if lookup.disabled not in seen:
        raise ViolationError(f"{lookup} is true at no moment from {low:.3f} on")


class AccessWorld(ClusterWorld):
    """A cluster whose nodes know access keys."""

    def __init__(self, rng, nursery, trace, *, push=True, lease=2.0, outage=0.0, mutate=None):
        self.access, self._push, self._mutate = {}, push, mutate
        self.lease_settings = LeaseSettings(lease=lease, outage=outage)
        self.changes: list[Change] = []
        self.lookups: list[Lookup] = []
        self.unavailable = self.moves = 0
        super().__init__(rng, nursery, trace)

    def start(self, node):
        self.settings = attrs.evolve(self.settings, access=self.lease_settings)
        super().start(node)
        core = self.processes[node].core
        core.vault.open(SEALING_KEY)
        if not self._push:
            core.directory._notify = tell_nobody
        if self._mutate is not None:
            self._mutate(core)
        self.access[node] = core

    async def until_dead(self, node, work):
        """What `work` gives; None: the node died under it."""
        process, results = self.processes[node], []

        async def run():
            results.append(await work(self.access[node]))
            scope.cancel()

        async def watch():
            await process.died.wait()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            nursery.start_soon(run)
            nursery.start_soon(watch)
        return None if process.died.is_set() or not results else results[0]

    async def operate(self, node, key, *, disabled) -> Change:
        """One change, through that node."""
        change = Change(disabled, trio.current_time())
        self.changes.append(change)

        async def work(access):
            try:
                await access.directory.set_key_disabled(key, disabled=disabled)
            except OutcomeUnknownError:
                return "unknown"
            except UnavailableError:
                return "failed"
            return "ok"

        # Told to the peers or not: acknowledged is what was written, so the clock stops when that returns.
        change.outcome = await self.until_dead(node, work) or "unknown"
        if change.outcome == "ok":
            change.end = trio.current_time()
        self.trace.say("operator", node, disabled, change.outcome)
        return change

    async def look(self, node, key):
        """Whether the key is let in; None: that cannot be said."""
        start = trio.current_time()

        async def work(access):
            try:
                holder = await access.credentials.find(key)
            except UnavailableError:
                return "unavailable"
            return "in" if holder is not None else "out"

        said = await self.until_dead(node, work)
        if said in {None, "unavailable"}:
            self.unavailable += said is not None
            return None
        self.lookups.append(Lookup(node, start, trio.current_time(), said == "out"))
        return said == "in"

    async def reshape(self):
        """Where keys are kept moves again and again, while they are asked for and changed."""
        while True:
            await trio.sleep(self.rng.uniform(0.2, 3))
            process = self.processes[self.rng.choice(NODES)]
            size = self.rng.choice([3, 5])

            def move(now, size=size):
                return begin_system_change(now, size, avoid=[self.rng.choice(now.seats()).drive])

            with trio.move_on_after(3), contextlib.suppress(ClusterError):
                if not process.died.is_set():
                    layout = await process.core.agreement.propose(process.core.table, move)
                    self.moves += 1
                    self.trace.say("the system set moves", layout.epoch)

    async def new_key(self):
        directory = self.access[NODES[0]].directory
        with trio.fail_after(120):
            await persist(lambda: directory.add_user("ann", ["readwrite"]))
            return (await persist(lambda: directory.create_key("ann"))).access_key

    def check_lookups(self):
        behind = max(self.lease_settings.lease, self.lease_settings.outage)
        for lookup in self.lookups:
            check_lookup(lookup, self.changes, behind + 1e-6)


async def revocations(rng, trace, *, mutate=None, turns=6):
    """One seed: an operator, clients and faults together, then calm; the last word reaches every node."""
    async with trio.open_nursery() as nursery:
        world = AccessWorld(
            rng, nursery, trace, push=rng.random() < 0.5, outage=rng.choice([0.0, 0.0, 6.0]), mutate=mutate
        )  # fmt: skip
        await world.settle()
        key = await world.new_key()

        async def client(node):
            while True:
                await trio.sleep(rng.choice([0.01, 0.1, 0.5]))
                if not world.processes[node].died.is_set():
                    await world.look(node, key)

        async def operator():
            for turn in range(turns):
                node = rng.choice(NODES)
                if not world.processes[node].died.is_set():
                    await world.operate(node, key, disabled=turn % 2 == 0)
                await trio.sleep(rng.choice([0.5, 3.0, 8.0]))
            busy.cancel()

        with trio.CancelScope() as busy:
            async with trio.open_nursery() as clients:
                for node in NODES:
                    clients.start_soon(client, node)
                clients.start_soon(operator)
                if rng.random() < 0.8:
                    clients.start_soon(world.chaos)
                if rng.random() < 0.4:
                    clients.start_soon(world.reshape)
        world.calm()
        await world.settle()
        await trio.sleep(10)
        last = rng.random() < 0.5
        assert (await world.operate(rng.choice(NODES), key, disabled=last)).outcome == "ok"
        await trio.sleep(world.lease_settings.lease + 1e-3)
        for node in NODES:
            if await world.look(node, key) is last:
                raise ViolationError(f"node {node} has not heard the last word")
        world.check_lookups()
        nursery.cancel_scope.cancel()
    return world
