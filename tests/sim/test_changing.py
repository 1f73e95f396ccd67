"""Layout changes in the simulated cluster: nothing is lost and nothing stale is read, and all that is begun comes to its end."""

import pytest
from msgspec.structs import replace

from cluster.topology import changes
from tests.sim.changing import scenario
from tests.sim.run import simulate
from tests.sim.seeds import find_violation, see_all, sweep

pytestmark = [pytest.mark.sim, pytest.mark.slow]
BATCHES = 5
# The search for the caught mutant begins just below the seed that once caught it.
FIRST_CAUGHT = 357
SHARE = 5  # a run takes five times as long as one of a single node


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(request, batch):
    sweep(scenario, range(batch, request.config.getoption("--seeds") // SHARE, BATCHES), "changing")


def test_one_seed_is_one_run():
    assert simulate(scenario, seed=3).digest == simulate(scenario, seed=3).digest


def test_every_kind_of_change_is_made():
    kinds = {"replace", "complete", "move", "switch", "system", "join", "leave", "pool", "cut off"}

    def seen(world):
        return [*world.changes, *(["cut off"] if world.cut_off else [])]

    see_all(scenario, range(60), kinds, seen)


def test_a_replaced_drive_that_votes_at_once_is_caught(monkeypatch):
    rebuilding = changes._rebuilding

    def votes_at_once(layout, old, new):
        return replace(rebuilding(layout, old, new), voting=True)

    monkeypatch.setattr(changes, "_rebuilding", votes_at_once)
    find_violation(scenario, range(FIRST_CAUGHT - 2, FIRST_CAUGHT + 100), "linearizable")
