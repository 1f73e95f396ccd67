"""Every test of this folder runs on every kind of drive."""

import pytest

from tests.contracts.benches import LocalBench, MemoryBench


@pytest.fixture(params=["local", "local without cache", "memory", "memory without cache"])
def bench(request, tmp_path):
    match request.param:
        case "local":
            return LocalBench(tmp_path)
        case "local without cache":
            return LocalBench(tmp_path, cache_bytes=0)
        case "memory":
            return MemoryBench()
        case _:
            return MemoryBench(cache_bytes=0)
