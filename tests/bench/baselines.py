"""What the same machine does in the same run without storectl: ratios carry over, absolutes do not."""

import contextlib
import hashlib
import itertools
import os
import subprocess
import sys
import time

import crc32c

from cluster.erasure.codec import codec_for
from tests.bench.load import run_load, signed

KIB, MIB = 1 << 10, 1 << 20
_NOBODY = ("AKNOBODY", "the responder looks at no signature")


@contextlib.contextmanager
def responder():
    """The endpoint of tests.bench.bare, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bare"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


def measure_baselines(scratch, seconds):
    """Answers a second and MiB a second, by name."""
    base = {}
    with responder() as endpoint:
        for name, size, clients in (
            ("small", 4096, 16),
            ("1 MiB", MIB, 8),
            ("16 MiB", 16 * MIB, 4),
        ):
            request = signed(endpoint, _NOBODY, "GET", f"/bench/{size}")
            batches = [itertools.repeat(request) for _ in range(clients)]
            base[f"bare {name}"] = run_load(endpoint, batches, seconds=seconds).rate
    data = os.urandom(32 * MIB)
    codec = codec_for(4, 2)
    codec.parity(data[: 256 * KIB])  # the first call makes its tables
    for name, mib, work in (
        ("MD5", 32, lambda: hashlib.md5(data)),
        ("SHA-256", 32, lambda: hashlib.sha256(data)),
        ("CRC32C", 32, lambda: crc32c.crc32c(data)),
        ("encode 4+2", 32, lambda: _encode(codec, data)),
        ("write+fsync", 256, lambda: _write_synced(scratch / "sequential", data, 8)),
    ):
        began = time.perf_counter()
        work()
        base[f"{name} MiB/s"] = mib / (time.perf_counter() - began)
    base["PUT bound MiB/s"] = min(
        base["MD5 MiB/s"], base["SHA-256 MiB/s"], base["write+fsync MiB/s"] / 1.5
    )
    return base


def _encode(codec, data):
    for at in range(0, len(data), 256 * KIB):
        codec.parity(data[at : at + 256 * KIB])


def _write_synced(path, data, times):
    with path.open("wb") as file:
        for _ in range(times):
            file.write(data)
        os.fsync(file.fileno())
    path.unlink()
