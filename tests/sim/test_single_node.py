"""The simulator over one node: hundreds of seeds, each a history of clients and faults that must make sense."""

import pytest

from tests.sim.checkers import ViolationError
from tests.sim.mutants import MUTANTS, Forgetful
from tests.sim.run import simulate
from tests.sim.seeds import sweep
from tests.sim.single_node import scenario

pytestmark = [pytest.mark.sim, pytest.mark.slow]
BATCHES = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(request, batch):
    seeds = request.config.getoption("--seeds")
    sweep(scenario, range(batch, seeds, BATCHES))


def test_one_seed_is_one_run():
    assert simulate(scenario, seed=1).digest == simulate(scenario, seed=1).digest


def test_acknowledging_before_the_commit_is_caught():
    async def mutant(rng, trace):
        await scenario(rng, trace, mutate=Forgetful)

    for seed in range(150):
        try:
            simulate(mutant, seed=seed)
        except BaseException:
            return
    raise AssertionError("the checkers did not notice")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_store_without_a_safeguard_is_caught(name):
    """The simulator runs the code of production: a fault there shows, and shows as a violation."""
    for seed in range(150):
        with MUTANTS[name]():
            try:
                simulate(scenario, seed=seed)
            except BaseExceptionGroup as errors:
                if errors.subgroup(ViolationError) is None:
                    raise
                return
    raise AssertionError("the checkers did not notice")
