"""Every test of this folder runs on every kind of drive."""

import pytest

from tests.contracts.benches import LocalBench, MemoryBench
from tests.contracts.remote_bench import RemoteBench


@pytest.fixture(params=["local", "local without cache", "memory", "memory without cache", "remote"])
def bench(request, tmp_path):
    match request.param:
        case "local":
            return LocalBench(tmp_path)
        case "local without cache":
            return LocalBench(tmp_path, cache_bytes=0)
        case "memory":
            return MemoryBench()
        case "memory without cache":
            return MemoryBench(cache_bytes=0)
        case _:
            return RemoteBench()
