"""The first start, the second, and those that are refused: each says what to do."""

import shutil

import pytest

from cli import exits
from tests.e2e.client import Client
from tests.e2e.node import NodeProcess, running_node

pytestmark = pytest.mark.e2e


def refused(node: NodeProcess) -> tuple[int, str]:
    node.start(wait=False)
    status = node.process.wait(timeout=30)
    node.process = None
    return status, node.log.read_text()


def test_a_second_start_takes_the_data_up_again(tmp_path):
    with running_node(tmp_path) as node:
        client = Client(node.endpoint, node.access_key, node.secret_key)
        client.ask("PUT", "/kept")
        client.ask("PUT", "/kept/key", b"value")
        assert node.stop() == 0
        client.close()
        node.start()
        client = Client(node.endpoint, node.access_key, node.secret_key)
        assert client.ask("GET", "/kept/key")[2] == b"value"
        client.close()
        inspected = node.storectl("object", "inspect", "kept", "key")
        assert inspected.returncode == 0
        assert "inline" in inspected.stdout
        assert node.storectl("object", "inspect", "kept", "none").returncode == exits.NOT_FOUND


def test_another_key_pair_is_refused(tmp_path):
    with running_node(tmp_path) as node:
        assert node.stop() == 0
        node.secret_key = "another-secret-key"
        status, log = refused(node)
        assert status == exits.CONFIG
        assert "not this cluster's" in log


def test_a_foreign_folder_is_never_formatted(tmp_path):
    node = NodeProcess(tmp_path, 6, "AKSOME", "some-secret-key")
    for number in range(1, 7):
        node.drive(number).mkdir()
    (node.drive(4) / "letter.txt").write_text("dear")
    status, log = refused(node)
    assert status == exits.CONFIG
    assert "only formats empty folders" in log
    assert not any(node.drive(1).iterdir())


def test_a_number_of_folders_that_makes_no_whole_sets_is_refused_with_the_nearest(tmp_path):
    node = NodeProcess(tmp_path, 7, "AKSOME", "some-secret-key", ("--erasure", "4+2"))
    status, log = refused(node)
    assert status == exits.CONFIG
    assert "6 or 12" in log


def test_a_second_process_on_the_same_drives_is_refused(tmp_path):
    with running_node(tmp_path) as node:
        other = NodeProcess(tmp_path, 6, node.access_key, node.secret_key)
        other.starts = 7
        other.start(wait=False)
        assert other.process.wait(timeout=30) == exits.CONFIG
        assert "in use by another" in other.log.read_text()


def test_a_start_that_was_cut_off_is_finished_by_the_next(tmp_path):
    with running_node(tmp_path) as node:
        assert node.stop() == 0
    # As if the power had gone when two of six drives were formatted.
    import attrs

    from cluster.drives.file_ops import FileOps
    from cluster.drives.format import inspect, write_format

    for number in range(1, 7):
        root = node.drive(number)
        form = attrs.evolve(inspect(root).format, forming=True)
        shutil.rmtree(root)
        root.mkdir()
        if number < 3:
            write_format(root, form, FileOps())
    shutil.rmtree(node.state)
    node.start()
    client = Client(node.endpoint, node.access_key, node.secret_key)
    assert client.ask("PUT", "/fresh")[0] == 200
    client.close()
    assert node.stop() == 0


def test_a_long_state_path_and_one_drive_work(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with running_node(deep, drives=1) as node:
        status = node.storectl("cluster", "status")
        assert status.returncode == 0
        assert "1+0" in status.stdout
        client = Client(node.endpoint, node.access_key, node.secret_key)
        client.ask("PUT", "/one")
        for size in (10, 100_000):
            assert client.ask("PUT", "/one/k", b"x" * size)[0] == 200
            assert client.ask("GET", "/one/k")[2] == b"x" * size
        client.close()


def test_no_node_is_told_from_a_broken_command(tmp_path):
    node = NodeProcess(tmp_path, 6, "", "")
    assert node.storectl("cluster", "status").returncode == exits.UNREACHABLE


def test_secrets_are_private_and_in_no_log(tmp_path):
    with running_node(tmp_path) as node:
        for name in ("root-credentials.json", "cluster.key"):
            assert (node.state / name).stat().st_mode & 0o077 == 0
        client = Client(node.endpoint, node.access_key, node.secret_key)
        client.ask("GET", "/none")
        client.close()
        assert node.stop() == 0
        assert node.secret_key not in node.log.read_text()
        raw = b"".join(path.read_bytes() for path in node.drive(1).rglob("*") if path.is_file())
        assert node.secret_key.encode() not in raw
