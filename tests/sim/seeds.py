"""Seed after seed of a world: none may fail; or, where a safeguard is switched off, one must be found that shows it."""

from tests.sim.checkers import ViolationError
from tests.sim.run import simulate


def sweep(scenario, seeds, world=""):
    """Raises AssertionError with the command line that plays the first failing seed again; `world` as `tests.sim.replay` names it."""
    for seed in seeds:
        try:
            simulate(scenario, seed=seed)
        except BaseException as error:
            command = f"python -m tests.sim.replay {seed} {world}".rstrip()
            raise AssertionError(f"seed {seed}: {command}") from error


def see_all(scenario, seeds, wanted, seen):
    """Raises AssertionError unless the worlds of these seeds show, together, all that is wanted; `seen(world)`: what one shows."""
    missing = set(wanted)
    for seed in seeds:

        async def watched(rng, trace):
            missing.difference_update(seen(await scenario(rng, trace)))

        simulate(watched, seed=seed)
        if not missing:
            return
    raise AssertionError(f"nobody did: {missing}")


def violation_of(error):
    """What a checker has found, however deep in groups; None: the error is another."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(violation_of, error.exceptions)), None)
    return str(error) if isinstance(error, ViolationError) else None


def find_violation(scenario, seeds, said):
    """Raises AssertionError when the checkers find nothing that says so in any of these; whatever is no violation passes through."""
    for seed in seeds:
        try:
            simulate(scenario, seed=seed)
        except BaseException as error:
            found = violation_of(error)
            if found is None:
                raise
            if said in found:
                return
    raise AssertionError(f"the checkers did not notice {said}")
