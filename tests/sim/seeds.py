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


def is_violation(error):
    """Whether a checker has found something, however deep in groups."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_violation, error.exceptions))
    return isinstance(error, ViolationError)


def find_violation(scenario, seeds):
    """Raises AssertionError when the checkers find nothing in any of these; whatever is no violation passes through."""
    for seed in seeds:
        try:
            simulate(scenario, seed=seed)
        except BaseException as error:
            if is_violation(error):
                return
            raise
    raise AssertionError("the checkers did not notice")
