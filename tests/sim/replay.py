"""`python -m tests.sim.replay SEED [cluster|access]`: one run of the simulator, with its trace, to its end or its violation."""

import sys

from tests.access import revocation
from tests.sim import cluster, single_node
from tests.sim.run import simulate


def main():
    lines = []
    scenarios = {"cluster": cluster.scenario, "access": revocation.revocations}
    scenario = next((scenarios[name] for name in sys.argv[2:]), single_node.scenario)

    async def watched(rng, trace):
        trace.lines = lines
        await scenario(rng, trace)

    try:
        simulate(watched, seed=int(sys.argv[1]))
    finally:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
