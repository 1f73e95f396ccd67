"""What is taken from a running store, and what it must not lose by it: processes killed, drives gone, emptied, damaged, full."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from typing import Self

import pytest

from tests.e2e.client import Client
from tests.e2e.node import NodeProcess, running_node

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SIZES = (10, 4096, 5000, 70_000, 300_000, 2_000_000)


def body_of(key: str, size: int) -> bytes:
    """Bytes that name their writer: a mixture of two objects would show."""
    seed = hashlib.sha256(f"{key}:{size}".encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


class Load:
    """Writers in threads; remembers what was acknowledged, and what was asked for without an answer."""

    def __init__(self, node: NodeProcess, bucket: str = "chaos", writers: int = 4) -> None:
        self.node, self.bucket = node, bucket
        self.acknowledged: dict[str, int] = {}
        self.uncertain: dict[str, set[int]] = {}
        self.statuses: list[int] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(writers)]

    def _client(self) -> Client:
        return Client(self.node.endpoint, self.node.access_key, self.node.secret_key)

    def _work(self, number: int) -> None:
        rng = random.Random(number)
        client = self._client()
        for turn in range(100_000):
            if self._stop.is_set():
                break
            key, size = f"w{number}/{rng.randrange(40)}", rng.choice(SIZES) + turn % 7
            try:
                status, _, _ = client.ask("PUT", f"/{self.bucket}/{key}", body_of(key, size))
            except (OSError, http.client.HTTPException):
                status = 0
                time.sleep(0.05)
            self.statuses.append(status)
            if status == 200:
                self.acknowledged[key] = size
                self.uncertain.pop(key, None)
            else:
                self.uncertain.setdefault(key, set()).add(size)
        client.close()

    def __enter__(self) -> Self:
        client = self._client()
        assert client.ask("PUT", f"/{self.bucket}")[0] == 200
        client.close()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def verify(self) -> None:
        """Every acknowledged object is there byte for byte, unless a later, unanswered write took its place."""
        client = self._client()
        assert self.acknowledged, "the load never got anything acknowledged"
        for key, size in self.acknowledged.items():
            status, _, body = client.ask("GET", f"/{self.bucket}/{key}")
            assert status == 200, (key, status, body[:300])
            sizes = {size} | self.uncertain.get(key, set())
            assert len(body) in sizes, (key, len(body), sizes)
            assert body == body_of(key, len(body)), f"{key}: wrong bytes"
        client.close()


def test_every_acknowledged_object_survives_kills_under_load(tmp_path):
    rng = random.Random(1)
    with running_node(tmp_path) as node:
        for round_number in range(4):
            with Load(node, bucket=f"round-{round_number}") as load:
                time.sleep(0.3 + rng.random())
                node.kill()
            node.start()
            load.verify()


def test_two_drives_vanish_under_load_and_nothing_is_lost(tmp_path):
    with running_node(tmp_path) as node:
        with Load(node) as load:
            time.sleep(0.7)
            for number in (2, 5):
                shutil.rmtree(node.drive(number))
            time.sleep(1.0)
        after = Load(node)
        after.acknowledged = load.acknowledged
        load.verify()
        client = load._client()
        for n, size in enumerate(SIZES):
            assert client.ask("PUT", f"/chaos/after-{n}", body_of("after", size))[0] == 200
            assert client.ask("GET", f"/chaos/after-{n}")[2] == body_of("after", size)
        client.close()


def test_a_restart_with_missing_drives_serves_and_says_what_to_do(tmp_path):
    with running_node(tmp_path) as node:
        with Load(node) as load:
            time.sleep(0.7)
        assert node.stop() == 0
        node.drive(3).rename(tmp_path / "away")
        shutil.rmtree(node.drive(4))
        node.drive(4).mkdir()
        node.start()
        load.verify()
        assert not node.drive(3).exists(), "a folder that is missing at a restart is never created"
        assert not any(node.drive(4).iterdir()), "an empty folder is never formatted again"
        status = json.loads(node.storectl("cluster", "status", "--json").stdout)
        assert (
            sorted(drive["state"] for drive in status["drives"]) == ["active"] * 4 + ["missing"] * 2
        )
        assert any("mount the drive" in warning for warning in status["warnings"])
        assert node.stop() == 0
        (tmp_path / "away").rename(node.drive(3))
        node.start()
        load.verify()


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def states(node):
    status = json.loads(node.storectl("cluster", "status", "--json").stdout)
    return sorted(drive["state"] for drive in status["drives"])


def test_a_drive_that_comes_back_is_taken_in_again(tmp_path):
    with running_node(tmp_path) as node:
        with Load(node) as load:
            time.sleep(0.5)
            node.drive(3).rename(tmp_path / "away")
            wait_for(lambda: states(node) == ["active"] * 5 + ["missing"])
            time.sleep(0.3)
            (tmp_path / "away").rename(node.drive(3))
            wait_for(lambda: states(node) == ["active"] * 6)
            time.sleep(0.3)
        load.verify()
        # What was put meanwhile has one shard to spare, and it votes again: without two others there is a quorum.
        shutil.rmtree(node.drive(5))
        load.verify()
        shutil.rmtree(node.drive(6))
        client = load._client()
        wait_for(lambda: client.ask("PUT", "/chaos/again", b"again")[0] == 200)
        client.close()


def test_a_start_with_too_few_drives_answers_503_and_recovers(tmp_path):
    with running_node(tmp_path) as node:
        with Load(node) as load:
            time.sleep(0.5)
        assert node.stop() == 0
        for number in (1, 2, 3, 4):
            node.drive(number).rename(tmp_path / f"away{number}")
        node.start()
        client = Client(node.endpoint, node.access_key, node.secret_key)
        status, headers, body = client.ask("GET", "/chaos")
        assert (status, headers["retry-after"]) == (503, "5"), body
        assert b"<Code>ServiceUnavailable</Code>" in body
        assert client.ask("GET", "/-/live")[0] == 200
        status, _, why = client.ask("GET", "/-/ready")
        assert status == 503
        assert b"waiting for drives" in why
        assert states(node) == ["active"] * 2 + ["missing"] * 4
        client.close()
        for number in (1, 2, 3, 4):
            (tmp_path / f"away{number}").rename(node.drive(number))
        client = Client(node.endpoint, node.access_key, node.secret_key)
        wait_for(lambda: client.ask("GET", "/chaos")[0] == 200)
        load.verify()
        client.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_two_drives_that_are_mounted_read_only_do_not_show_and_come_back(tmp_path):
    """At a start: with files open for writing the kernel refuses to make a file system read-only."""

    def remount(number, how):
        subprocess.run(["mount", "-o", f"remount,bind,{how}", node.drive(number)], check=True)

    with running_node(tmp_path) as node, contextlib.ExitStack() as stack:
        with Load(node) as load:
            time.sleep(0.5)
        assert node.stop() == 0
        for number in (2, 5):
            subprocess.run(["mount", "--bind", node.drive(number), node.drive(number)], check=True)
            stack.callback(subprocess.run, ["umount", "-l", node.drive(number)], check=True)
            remount(number, "ro")
        node.start()
        load.verify()
        assert states(node) == ["active"] * 4 + ["wrong"] * 2
        assert "read-only" in node.storectl("cluster", "status").stdout.lower()
        with Load(node, bucket="more") as more:
            time.sleep(0.5)
            for number in (2, 5):
                remount(number, "rw")
            wait_for(lambda: states(node) == ["active"] * 6)
        more.verify()
        node.kill()


def test_swapped_folders_are_recognised(tmp_path):
    with running_node(tmp_path) as node:
        with Load(node) as load:
            time.sleep(0.5)
        assert node.stop() == 0
        node.drive(1).rename(tmp_path / "x")
        node.drive(2).rename(node.drive(1))
        (tmp_path / "x").rename(node.drive(2))
        node.start()
        load.verify()


def test_damage_to_shards_and_index_never_gives_wrong_bytes(tmp_path):
    rng = random.Random(3)
    with running_node(tmp_path, arguments=("--config", str(_no_cache(tmp_path)))) as node:
        with Load(node) as load:
            time.sleep(1.0)
        assert node.stop() == 0
        for number in (1, 6):
            for path in sorted((node.drive(number) / "shards").rglob("*.*")):
                _flip(path, rng)
        node.start()
        load.verify()
        assert int(json.loads(node.storectl("cluster", "status", "--json").stdout)["heal_debt"]) > 0
        assert node.stop() == 0
        for _ in range(50):
            _flip(node.drive(6) / "meta.db", rng)
        (node.drive(1) / "format.json").write_bytes(b"{}")
        node.start()
        load.verify()


def _no_cache(tmp_path):
    config = tmp_path / "node.toml"
    config.write_text("[memory]\nrow_cache_mib = 0\n")
    return config


def _flip(path, rng):
    with path.open("r+b") as file:
        at = rng.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs takes root")
def test_full_drives_refuse_cleanly_and_deletes_make_room(tmp_path):
    node = NodeProcess(tmp_path, 6, "AKFULL", "a-secret-for-the-full-drives", settings={})
    with contextlib.ExitStack() as stack:
        for number in range(1, 7):
            node.drive(number).mkdir()
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", node.drive(number)], check=True
            )
            stack.callback(subprocess.run, ["umount", "-l", node.drive(number)], check=True)
        node.arguments = ("--config", str(tmp_path / "node.toml"))
        (tmp_path / "node.toml").write_text("[drive]\nread_grace_seconds = 0.0\n")
        node.start()
        stack.callback(lambda: node.process and node.kill())
        client = Client(node.endpoint, node.access_key, node.secret_key)
        assert client.ask("PUT", "/full")[0] == 200
        stored = []
        for n in range(200):
            status, _, body = client.ask("PUT", f"/full/{n}", body_of(str(n), 1_000_000))
            if status != 200:
                assert status in {503, 507}, (status, body)
                break
            stored.append(n)
        assert 10 < len(stored) < 200
        for n in stored:
            assert client.ask("GET", f"/full/{n}")[2] == body_of(str(n), 1_000_000)
        for n in stored:
            assert client.ask("DELETE", f"/full/{n}")[0] == 204
        deadline = time.monotonic() + 60
        while client.ask("PUT", "/full/again", body_of("again", 1_000_000))[0] != 200:
            assert time.monotonic() < deadline, "deleting made no room"
            time.sleep(0.5)
        client.close()


def test_a_graceful_stop_finishes_what_is_under_way(tmp_path):
    with running_node(tmp_path) as node:
        client = Client(node.endpoint, node.access_key, node.secret_key)
        assert client.ask("PUT", "/stop")[0] == 200
        answers = []

        def put():
            answers.append(client.ask("PUT", "/stop/large", body_of("large", 20_000_000))[0])

        thread = threading.Thread(target=put)
        thread.start()
        time.sleep(0.05)
        node.process.send_signal(signal.SIGTERM)
        thread.join()
        assert node.process.wait(timeout=30) == 0
        node.process = None
        assert answers == [200]
        node.start()
        client = Client(node.endpoint, node.access_key, node.secret_key)
        assert client.ask("GET", "/stop/large")[2] == body_of("large", 20_000_000)
        client.close()
