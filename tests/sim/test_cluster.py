"""The simulator over three nodes: histories of clients through every node, under crashes and partitions, make sense."""

from collections import Counter
from functools import partial

import pytest

from cluster.layout import BLOCK_BYTES, CHUNK_BYTES
from cluster.membership.detector import PeerChanged
from cluster.membership.peers import PeerState
from tests.sim.cluster import FAULTS, LASTING, LINKS, NODES, PROFILE, scenario, space_scenario
from tests.sim.mutants import Forgetful
from tests.sim.quiet import quiet_world
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
    outcomes, links, faults, harms, verdicts = [], set(), set(), set(), set()
    kinds, sizes, counted = set(), set(), Counter()
    for seed in range(60):

        async def watched(rng, trace):
            world = await scenario(rng, trace)
            for op in world.clients.history:
                outcomes.append(op.outcome)
                kinds.add(op.kind)
                sizes.update(op.value[1:] if op.value else ())
            links.add(world.links)
            counted["duplicates"] += world.network.duplicates
            counted["resets"] += world.network.resets
            events = [event for p in world.processes.values() for event in p.runtime.events]
            verdicts.update(event.state for event in events if isinstance(event, PeerChanged))

        for _, what, *words in (line.split() for line in simulate(watched, seed=seed).lines):
            if what == "fault":
                faults.add(words[0])
            elif what == "harm":
                harms.add(words[0])
    assert links == set(LINKS)
    assert faults == set(FAULTS)
    assert harms == set(LASTING)
    assert verdicts >= {PeerState.SUSPECT, PeerState.OFFLINE, PeerState.ALIVE}
    assert kinds == {"put", "create", "replace", "get", "delete", "remove"}
    stripe, chunk = PROFILE.k * BLOCK_BYTES, CHUNK_BYTES
    borders = {0, 1, 4095, 4096, 4097, stripe - 1, stripe, stripe + 1, chunk - 1, chunk, chunk + 1}
    assert sizes >= borders, borders - sizes
    assert counted["duplicates"] > 0
    assert counted["resets"] > 0
    assert outcomes.count("ok") + outcomes.count("refused") > 0.75 * len(outcomes)


def test_a_bucket_that_is_gone_is_an_answer_to_its_deletion():
    """Seed 3013112: a deletion failed half-way, a client that met it finished it, and it was tried again until the store seemed dead."""

    async def main(rng, trace):
        async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, _):
            store, clients = world.processes[NODES[0]].store, world.clients
            await clients.create_bucket(store, "other", "early")
            _, bucket = await clients.find(store, "other", "early")
            await store.delete_bucket(bucket)
            await world.live(partial(clients.drop_bucket, store, bucket, "late", clear=True))

    simulate(main, seed=1)


@pytest.mark.parametrize("batch", range(4))
def test_nothing_is_left_that_nobody_refers_to_and_all_drives_hold_the_same(batch):
    sweep(space_scenario, range(50 + 3 * batch, 53 + 3 * batch), "cluster-space")


def test_acknowledging_before_the_commit_is_caught_across_nodes_too():
    async def mutant(rng, trace):
        await scenario(rng, trace, mutate=Forgetful)

    find_violation(mutant, range(20), "I5")
