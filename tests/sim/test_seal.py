"""Inside a simulated run the real world is out of reach."""

import pytest
import trio

from tests.sim.run import simulate
from tests.sim.seal import FORBIDDEN, LeakError

pytestmark = pytest.mark.sim


@pytest.mark.parametrize(
    ("owner", "name"), FORBIDDEN, ids=lambda part: getattr(part, "__name__", part)
)
def test_what_differs_from_run_to_run_is_refused(owner, name):
    usual = getattr(owner, name)

    async def reach(rng, trace):
        await trio.sleep(1)
        getattr(owner, name)()

    with pytest.raises(LeakError, match=name):
        simulate(reach, seed=1)
    assert getattr(owner, name) is usual
