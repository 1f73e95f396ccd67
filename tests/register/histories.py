"""Hundreds of short faulty histories a second over the real acceptor and proposer, without Trio.

One key, n drives, several coordinators with skewed clocks; messages are delayed, lost and duplicated; drives crash and forget
their promises, lose a row, or are replaced while the old one lives on behind a partition; coordinators pause and die at any
step; tombstones are purged, orphans collected, missed rows installed; uploads are opened, completed, aborted. Every
history is checked: linearizable, no operation applied twice, and the data of the final state is still held by enough
drives. `python -m tests.register.histories SEED COUNT [MUTANT]`.
"""

import heapq
import itertools
import sys
import time
from collections import Counter
from random import Random

import attrs

from cluster.clock import HybridClock
from cluster.quorum import Electorate, durable_shards, of_all
from cluster.register.acceptor import Limits
from cluster.register.mutations import record_data
from cluster.register.proposer import newest
from tests.register.history_care import Care
from tests.register.history_clients import ROW, Client
from tests.register.history_drive import Drive
from tests.register.mutants import MUTANTS, electorate_of
from tests.sim.checkers import Op, check_key

KINDS = {"put": 30, "delete": 15, "create": 8, "replace": 10, "get": 32, "upload": 5}


@attrs.define(eq=False)
class Node:
    """A coordinator: its clock, and the layout that it goes by."""

    clock: HybridClock
    epoch: int = 1


@attrs.frozen(eq=False)
class Layout:
    """Which drive is where, and who votes."""

    epoch: int
    drives: tuple
    voters: int
    electorate: Electorate


class History:
    """One seed."""

    def __init__(self, seed, mutant=None):
        assert mutant is None or mutant in MUTANTS, mutant
        self.rng = rng = Random(seed)
        self.mutant = mutant
        k, m = rng.choice([(1, 0), (1, 1), (2, 1), (2, 2), (4, 2), (3, 2)])
        self.k, n = k, k + m
        self.needed_shards = durable_shards(k, n)
        self.themes = self._draw_themes(m)
        ttl = rng.choice([400, 1500, 4000])
        self.ring = rng.choice([2, 8])
        self.limits = Limits(op_ttl_ms=ttl, max_put_ms=ttl, ceiling_lease_ms=rng.choice([0, 200]))
        self.now = 0
        self.queue = []
        self.order = itertools.count()
        self.everybody = [Drive(i, self.limits, mutant) for i in range(n)]
        voters = (1 << n) - 1
        self.layouts = {
            1: Layout(1, tuple(self.everybody), voters, electorate_of(n, voters, mutant))
        }
        self.nodes = [
            self._make_node() for _ in range(rng.randint(2 if "ghost" in self.themes else 1, 3))
        ]
        self.far = (set(), set())  # nodes and drives on the far side of a partition
        self.loss = rng.choice([0, 0.02, 0.1, 0.25])
        self.lag = rng.choice([20, 200, 1500])
        self.values = itertools.count(1)
        self.ops: list[Op] = []
        self.violations: list[str] = []
        self.counts = Counter()

    def _draw_themes(self, m):
        rng, wanted = self.rng, MUTANTS.get(self.mutant, ())
        themes = {t for t in ("purge", "pull", "orphans", "uploads", "list") if rng.random() < 0.4}
        themes |= set(wanted)
        # A drive that is gone and a row that is lost elsewhere may be more than the code and the quorum allow.
        loss = rng.choice(["replace", "replace", "corrupt", "", ""])
        for one in ("replace", "corrupt"):
            if one in wanted:
                loss = one
        if loss:
            themes.add(loss)
        if loss == "replace" and rng.random() < 0.5:
            themes.add("ghost")
        return themes - {"replace", "corrupt", "ghost"} if m == 0 else themes

    def _make_node(self):
        skew, proposer = self.rng.randint(0, 3000), self.rng.getrandbits(64)
        if self.mutant == "shared-proposer":  # one id, and clocks that agree to 20 ms
            return Node(HybridClock(lambda: 10_000 + self.now // 20 * 20, 1))
        return Node(HybridClock(lambda: 10_000 + self.now + skew, proposer))

    @property
    def layout(self):
        return self.layouts[len(self.layouts)]

    # -- time and network

    def at(self, delay, call, *arguments):
        heapq.heappush(self.queue, (self.now + delay, next(self.order), call, arguments))

    def delay(self):
        return (
            self.rng.randint(1, 10) if self.rng.random() < 0.8 else self.rng.randint(10, self.lag)
        )

    def _is_cut(self, node, drive):
        nodes, drives = self.far
        return bool(drives) and (node in nodes) != (drive in drives)

    def send(self, node, drive, message, back):
        def deliver():
            if not drive.up or self._is_cut(node, drive):
                return
            epoch = getattr(message, "epoch", 0)
            if epoch > drive.control.epoch:
                self.adopt(drive, epoch)  # it fetches that layout first
            reply = drive.answer(message)
            if reply is not None and self.rng.random() >= self.loss:
                self.at(self.delay(), hear, reply)

        def hear(reply):
            if not self._is_cut(node, drive):
                back(reply)

        if self.rng.random() >= self.loss:
            self.at(self.delay(), deliver)
        if self.rng.random() < 0.05:
            self.at(self.delay() * 5, deliver)

    # -- faults

    def crash(self):
        drives = self.layout.drives
        up = [d for d in drives if d.up and d.voting]
        if len(up) > len(drives) - max(1, len(drives) - self.k):
            drive = self.rng.choice(up)
            drive.up = False
            # In a hot history a drive is back while proposals that it promised for are still on their way.
            pause = self.rng.randint(1, 15) if self.hot else self.rng.randint(10, 3000)
            self.at(pause, self.boot, drive)

    def boot(self, drive):
        if not drive.lost:
            drive.boot()

    def replace(self):
        """A drive is given up: it is gone, or it only seemed so and lives on with some nodes and drives that hear late."""
        rng, before = self.rng, self.layout
        place = rng.randrange(len(before.drives))
        old = before.drives[place]
        new = Drive(place, self.limits, self.mutant, epoch=before.epoch + 1)
        self.everybody.append(new)
        hears = {}
        if "ghost" in self.themes and rng.random() < 0.3:
            hears = {old: rng.randint(1, 3000)}  # within reach, and only slow to hear of it
        elif "ghost" in self.themes:
            others = [d for d in before.drives if d is not old]
            far = set(rng.sample(others, before.electorate.read.needed - 1))
            nodes = set(rng.sample(self.nodes, rng.randint(1, len(self.nodes) - 1)))
            self.far = (nodes, far | {old})
            heals = rng.randint(1000, 6000)
            self.at(heals, setattr, self, "far", (set(), set()))
            hears = {one: heals + rng.randint(1, 500) for one in (*nodes, *far, old)}
        else:
            old.lost, old.up = True, False
        votes = self.mutant == "votes-at-once"
        layout = self.change_layout(new, place, votes=votes, hears=hears)
        if not votes:
            near = [node for node in self.nodes if node not in hears]
            node = Node(rng.choice(near).clock, layout.epoch)
            care = Care(self, node)
            self.at(50, lambda: care.run(care.rebuild(new, layout.epoch)))

    def change_layout(self, drive, place, *, votes, hears=None):
        """A drive at a place, with a vote or without; everybody hears of it sooner or later."""
        now, rng = self.layout, self.rng
        drives = (*now.drives[:place], drive, *now.drives[place + 1 :])
        voters = now.voters | 1 << place if votes else now.voters & ~(1 << place)
        electorate = electorate_of(len(drives), voters, self.mutant)
        layout = self.layouts[now.epoch + 1] = Layout(now.epoch + 1, drives, voters, electorate)
        for one in (*self.nodes, *drives, *now.drives):
            late = (hears or {}).get(one, rng.randint(1, 2000))
            if one in self.far[0] or one in self.far[1]:
                late = max(late, (hears or {}).get(one, 8000))
            self.at(late, self.adopt, one, layout.epoch)
        if drive.control.epoch <= layout.epoch:
            self.adopt(drive, layout.epoch)
        return layout

    def adopt(self, one, epoch):
        if isinstance(one, Node):
            one.epoch = max(one.epoch, epoch)
            return
        one.control.epoch = epoch = max(one.control.epoch, epoch)
        layout, before = self.layouts[epoch], self.layouts.get(epoch - 1)
        votes = bool(layout.voters >> one.position & 1)
        # One that has lost its place is asked by the drive that takes it, and by nobody else.
        is_source = not votes and before is not None and one in before.drives
        one.vote(votes if one in layout.drives else is_source)

    def heal(self, drive):
        """Shards that it refers to and does not hold are made from others."""
        for row in drive.rows:
            for data_id in (
                record_data(drive.register(row).state) - drive.shards - drive.gone_shards
            ):
                others = [d for d in self.layout.drives if d is not drive]
                if sum(data_id in other.shards for other in others) >= self.k:
                    drive.shards.add(data_id)

    # -- clients and the cluster's own work

    def client(self, kind, *, immortal=False):
        rng = self.rng
        node = rng.choice(self.nodes)
        value = next(self.values) if kind not in {"get", "delete"} else None
        expected = None
        if kind == "replace":
            states = [d.register(ROW).state for d in self.layout.drives]
            seen = [s.live.validator for s in states if s.live]
            expected = int(rng.choice(seen)) if seen else 0
        shown = "put" if kind == "upload" else kind
        op = Op(kind=shown, key=b"key", value=value, expected=expected, start=self.now)
        self.ops.append(op)
        dies = self.now + rng.randint(1, 400) if rng.random() < 0.15 and not immortal else None
        client = Client(self, node, op, dies)
        match kind:
            case "get":
                script = client.get(is_list="list" in self.themes and rng.random() < 0.6)
            case "delete":
                script = client.delete()
            case "upload":
                script = client.upload()
            case _:
                script = client.put()
        client.run(script)

    def care(self, what, *, of_drive=True):
        """One of Care's scripts, for a drive that is up."""
        care = Care(self, self.rng.choice(self.nodes))
        if not of_drive:
            care.run(getattr(care, what)())
            return
        up = [d for d in self.layout.drives if d.up]
        if what == "purge":  # only where it can lead to something
            up = [d for d in up if d.register(ROW).chosen and d.register(ROW).state.is_tombstone]
        if up:
            care.run(getattr(care, what)(self.rng.choice(up)))

    def _schedule_faults(self, until):
        rng, themes = self.rng, self.themes

        def several(at_most, span, call, *arguments, **named):
            for _ in range(rng.randint(0, at_most)):
                self.at(rng.randint(0, span), lambda: call(*arguments, **named))

        several(40 if self.hot else 8, until + 400, self.crash)
        if "purge" in themes:
            several(16, until + 9000, self.care, "purge")
        if "pull" in themes:
            several(14, until + 5000, self.care, "catch_up")
        if "orphans" in themes:
            several(8, until + 8000, self.care, "collect_orphans")
        if "replace" in themes:
            self.at(rng.randint(0, until), self.replace)
        if "corrupt" in themes:
            drive = rng.choice(self.layout.drives)
            for _ in range(rng.randint(1, 3)):
                self.at(rng.randint(0, until + 400), drive.corrupt, ROW)
            several(4, until + 2000, self.care, "repair", of_drive=False)

    def run(self):
        rng, until = self.rng, 0
        self.hot = hot = rng.random() < 0.4
        kinds = dict(KINDS)
        if "uploads" not in self.themes:
            kinds["upload"] = 0
        if "purge" in self.themes:
            kinds |= {"delete": 30, "replace": 0}
        for _ in range(rng.randint(4, 14)):
            until += rng.choice([1, 3, 10, 30] if hot else [1, 5, 50, 300, 1500])
            (kind,) = rng.choices(list(kinds), list(kinds.values()))
            self.at(until, self.client, kind)
        self._schedule_faults(until)
        end = until + 15_000
        self.at(end, self._calm)
        for turn in range(3):
            self.at(end + 3000 + 2000 * turn, lambda: self.client("get", immortal=True))
        while self.queue:
            self.now, _, call, arguments = heapq.heappop(self.queue)
            if self.now > end + 20_000:
                break
            call(*arguments)
        self.check()
        return self.violations

    def _calm(self):
        self.loss, self.lag, self.far = 0, 20, (set(), set())
        for drive in self.everybody:
            if not drive.up:
                self.boot(drive)
        if "corrupt" in self.themes:
            for turn in range(3):
                self.at(500 * turn, lambda: self.care("repair", of_drive=False))

    def check(self):
        if not check_key(self.ops):
            self.violations.append("not linearizable")
        drives = self.layout.drives
        final, _ = newest({i: d.register(ROW) for i, d in enumerate(drives)}, of_all(len(drives)))
        for data_id in record_data(final.state):
            if sum(data_id in drive.shards for drive in drives) < self.k:
                self.violations.append("data lost")
        for op in self.ops[-3:]:
            if op.kind == "get" and op.outcome != "ok":
                self.violations.append("a calm read failed")


def run(seeds, mutant=None):
    """(number of histories, first violating seed and what was violated) — stops at the first violation."""
    for count, seed in enumerate(seeds, 1):
        violations = History(seed, mutant).run()
        if violations:
            return count, (seed, violations)
    return len(seeds), None


def main(first, number, mutant=None):
    counts, began = Counter(), time.process_time()
    for seed in range(first, first + number):
        history = History(seed, mutant)
        for violation in history.run():
            print("VIOLATION", seed, violation, sorted(history.themes), flush=True)
            counts[violation] += 1
        counts.update(history.counts)
        counts.update((op.kind, op.outcome) for op in history.ops)
    rate = number / (time.process_time() - began)
    print(f"{number} histories from {first}, {rate:.0f} a second of CPU time; mutant: {mutant}")
    print({str(key): value for key, value in counts.most_common()})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4])
