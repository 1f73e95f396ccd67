"""`python -m tests.bench [--quick] [case ...]`: one JSON line a case, then a table of ratios to the baselines of the same run."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs
import crc32c

from cluster.erasure.codec import codec_for
from tests.bench.load import run_load, signed
from tests.e2e.node import running_node

KIB, MIB = 1 << 10, 1 << 20
SCRATCH = Path(".cache") / "bench"


@attrs.define
class Bench:
    """A node under load, the baselines, and what was found."""

    node: object
    bare: str
    seconds: float
    quick: bool
    rows: list = attrs.field(factory=list)
    base: dict = attrs.field(factory=dict)

    @property
    def keys(self):
        return self.node.access_key, self.node.secret_key

    def request(self, method, path, **more):
        return signed(self.node.endpoint, self.keys, method, path, **more)

    def put_many(self, prefix, count, size, clients=32):
        body = os.urandom(size)
        batches = [
            [
                self.request("PUT", f"/bench/{prefix}{n}", body=body)
                for n in range(c, count, clients)
            ]
            for c in range(clients)
        ]
        return self.measure(batches, seconds=600)

    def measure(self, batches, *, endpoint=None, seconds=None, is_head=False):
        pid = self.node.process.pid
        cpu, disk = cpu_seconds(pid), disk_bytes()
        result = run_load(
            endpoint or self.node.endpoint,
            batches,
            seconds=seconds or self.seconds,
            is_head=is_head,
        )
        assert result.operations, "nothing was answered"
        assert result.errors == 0, f"{result.errors} answers were errors"
        return (
            result,
            (cpu_seconds(pid) - cpu) / result.operations,
            (disk_bytes() - disk) / result.operations,
        )

    def report(self, name, measured, *, size=0, baseline="", aim=""):
        result, cpu, disk = measured
        row = {
            "case": name,
            "ops": round(result.rate, 1),
            "mib_s": round(result.rate * size / MIB, 1),
            "p50_ms": round(result.quantile(0.5) * 1e3, 2),
            "p99_ms": round(result.quantile(0.99) * 1e3, 2),
            "cpu_us": round(cpu * 1e6),
            "disk_kib": round(disk / KIB, 1),
            "rss_mib": peak_rss(self.node.process.pid),
            "ratio": round(
                result.rate
                * (size / MIB if baseline.endswith("MiB/s") else 1)
                / self.base[baseline],
                2,
            )
            if baseline
            else None,
            "baseline": baseline,
            "aim": aim,
        }
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss(pid):
    line = next(
        x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM")
    )
    return int(line.split()[1]) // 1024


def disk_bytes():
    """Bytes written to the disk below the scratch folder (all of its users together)."""
    device = SCRATCH.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if f"{fields[0]}:{fields[1]}" == wanted:
            return int(fields[9]) * 512
    return 0


def repeat(request, clients):
    return [itertools.repeat(request) for _ in range(clients)]


def baselines(b):
    """In the same run, on the same machine: ratios carry over, absolutes do not."""
    for name, size, clients in (("small", 4096, 16), ("1 MiB", MIB, 8), ("16 MiB", 16 * MIB, 4)):
        request = signed(b.bare, b.keys, "GET", f"/bench/{size}")
        result = run_load(b.bare, repeat(request, clients), seconds=b.seconds)
        b.base[f"bare {name}"] = result.rate
    data = os.urandom(32 * MIB)
    for name, work in (
        ("MD5", lambda: hashlib.md5(data)),
        ("SHA-256", lambda: hashlib.sha256(data)),
        ("CRC32C", lambda: crc32c.crc32c(data)),
    ):
        began = time.perf_counter()
        work()
        b.base[f"{name} MiB/s"] = 32 / (time.perf_counter() - began)
    codec = codec_for(4, 2)
    began = time.perf_counter()
    for at in range(0, len(data), 256 * KIB):
        codec.parity(data[at : at + 256 * KIB])
    b.base["encode 4+2 MiB/s"] = 32 / (time.perf_counter() - began)
    path = SCRATCH / "sequential"
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(8):
            file.write(data)
        os.fsync(file.fileno())
    b.base["write+fsync MiB/s"] = 256 / (time.perf_counter() - began)
    path.unlink()
    b.base["PUT bound MiB/s"] = min(
        b.base["MD5 MiB/s"], b.base["SHA-256 MiB/s"], b.base["write+fsync MiB/s"] / 1.5
    )
    print(
        json.dumps({"baselines": {name: round(value, 1) for name, value in b.base.items()}}),
        flush=True,
    )


def case_small(b):
    measured = b.put_many("small-", 2000 if b.quick else 12_000, 4096)
    b.report(
        "PUT 4 KiB, 32 clients",
        measured,
        size=4096,
        baseline="bare small",
        aim="0.28, p99 40 ms, 100 KiB",
    )
    hot = [b.request("GET", f"/bench/small-{n}") for n in range(1000)]
    b.report(
        "GET 4 KiB hot",
        b.measure([itertools.cycle(hot[c::16]) for c in range(16)]),
        size=4096,
        baseline="bare small",
        aim="0.6",
    )
    heads = [b.request("HEAD", f"/bench/small-{n}") for n in range(1000)]
    b.report(
        "HEAD 4 KiB",
        b.measure([itertools.cycle(heads[c::16]) for c in range(16)], is_head=True),
        baseline="bare small",
        aim="0.6",
    )


def case_large(b):
    for name, size, clients, count, aims in (
        ("1 MiB", MIB, 8, 100, ("0.6", "0.6")),
        ("16 MiB", 16 * MIB, 4, 16, ("0.8", "0.6")),
    ):
        prefix = f"large-{size}-"
        b.report(
            f"PUT {name}",
            b.put_many(prefix, count, size, clients),
            size=size,
            baseline="PUT bound MiB/s",
            aim=aims[0],
        )
        gets = [b.request("GET", f"/bench/{prefix}{n}") for n in range(count)]
        measured = b.measure([itertools.cycle(gets[c::clients]) for c in range(clients)])
        b.report(f"GET {name}", measured, size=size, baseline=f"bare {name}", aim=aims[1])


def case_middle(b):
    b.report("PUT 64 KiB, 16 clients", b.put_many("middle-", 400, 64 * KIB, 16), size=64 * KIB)


def case_list(b):
    count = 3000 if b.quick else 20_000
    b.put_many("list/", count, 16, 64)
    page = b.request("GET", "/bench", query="list-type=2&prefix=list%2F")
    b.report(f"LIST 1,000 of {count} keys, 1 client", b.measure(repeat(page, 1)), aim="15 ms")
    bodies = []
    for at in range(0, count - 999, 1000):
        keys = "".join(f"<Object><Key>list/{n}</Key></Object>" for n in range(at, at + 1000))
        xml = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
        md5 = __import__("base64").b64encode(hashlib.md5(xml).digest())
        bodies.append(
            b.request("POST", "/bench", body=xml, query="delete=", headers=[(b"content-md5", md5)])
        )
    b.report(
        "DeleteObjects of 1,000 keys",
        b.measure([bodies], seconds=600),
        aim="1.5 calls/s = 1,500 keys/s",
    )


def case_memory(b):
    clients, size = (16, 16 * MIB) if b.quick else (64, 64 * MIB)
    b.report(
        f"PUT {size // MIB} MiB, {clients} clients",
        b.put_many("memory-", clients, size, clients),
        size=size,
        aim="RSS 250 MiB",
    )
    gets = [[b.request("GET", f"/bench/memory-{n}")] for n in range(clients)]
    b.report(
        f"GET {size // MIB} MiB, {clients} clients",
        b.measure(gets, seconds=600),
        size=size,
        aim="RSS 250 MiB",
    )


CASES = {
    "small": case_small,
    "middle": case_middle,
    "large": case_large,
    "list": case_list,
    "memory": case_memory,
}


def table(rows):
    columns = (
        "case",
        "ops",
        "mib_s",
        "p50_ms",
        "p99_ms",
        "cpu_us",
        "disk_kib",
        "rss_mib",
        "ratio",
        "baseline",
        "aim",
    )
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join("" if row[c] is None else str(row[c]) for c in columns) + " |")


def main(arguments):
    quick = "--quick" in arguments
    chosen = [name for name in arguments if name in CASES] or list(CASES)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(dir=SCRATCH)).absolute()
    responder = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bare"], stdout=subprocess.PIPE, text=True
    )
    try:
        bare = f"http://127.0.0.1:{responder.stdout.readline().strip()}"
        with running_node(root) as node:
            bench = Bench(node, bare, 2.0 if quick else 5.0, quick)
            run_load(node.endpoint, [[bench.request("PUT", "/bench")]], seconds=5)
            baselines(bench)
            for name in chosen:
                CASES[name](bench)
            table(bench.rows)
    finally:
        responder.terminate()
        responder.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    main(sys.argv[1:])
