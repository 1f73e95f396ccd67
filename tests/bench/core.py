"""A run of the bench: nodes of its own for every case, load on them, and the rows that come of it."""

import contextlib
import hashlib
import itertools
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import attrs

from tests.bench.load import Result, run_load, signed
from tests.bench.measure import (
    cpu_seconds,
    disk_bytes,
    free_bytes,
    peak_rss_mib,
    process_bytes,
    reset_peak_rss,
)
from tests.bench.report import Row, json_line
from tests.e2e.client import Client
from tests.e2e.node import NO_RESERVE, NodeProcess

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DRIVES = 6
# Six drives' ballast of 256 MiB and their logs, and a gibibyte that is left to the machine.
RESERVE_BYTES = 3 * GIB
ALL = 600.0  # seconds for a load that ends by itself


def coded(size):
    """Bytes on disk for bodies of so many bytes, 4+2."""
    return size * 3 // 2


class NoRoomError(Exception):
    """The disk has too little room for the case."""


@attrs.frozen
class Measured:
    """A load, and what each of its operations cost: seconds of the server's processor, bytes; peak RSS in MiB."""

    result: Result
    cpu: float
    disk: float
    own: float
    rss: int


@attrs.define
class LoadedNode:
    """A running node with a bucket `bench`, and load for it."""

    node: NodeProcess
    folder: Path
    seconds: float

    def request(self, method, path, **more):
        """A signed request for `measure`."""
        keys = self.node.access_key, self.node.secret_key
        return signed(self.node.endpoint, keys, method, path, **more)

    def ask(self, method, path, body=b"", query=""):
        """One request now; the answer's body. Fails where the status is not 2xx."""
        client = Client(self.node.endpoint, self.node.access_key, self.node.secret_key)
        try:
            status, _, answer = client.ask(method, path, body, query)
        finally:
            client.close()
        assert 200 <= status < 300, f"{method} {path} was answered with {status}: {answer[:300]!r}"
        return answer

    def put_many(self, prefix, count, size, clients=32, bucket="bench"):
        """Store `count` objects PREFIX0, PREFIX1, … of the same random bytes."""
        body = os.urandom(size)
        digest = hashlib.sha256(body).hexdigest()
        batches = [
            [
                self.request("PUT", f"/{bucket}/{prefix}{n}", body=body, digest=digest)
                for n in range(c, count, clients)
            ]
            for c in range(min(clients, count))
        ]
        measured = self.measure(batches, seconds=ALL)
        assert measured.result.operations == count, "time was over before all was stored"
        return measured

    def get_again(self, requests, clients, **more):
        """Ask these requests over and over."""
        return self.measure([itertools.cycle(requests[c::clients]) for c in range(clients)], **more)

    def measure(self, batches, *, seconds=None, is_head=False):
        """Each batch is one client's requests. Fails where an answer is an error."""
        pid = self.node.process.pid
        reset_peak_rss(pid)
        cpu, disk, own = cpu_seconds(pid), disk_bytes(self.folder), process_bytes(pid)
        result = run_load(
            self.node.endpoint, batches, seconds=seconds or self.seconds, is_head=is_head
        )
        assert result.operations, "nothing was answered"
        assert result.errors == 0, f"{result.errors} answers were errors"
        return Measured(
            result,
            (cpu_seconds(pid) - cpu) / result.operations,
            (disk_bytes(self.folder) - disk) / result.operations,
            (process_bytes(pid) - own) / result.operations,
            peak_rss_mib(pid),
        )


@attrs.define
class Bench:
    """What all cases share. `seconds` is the length of a load that does not end by itself."""

    scratch: Path
    base: dict
    quick: bool
    seconds: float
    rows: list[Row] = attrs.field(factory=list)

    @contextlib.contextmanager
    def fresh_node(self, room=0, **settings):
        """A node on new folders, so that a case's memory and disk are its own; nothing of it is left afterwards.

        `room`: bytes that the case will have on the disk at once. `settings`: STORECTL_…, without the prefix. Raises
        NoRoomError.
        """
        wanted, free = room + RESERVE_BYTES, free_bytes(self.scratch)
        if free < wanted:
            raise NoRoomError(
                f"no room: {wanted / GIB:.1f} GiB are needed below {self.scratch}, {free / GIB:.1f} are free"
            )
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        node = NodeProcess(
            folder,
            DRIVES,
            "AK" + secrets.token_hex(9).upper(),
            secrets.token_urlsafe(30),
            settings={**NO_RESERVE, **{f"STORECTL_{n}": str(v) for n, v in settings.items()}},
        )
        try:
            for number in range(1, DRIVES + 1):
                node.drive(number).mkdir()
            node.start()
            loaded = LoadedNode(node, folder, self.seconds)
            loaded.ask("PUT", "/bench")
            yield loaded
        finally:
            if node.process is not None:
                node.kill()
            shutil.rmtree(folder)

    def report(self, row, case, measured, *, size=0, baseline="", **more):
        """Add the row of a load whose bodies have `size` bytes."""
        rate = measured.result.rate
        counted = rate * size / MIB if baseline.endswith("MiB/s") else rate
        self.add(
            Row(
                row=row,
                case=case,
                ops=round(rate, 2),
                mib_s=round(rate * size / MIB, 1) if size else None,
                p50_ms=round(measured.result.quantile(0.5) * 1e3, 2),
                p99_ms=round(measured.result.quantile(0.99) * 1e3, 2),
                cpu_us=round(measured.cpu * 1e6),
                disk_kib=round(measured.disk / KIB, 1),
                own_kib=round(measured.own / KIB, 1),
                rss_mib=measured.rss,
                ratio=round(counted / self.base[baseline], 3) if baseline else None,
                baseline=baseline,
                **more,
            )
        )

    def add(self, row):
        """Print a row, and keep it for the table."""
        self.rows.append(row)
        print(json_line(row), flush=True)
