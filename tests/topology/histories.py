"""One register on a set whose members change: writers and readers at any epoch, drives that adopt layouts when they please.

Smaller than the protocol, and just as exacting where epochs are concerned: accepts arrive one by one, a read asks a
quorum of drives that are all at its epoch, and must not miss a value that was chosen before it began.
"""

import random

import attrs

from cluster.ids import DriveId
from cluster.topology.changes import (
    Evidence,
    Place,
    activate,
    begin_move,
    complete_data,
    replace_drive,
    switch_move,
)
from cluster.topology.refusals import LayoutRefusedError
from cluster.votes import roll_of
from tests.topology.layouts import make_layout, seat


@attrs.define
class Held:
    """What a drive holds durably."""

    epoch: int = 1
    value: int = 0  # its ballot and its content in one
    dead: bool = False


@attrs.define
class Write:
    """A proposal under way."""

    epoch: int
    value: int
    accepted: set[DriveId] = attrs.field(factory=set)


class StaleReadError(AssertionError):
    """A read missed what was chosen before it began."""


class History:
    """A function of its seed."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        k, m = self.rng.choice([(1, 1), (2, 1), (2, 2), (3, 2), (4, 2)])
        layout = make_layout(k + m, 1, k, m)
        self.layouts = {1: layout}
        self.drives = {s.drive: Held() for s in layout.seats()}
        self.synced = {}
        self.numbers = iter(range(100, 10_000))
        self.values = iter(range(1, 10_000))
        self.writes, self.chosen = [], 0
        self.reads = self.activations = 0

    @property
    def now(self):
        return self.layouts[max(self.layouts)]

    def run(self, steps=150):
        whats = [self.adopt] * 4 + [self.accept] * 5 + [self.sync] * 4
        whats += [self.begin_write] * 2 + [self.read] * 3 + [self.change] * 3
        for _ in range(steps):
            self.rng.choice(whats)()

    def at(self, epoch):
        """The drives that answer requests of that epoch."""
        return {d for d, held in self.drives.items() if held.epoch == epoch and not held.dead}

    def some_epoch(self):
        return self.rng.choice(sorted({held.epoch for held in self.drives.values()}))

    def adopt(self):
        drive = self.rng.choice(sorted(self.drives))
        held = self.drives[drive]
        held.epoch = self.rng.randint(held.epoch, self.now.epoch)

    def begin_write(self):
        epoch = self.some_epoch()
        roll = roll_of(self.layouts[epoch], 0)
        if roll.electorate.read.is_met(roll.bitmap(self.at(epoch))):
            self.writes.append(Write(epoch, next(self.values)))

    def accept(self):
        if not self.writes:
            return
        write = self.rng.choice(self.writes[-4:])
        layout = self.layouts[write.epoch]
        seats = {p.drive for p in layout.sets[0].positions}
        able = sorted(seats & self.at(write.epoch) - write.accepted)
        if not able:
            return
        drive = self.rng.choice(able)
        if self.drives[drive].value > write.value:
            return
        self.drives[drive].value = write.value
        write.accepted.add(drive)
        roll = roll_of(layout, 0)
        if roll.electorate.have_accepted(roll.bitmap(write.accepted)):
            self.chosen = max(self.chosen, write.value)

    def read(self):
        epoch = self.some_epoch()
        answers = sorted(self.at(epoch))
        self.rng.shuffle(answers)
        roll = roll_of(self.layouts[epoch], 0)
        voters = roll.electorate.read
        asked = set()
        while answers and not voters.is_met(roll.bitmap(asked)):
            asked.add(answers.pop())
        if voters.is_met(roll.bitmap(asked)):
            self.reads += 1
            counted = [d for d in asked if roll.bitmap([d]) & voters.members]
            if max(self.drives[d].value for d in counted) < self.chosen:
                raise StaleReadError(epoch, self.now.epoch)

    def sync(self):
        """A rebuilding drive takes the rows of one other, as they are now."""
        learning = [p for p in self.now.sets[0].positions if not p.voting]
        if not learning:
            return
        mine = self.rng.choice(learning)
        others = [p.drive for p in self.now.sets[0].positions if p.drive != mine.drive and p.voting]
        if mine.previous is not None:
            others.append(mine.previous.drive)
        source = self.rng.choice(others)
        held = self.drives[source]
        if not held.dead and held.epoch >= mine.since:
            self.drives[mine.drive].value = max(self.drives[mine.drive].value, held.value)
            self.synced.setdefault(mine.drive, set()).add(source)

    def change(self):
        layout = self.now
        place = Place(0, self.rng.randrange(layout.n))
        present = layout.sets[0].positions[place.position]
        evidence = Evidence(
            epochs={d: held.epoch for d, held in self.drives.items()},
            synced=self.synced,
            gone={d for d, held in self.drives.items() if held.dead},
        )
        new = seat(present.node, next(self.numbers))

        def replace():
            changed = replace_drive(layout, place, new, accept_data_loss=True)
            if (
                self.rng.random() < 0.5
            ):  # it really is dead; else it only seemed so, and lives on far away
                self.drives[present.drive].dead = True
            return changed

        what = self.rng.choice(
            [
                replace,
                lambda: begin_move(layout, place, new),
                lambda: switch_move(layout, place),
                lambda: activate(layout, place, evidence),
                lambda: activate(layout, place, evidence),
                lambda: complete_data(layout, place),
            ]
        )
        try:
            changed = what()
        except LayoutRefusedError:
            return
        self.activations += not present.voting and changed.sets[0].positions[place.position].voting
        self.layouts[changed.epoch] = changed
        for one in changed.seats():  # a new drive begins with the layout that names it
            self.drives.setdefault(one.drive, Held(epoch=changed.epoch))


def stale(seeds):
    """The first seed whose history has a stale read; None: there is none."""
    for seed in seeds:
        try:
            History(seed).run()
        except StaleReadError:
            return seed
    return None
