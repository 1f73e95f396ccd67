"""A cluster of one becomes three under load: nothing is lost on the way, and in the end any node may go."""

import attrs
import pytest
from msgspec.structs import replace

from cluster.layout import SYSTEM
from cluster.objects.context import Context
from cluster.topology.system_changes import choose_system_seats
from tests.sim import growing
from tests.sim.growing import scenario
from tests.sim.run import simulate
from tests.sim.seeds import find_violation, see_all, sweep

pytestmark = [pytest.mark.sim, pytest.mark.slow]
BATCHES = 2
SHARE = 25  # a run takes so many times as long as one of a single node
TRIES = 60


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(request, batch):
    sweep(scenario, range(batch, request.config.getoption("--seeds") // SHARE, BATCHES), "growing")


def test_one_seed_is_one_run():
    assert simulate(scenario, seed=3).digest == simulate(scenario, seed=3).digest


def test_every_step_is_taken():
    steps = {"join", "pool", "move", "switch", "complete", "system", "free"}
    see_all(scenario, range(12), steps, lambda world: world.changes)


def test_a_system_set_that_takes_over_at_once_is_caught(monkeypatch):
    def at_once(layout, size, *, avoid=()):
        seats = choose_system_seats(layout, size, avoid)
        return replace(layout, epoch=layout.epoch + 1, system_set=SYSTEM, system=seats)

    monkeypatch.setattr(growing, "begin_system_change", at_once)
    find_violation(scenario, range(TRIES), "linearizable")


def test_keys_that_go_to_new_sets_when_there_are_any_are_missed(monkeypatch):
    key_ref = Context.key_ref

    def by_layout(self, bucket, key):
        sets = tuple(range(len(self.layout().sets)))
        return key_ref(self, attrs.evolve(bucket, generation=sets), key)

    monkeypatch.setattr(Context, "key_ref", by_layout)
    find_violation(scenario, range(TRIES), "not linearizable")
