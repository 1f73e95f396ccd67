"""`python -m tests.sim.replay SEED [cluster | cluster-space | changing | growing | access | away | versions | versions-cluster]`: one run of the simulator, with its trace."""

import sys

from tests.access import revocation
from tests.sim import away_world, changing, cluster, growing, single_node, versions
from tests.sim.run import simulate


def main():
    lines = []
    scenarios = {
        "": single_node.scenario,
        "cluster": cluster.scenario,
        "cluster-space": cluster.space_scenario,
        "changing": changing.scenario,
        "growing": growing.scenario,
        "access": revocation.revocations,
        "away": away_world.scenario,
        "versions": versions.scenario,
        "versions-cluster": versions.cluster_scenario,
    }
    scenario = scenarios[sys.argv[2] if len(sys.argv) > 2 else ""]

    async def watched(rng, trace):
        trace.lines = lines
        await scenario(rng, trace)

    try:
        simulate(watched, seed=int(sys.argv[1]))
    finally:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
