"""A real node as a real process, for tests: started on free ports, found by its state folder, ended by its process id."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

READY_SECONDS = 30.0
# The machine's own disk may be nearly full; a test that wants a full drive mounts one.
NO_RESERVE = {"STORECTL_DRIVE_MIN_FREE_MIB": "0", "STORECTL_DRIVE_MIN_FREE_RATIO": "0"}


@attrs.define
class NodeProcess:
    """One `storectl node start` and the folders it works on."""

    root: Path
    drives: int
    access_key: str
    secret_key: str
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, str] = NO_RESERVE
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def log(self) -> Path:
        return self.root / f"log-{self.starts}.txt"

    def drive(self, number: int) -> Path:
        return self.root / f"drive{number}"

    @property
    def endpoint(self) -> str:
        return json.loads((self.state / "endpoint.json").read_text())["s3"]

    def start(self, *, wait: bool = True) -> None:
        """Start the process; with `wait`, until it says that it is ready."""
        assert self.process is None
        self.starts += 1
        (self.state / "endpoint.json").unlink(missing_ok=True)
        environment = (
            os.environ
            | {
                "STORECTL_ROOT_ACCESS_KEY": self.access_key,
                "STORECTL_ROOT_SECRET_KEY": self.secret_key,
            }
            | self.settings
        )
        pattern = f"{self.root}/drive{{1...{self.drives}}}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "node", "start", "--drives", pattern,
                 "--listen", "127.0.0.1:0", "--state", str(self.state), *self.arguments],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Until endpoint.json stands there, which the node writes when it accepts requests."""
        deadline = time.monotonic() + READY_SECONDS
        while not (self.state / "endpoint.json").exists():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the node did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: as if the process had been struck by lightning."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM, and the exit status of the graceful stop."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self.process = None
        return status

    def storectl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a storectl command against this node."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments, "--state", str(self.state)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@contextlib.contextmanager
def running_node(
    root: Path, *, drives: int = 6, arguments: tuple[str, ...] = ()
) -> Iterator[NodeProcess]:
    """A started node on fresh folders below `root`; killed at the end, if it still runs."""
    node = NodeProcess(
        root, drives, "AK" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30), arguments
    )
    for number in range(1, drives + 1):
        node.drive(number).mkdir(parents=True, exist_ok=True)
    node.start()
    try:
        yield node
    finally:
        if node.process is not None:
            node.kill()
