"""`python -m tests.sim.replay SEED [cluster | versions]`: one run of the simulator, with its trace, to its end or its violation."""

import sys

from tests.sim import cluster, single_node, versions
from tests.sim.run import simulate


def main():
    lines = []
    worlds = {"cluster": cluster, "versions": versions, "": single_node}
    scenario = worlds[sys.argv[2] if len(sys.argv) > 2 else ""].scenario

    async def watched(rng, trace):
        trace.lines = lines
        await scenario(rng, trace)

    try:
        simulate(watched, seed=int(sys.argv[1]))
    finally:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
