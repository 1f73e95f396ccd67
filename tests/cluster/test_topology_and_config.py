"""Settings, set formation and what a layout tolerates; quorum arithmetic against the table that it must give."""

import itertools
import stat

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st

from cli import exits
from cli.main import main
from cluster import secrets
from cluster.config import Config, describe, expand_drives, load_config
from cluster.erasure.profile import Profile
from cluster.errors import ConfigError
from cluster.ids import ClusterId, DriveId, NodeId
from cluster.layout import Layout
from cluster.placement import home_set
from cluster.quorum import Quorum, adaptive_data_shards, durable_shards
from cluster.topology.formation import arrange, form_sets
from cluster.topology.tolerance import tolerates


def layout_of(sets, k, m):
    return Layout(
        epoch=1,
        cluster=ClusterId(bytes(16)),
        nodes=(),
        sets=sets,
        system_set=0,
        k=k,
        m=m,
        codec="c",
    )


@pytest.mark.parametrize(
    ("code", "accept", "read", "durable", "full", "writes", "reads"),
    [
        ((1, 0), 1, 1, 1, 0, 0, 0),
        ((1, 1), 2, 1, 2, 0, 0, 1),
        ((2, 1), 2, 2, 3, 0, 1, 1),
        ((2, 2), 3, 2, 3, 1, 1, 2),
        ((4, 2), 4, 3, 5, 1, 2, 2),
        ((4, 4), 5, 4, 5, 3, 3, 4),
        ((6, 3), 5, 5, 7, 2, 4, 3),
        ((8, 4), 7, 6, 9, 3, 5, 4),
    ],
)
def test_what_each_code_survives(code, accept, read, durable, full, writes, reads):
    k, m = code
    quorum = Quorum(k + m)
    assert (quorum.accept, quorum.read, durable_shards(k, k + m)) == (accept, read, durable)
    sets = form_sets([(DriveId(bytes([i])), NodeId(1), 0, i) for i in range(k + m)], Profile(k, m))
    tolerance = tolerates(layout_of(sets, k, m))
    assert (tolerance.full_drives, tolerance.write_drives, tolerance.read_drives) == (
        full,
        writes,
        reads,
    )


@pytest.mark.parametrize(
    ("code", "nodes", "writes", "reads"),
    [
        ((2, 1), 2, 0, 0),
        ((4, 2), 3, 1, 1),
        ((4, 2), 6, 2, 2),
        ((6, 3), 5, 2, 1),
        ((6, 3), 9, 4, 3),
        ((8, 4), 6, 2, 2),
    ],
)
def test_what_each_code_survives_in_whole_nodes(code, nodes, writes, reads):
    k, m = code
    sets = form_sets(
        [(DriveId(bytes([i])), NodeId(i % nodes), 0, i) for i in range(k + m)], Profile(k, m)
    )
    tolerance = tolerates(layout_of(sets, k, m))
    assert (tolerance.write_nodes, tolerance.read_nodes) == (writes, reads)


@given(st.integers(1, 10), st.integers(0, 10))
def test_read_and_accept_quorums_always_meet(k, m):
    quorum = Quorum(k + m)
    assert quorum.read + quorum.accept > quorum.n
    assert 2 * quorum.accept > quorum.n


@given(st.integers(1, 10), st.integers(0, 10), st.integers(0, 20))
def test_the_adaptive_code_leaves_one_more_shard_than_it_needs(k, m, live):
    adapted = adaptive_data_shards(k, m, min(live, k + m))
    if adapted is not None:
        assert 1 <= adapted <= k
        assert min(live, k + m) >= durable_shards(adapted, k + m)


def test_drives_are_spread_over_equal_sets():
    code, places = arrange(None, 12)
    assert code == "8+4"
    code, places = arrange("4+2", 12)
    assert sorted(places) == sorted(itertools.product(range(2), range(6)))
    with pytest.raises(ConfigError, match="6 or 12"):
        arrange("4+2", 7)


def test_keys_spread_over_the_sets_of_a_generation():
    counts = [0, 0, 0]
    for n in range(3000):
        counts[home_set(bytes(16), b"%d" % n, (0, 1, 2))] += 1
    assert min(counts) > 800


def test_file_environment_and_flags_in_rising_order(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text('[node]\nlisten = "file:1"\nerasure = "4+2"\n[s3]\nidle_seconds = 5\n')
    config = load_config(
        path,
        {"STORECTL_NODE_LISTEN": "environment:2", "STORECTL_S3_DOMAINS": "a,b"},
        {"listen": None},
    )
    assert (config.listen, config.erasure, config.idle_seconds, config.domains) == (
        "environment:2",
        "4+2",
        5.0,
        ("a", "b"),
    )
    assert load_config(path, {}, {"listen": "flag:3"}).address == ("flag", 3)


@pytest.mark.parametrize(
    "text",
    ["[node]\nlistne = 'x'", "[s3]\nidle_seconds = 'long'", "[s3]\nmax_connections = true", "[log]\nformat = 'xml'", "node = [", "[node]\ndrives = 'x'",
     "[s3]\nidle_seconds = -1"],
)  # fmt: skip
def test_a_bad_setting_is_refused_by_name(tmp_path, text):
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path, {}, {})


def test_every_setting_says_what_it_means():
    assert all(name and text for name, _, text in describe())
    assert Config().address == ("127.0.0.1", 9000)
    with pytest.raises(ConfigError):
        _ = Config(listen="9000").address


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("/d{1...3}", ["/d1", "/d2", "/d3"]),
        ("/a{01...02}/b", ["/a01/b", "/a02/b"]),
        ("/x", ["/x"]),
        ("/{1...2}{3...4}", ["/13", "/14", "/23", "/24"]),
    ],
)
def test_braces_expand(pattern, names):
    assert [str(path) for path in expand_drives((pattern,))] == names


@pytest.mark.parametrize(
    "patterns", [(), ("/d{1..3}",), ("/d{3...1}",), ("/d{a...b}",), ("/d{1...9999}",), ("/x", "/x")]
)
def test_bad_patterns_are_refused(patterns):
    with pytest.raises(ConfigError):
        expand_drives(patterns)


def test_secrets_are_sealed_and_kept_private(tmp_path):
    import random

    rng = random.SystemRandom()
    key = secrets.sealing_key(tmp_path, rng, may_create=True)
    assert secrets.sealing_key(tmp_path, rng, may_create=False) == key
    pair = secrets.draw_key_pair(rng)
    assert (len(pair.access_key), len(pair.secret_key)) == (20, 40)
    document = secrets.seal(pair, key, rng)
    assert pair.secret_key.encode() not in document
    assert secrets.unseal(document, key) == pair
    assert pair.secret_key not in repr(pair)
    with pytest.raises(ConfigError):
        secrets.unseal(document, bytes(32))
    (tmp_path / secrets.KEY_FILE).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        secrets.sealing_key(tmp_path, rng, may_create=False)
    with pytest.raises(ConfigError, match="missing"):
        secrets.sealing_key(tmp_path / "other", rng, may_create=False)


def test_given_keys_come_from_environment_or_private_files(tmp_path):
    path = tmp_path / "secret"
    path.write_text("a-long-secret\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    given = secrets.given_key_pair(
        {"STORECTL_ROOT_ACCESS_KEY": "me1", "STORECTL_ROOT_SECRET_KEY_FILE": str(path)}
    )
    assert given.secret_key == "a-long-secret"
    assert secrets.given_key_pair({}) is None
    for bad in (
        {"STORECTL_ROOT_ACCESS_KEY": "me1"},
        {"STORECTL_ROOT_ACCESS_KEY": "me1", "STORECTL_ROOT_SECRET_KEY": "short"},
        {"STORECTL_ROOT_ACCESS_KEY": "me1", "STORECTL_ROOT_SECRET_KEY": "minioadmin"},
        {"STORECTL_ROOT_ACCESS_KEY": "a b", "STORECTL_ROOT_SECRET_KEY": "long enough"},
        {"STORECTL_ROOT_ACCESS_KEY": "me1", "STORECTL_ROOT_SECRET_KEY_FILE": "/does/not/exist"},
    ):
        with pytest.raises(ConfigError):
            secrets.given_key_pair(bad)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        secrets.given_key_pair(
            {"STORECTL_ROOT_ACCESS_KEY": "me1", "STORECTL_ROOT_SECRET_KEY_FILE": str(path)}
        )


def test_the_command_line_shows_and_checks_settings(tmp_path):
    runner = CliRunner()
    assert "node.listen" in runner.invoke(main, ["config", "show"]).output
    assert runner.invoke(main, ["config", "check"]).exit_code == exits.OK
    (tmp_path / "bad.toml").write_text("[node]\nnope = 1\n")
    assert (
        runner.invoke(main, ["config", "check", "--config", str(tmp_path / "bad.toml")]).exit_code
        == exits.CONFIG
    )
    assert runner.invoke(main, ["cluster", "status"], env={"STORECTL_STATE": ""}).exit_code in {
        exits.USAGE,
        exits.UNREACHABLE,
    }
    assert runner.invoke(main, ["node", "start", "--nope"]).exit_code == exits.USAGE
