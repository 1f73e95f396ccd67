"""Jobs side by side, whose first error comes out as itself and not wrapped in a group."""

from collections.abc import Awaitable, Callable

import trio


async def together(*jobs: Callable[[], Awaitable[None]]) -> None:
    """Run all jobs; the first that fails ends the others and its error is raised."""
    try:
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(job)
    except BaseExceptionGroup as group:
        error = _first_error(group)
        if error is None:
            raise
        raise error from None


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found = _first_error(error)
        else:
            found = None if isinstance(error, trio.Cancelled) else error
        if found is not None:
            return found
    return None
