"""The simulator over three nodes: histories of clients through every node, under crashes and partitions, make sense."""

import pytest

from tests.sim.cluster import LINKS, scenario, space_scenario
from tests.sim.mutants import Forgetful
from tests.sim.run import simulate
from tests.sim.seeds import find_violation, sweep

pytestmark = [pytest.mark.sim, pytest.mark.slow]
BATCHES = 30  # so that the workers share them evenly


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(request, batch):
    seeds = request.config.getoption("--seeds") * 3 // 2
    sweep(scenario, range(batch, seeds, BATCHES), "cluster")


def test_one_seed_is_one_run():
    for seed in (1, 2):
        assert simulate(scenario, seed=seed).digest == simulate(scenario, seed=seed).digest


def test_the_runs_meet_every_fault_and_most_operations_succeed():
    outcomes, links, faults, duplicates, resets = [], set(), set(), 0, 0
    for seed in range(40):

        async def watched(rng, trace):
            nonlocal duplicates, resets
            world = await scenario(rng, trace)
            outcomes.extend(op.outcome for op in world.clients.history)
            links.add(world.links)
            duplicates += world.network.duplicates
            resets += world.network.resets

        trace = simulate(watched, seed=seed)
        faults |= {line.split()[2] for line in trace.lines if line.split()[1] == "fault"}
    assert links == set(LINKS)
    assert faults >= {"crash", "isolate", "one-way", "clog", "slow", "hung"}
    assert duplicates > 0
    assert resets > 0
    assert outcomes.count("ok") + outcomes.count("refused") > 0.75 * len(outcomes)


@pytest.mark.parametrize("batch", range(4))
def test_nothing_is_left_that_nobody_refers_to_and_all_drives_hold_the_same(batch):
    sweep(space_scenario, range(50 + 3 * batch, 53 + 3 * batch), "cluster-space")


def test_acknowledging_before_the_commit_is_caught_across_nodes_too():
    async def mutant(rng, trace):
        await scenario(rng, trace, mutate=Forgetful)

    find_violation(mutant, range(20))
