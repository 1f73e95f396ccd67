"""Bodies in another set than their registers: none that is referred to is lost, none that is not is left, and what is missing is owed."""

import pytest

from cluster.objects import away
from cluster.register.away import Verdict
from tests.sim.away_world import scenario
from tests.sim.run import simulate
from tests.sim.seeds import find_violation, sweep

pytestmark = [pytest.mark.sim, pytest.mark.slow]
BATCHES = 4
SHARE = 16  # a run takes so many times as long as one of a single node
TRIES = 40


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(request, batch):
    seeds = request.config.getoption("--seeds") // SHARE
    sweep(scenario, range(batch, seeds, BATCHES), "away")


def test_one_seed_is_one_run_and_the_runs_do_what_they_are_for():
    away_bodies, outcomes = 0, []

    async def watched(rng, trace):
        nonlocal away_bodies
        world = await scenario(rng, trace)
        away_bodies += world.away
        outcomes.extend(world.outcomes)

    assert simulate(watched, seed=3).digest == simulate(watched, seed=3).digest
    simulate(watched, seed=4)
    simulate(watched, seed=5)
    assert away_bodies > 10
    assert outcomes.count("ok") > len(outcomes) / 2


def test_a_hint_that_is_forgotten_before_it_is_delivered_is_noticed(monkeypatch):
    async def forget(*_):
        """Nobody is told."""

    told = away.AwayNotes.told
    monkeypatch.setattr(away.AwayData, "_tell", forget)
    monkeypatch.setattr(
        away.AwayNotes, "told", lambda self, due, _, again_ms: told(self, due, -1, again_ms)
    )
    find_violation(scenario, range(TRIES), "nobody owes the shard")


def test_a_drive_that_collects_without_asking_is_noticed(monkeypatch):
    async def guess(*_):
        return Verdict.COLLECT

    monkeypatch.setattr(away.AwayData, "_judge", guess)
    find_violation(scenario, range(TRIES), "did not recover")
