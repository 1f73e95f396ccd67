"""`python -m tests.sim.replay SEED`: one run of the simulator, with its trace, to its end or its violation."""

import sys

from tests.sim.run import simulate
from tests.sim.single_node import scenario


def main():
    lines = []

    async def watched(rng, trace):
        trace.lines = lines
        await scenario(rng, trace)

    try:
        simulate(watched, seed=int(sys.argv[1]))
    finally:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
