"""The bench itself: it judges by its aims, counts the right device, and neither hangs nor leaves anything behind."""

import contextlib
import json
import socket
import threading

import pytest

from tests.bench.__main__ import CASES, main, run_cases
from tests.bench.aims import AIMS, aim_text
from tests.bench.core import KIB, Bench, NoRoomError
from tests.bench.fill import body_of, key_of
from tests.bench.heavy import _count_keys, _fill
from tests.bench.load import run_load, signed
from tests.bench.measure import written_bytes
from tests.bench.report import COLUMNS, Row, json_line, table
from tests.bench.stream import get_stream, put_stream

DISKSTATS = """\
   7       0 loop0 4923 90 41826 206 307886 1611363 20851976 94558 0 47776 130213 0 0 0 0 186465 35448
 254       1 vda1 1 0 8 0 2 0 16 0 0 0 0 0 0 0 0 0 0
 254       0 vda 1713011 181033 27441562 344232 4470831 5609102 4000 1838401 0 584264 2544532 0 0 0 0 0 0
"""


def put_row(**figures):
    return Row(row="small.put", case="PUT", **figures)


def test_a_row_on_its_bounds_reaches_its_aim():
    assert put_row(ratio=0.28, p99_ms=40, disk_kib=100).verdict == "reached"


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"ratio": 0.27, "p99_ms": 40, "disk_kib": 100}, "missed: ratio"),
        ({"ratio": 0.28, "p99_ms": 41, "disk_kib": 100}, "missed: p99_ms"),
        ({"ratio": 0.1, "p99_ms": 41, "disk_kib": 101}, "missed: ratio, p99_ms, disk_kib"),
    ],
)
def test_a_missed_bound_is_named(figures, missed):
    assert put_row(**figures).verdict == missed


def test_a_row_must_measure_what_it_aims_at():
    with pytest.raises(AssertionError):
        put_row(ratio=0.3, p99_ms=1)


def test_a_case_that_failed_still_names_its_aims():
    row = Row(row="small", case="small", error="NoRoomError: no room")
    assert row.verdict == "FAILED: NoRoomError: no room"
    assert (
        row.aim
        == "put: ratio ≥ 0.28, p99_ms ≤ 40, disk_kib ≤ 100; get: ratio ≥ 0.6; head: ratio ≥ 0.6"
    )


def test_every_case_has_aims_and_every_aim_a_case_and_known_columns():
    assert {name.partition(".")[0] for name in AIMS} == set(CASES)
    assert {column for aim in AIMS.values() for column in aim} <= set(COLUMNS)
    assert aim_text("middle.put") == "none set"


def test_lines_and_table_show_aim_and_verdict():
    row = put_row(ratio=0.3, p99_ms=1, disk_kib=1, note="a note")
    line = json.loads(json_line(row))
    assert (line["verdict"], line["note"], line["seconds"]) == ("reached", "a note", None)
    header, _, cells = table([row]).splitlines()
    assert header.count("|") == cells.count("|") == len(COLUMNS) + 1
    assert "disk_kib ≤ 100 | reached |" in cells


def test_bytes_written_are_those_of_the_device_and_not_of_a_partition():
    assert written_bytes(DISKSTATS, 254, 0) == 4000 * 512
    assert written_bytes(DISKSTATS, 254, 1) == 16 * 512
    with pytest.raises(LookupError):
        written_bytes(DISKSTATS, 253, 0)


def test_an_unknown_case_is_refused(capsys):
    assert main(["--quick", "smal"]) == 2
    assert "unknown: smal" in capsys.readouterr().err


def test_without_room_a_case_says_so_and_leaves_nothing(tmp_path):
    bench = Bench(tmp_path, {}, True, 0.1)
    with pytest.raises(NoRoomError, match="no room"), bench.fresh_node(room=1 << 60):
        pytest.fail("the case ran all the same")
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_cannot_run_is_a_failure_of_the_run_and_a_row_of_the_table(tmp_path):
    bench = Bench(tmp_path / "gone", {}, True, 0.1)
    assert run_cases(bench, ["big", "small"]) == ["big", "small"]
    assert [row.row for row in bench.rows] == ["big", "small"]
    assert "FAILED: FileNotFoundError" in table(bench.rows)


def test_a_server_that_hangs_up_ends_the_load():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:

        def hang_up():
            server.accept()[0].close()

        threading.Thread(target=hang_up).start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        request = signed(endpoint, ("AK", "secret"), "GET", "/bench/x")
        with pytest.raises(EOFError):
            run_load(endpoint, [[request]], seconds=5)


@pytest.mark.e2e
def test_filled_keys_are_normal_objects_and_streams_come_back(tmp_path):
    count = 1500  # more than one batch of the loader
    with Bench(tmp_path, {}, True, 0.1).fresh_node() as node:
        node.ask("PUT", "/filled")
        assert node.node.stop() == 0
        _fill(node.node, "filled", count)
        node.node.start()
        assert _count_keys(node, "filled") == count
        for number in (0, 999, 1000, count - 1):
            assert node.ask("GET", f"/filled/{key_of(number).decode()}") == body_of(number)
        path = f"/filled/{key_of(7).decode()}"
        node.ask("PUT", path, b"another")
        assert node.ask("GET", path) == b"another"
        node.ask("DELETE", path)
        assert _count_keys(node, "filled") == count - 1
        status = json.loads(node.node.storectl("cluster", "status", "--json").stdout)
        assert [d["heal_debt"] for d in status["drives"]] == [0] * 6
        keys = node.node.access_key, node.node.secret_key
        size = (5 << 20) + 1  # blocks of the client, and a byte
        _, sent = put_stream(node.node.endpoint, keys, "/bench/stream", size)
        assert get_stream(node.node.endpoint, keys, "/bench/stream")[1:] == (size, sent)
        measured = node.put_many("few-", 40, 4 * KIB)
        assert measured.result.operations == 40
        assert measured.own > 6 * 4 * KIB
        folder = node.folder
    assert not folder.exists()
