"""Which folder is formatted, which is taken up, and which is left alone: a table of what may be found."""

import contextlib

import attrs
import pytest
from hypothesis import given, strategies as st

from cluster.drives.drive import DriveState
from cluster.drives.file_ops import FileOps
from cluster.drives.format import (
    COPIES,
    FormatError,
    Look,
    carry_out,
    decide,
    decode_format,
    encode_format,
    finish,
    heal_copies,
    inspect,
    remember_fault,
    write_format,
)  # fmt: skip
from cluster.drives.root_guard import DriveLock, RootGuard
from cluster.errors import ConfigError
from cluster.topology.formation import arrange

FILES = FileOps()


@pytest.fixture
def ids():
    numbers = iter(range(1, 1000))
    return lambda: next(numbers).to_bytes(16, "big")


def plan_for(paths, ids, code=None):
    return decide(
        [inspect(path) for path in paths], code=code, arrange=lambda n: arrange(code, n), new_id=ids
    )


@pytest.fixture
def formed(tmp_path, ids):
    paths = [tmp_path / f"d{n}" for n in range(6)]
    plan = plan_for(paths, ids)
    carry_out(plan, FILES)
    finish(plan, FILES)
    return paths


def states(plan):
    return [seat.state.value for seat in plan.seats]


def test_six_empty_folders_become_one_set(formed, ids):
    plan = plan_for(formed, ids)
    assert plan.code == "4+2"
    assert states(plan) == ["active"] * 6
    assert not plan.forming
    assert [seat.member.position for seat in plan.seats] == list(range(6))


def test_a_folder_that_is_gone_or_emptied_is_missing_and_untouched(formed, ids, tmp_path):
    formed[1].rename(tmp_path / "away")
    for path in sorted(formed[2].rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    plan = plan_for(formed, ids)
    carry_out(plan, FILES)
    assert states(plan) == ["active", "missing", "missing", "active", "active", "active"]
    assert not formed[1].exists()
    assert not any(formed[2].iterdir())


def test_a_folder_with_foreign_content_is_never_formatted(tmp_path, ids):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "letter").touch()
    with pytest.raises(ConfigError, match="only formats empty folders"):
        plan_for([tmp_path / "a"], ids)


def test_lost_and_found_is_not_foreign(tmp_path, ids):
    (tmp_path / "a" / "lost+found").mkdir(parents=True)
    assert states(plan_for([tmp_path / "a"], ids)) == ["active"]


def test_drives_that_changed_places_are_recognised(formed, ids):
    formed[0].rename(formed[0].with_name("x"))
    formed[1].rename(formed[0])
    formed[0].with_name("x").rename(formed[1])
    plan = plan_for(formed, ids)
    assert states(plan) == ["active"] * 6
    assert plan.seats[0].path == formed[1]


def test_a_clone_takes_both_out(formed, ids):
    write_format(formed[1], inspect(formed[0]).format, FILES)
    assert states(plan_for(formed, ids))[0] == "wrong"


def test_two_clusters_do_not_mix(formed, ids, tmp_path):
    other = plan_for([tmp_path / "other"], ids)
    carry_out(other, FILES)
    with pytest.raises(ConfigError, match="different clusters"):
        plan_for([*formed[:5], tmp_path / "other"], ids)


def test_another_code_is_refused(formed, ids):
    with pytest.raises(ConfigError, match="formatted as 4\\+2"):
        decide(
            [inspect(path) for path in formed],
            code="3+3",
            arrange=lambda n: arrange("3+3", n),
            new_id=ids,
        )


def test_a_first_start_that_was_cut_off_anywhere_is_finished(tmp_path, ids):
    class Cut(FileOps):
        def __init__(self, after):
            self.left = after

        def sync_directory(self, path):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            super().sync_directory(path)

    for after in range(0, 40, 3):
        paths = [tmp_path / f"{after}-{n}" for n in range(6)]
        plan = plan_for(paths, ids)
        with contextlib.suppress(KeyboardInterrupt):
            carry_out(plan, Cut(after))
            finish(plan, Cut(after))
        again = plan_for(paths, ids)
        carry_out(again, FILES)
        finish(again, FILES)
        assert states(plan_for(paths, ids)) == ["active"] * 6
        assert all((path / "shards" / "ff").is_dir() for path in paths)


def test_a_fault_is_remembered_by_the_others(formed, ids):
    failed = inspect(formed[3]).format.drive
    remember_fault([path for path in formed if path != formed[3]], failed, "fsync failed", FILES)
    plan = plan_for(formed, ids)
    assert plan.seats[3].state is DriveState.FAULTY
    assert "fsync failed" in plan.seats[3].reason


def test_faults_that_different_drives_remember_count_together(formed, ids):
    first, second = (inspect(formed[n]).format.drive for n in (2, 3))
    remember_fault([formed[0]], first, "fsync failed", FILES)
    remember_fault([formed[1], formed[4]], second, "hung", FILES)
    assert states(plan_for(formed, ids)) == ["active"] * 2 + ["faulty"] * 2 + ["active"] * 2


def test_damaged_copies_are_healed_from_a_good_one(formed):
    (formed[0] / COPIES[0]).write_bytes(b"{}")
    (formed[0] / COPIES[2]).unlink()
    assert inspect(formed[0]).look is Look.FORMATTED
    heal_copies(formed[0], FILES)
    assert len({(formed[0] / name).read_bytes() for name in COPIES}) == 1


def test_without_a_good_copy_the_folder_is_damaged_and_left_alone(formed, ids):
    for name in COPIES:
        (formed[0] / name).write_bytes(b"junk")
    assert inspect(formed[0]).look is Look.DAMAGED
    assert states(plan_for(formed, ids))[0] == "wrong"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_format_or_an_error(junk):
    with pytest.raises(FormatError):
        decode_format(junk)


def test_any_change_to_a_format_is_found(formed):
    form = inspect(formed[0]).format
    data = encode_format(form)
    assert decode_format(data) == form
    for at in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[at] ^= 1
        try:
            assert decode_format(bytes(damaged)) == form
        except FormatError:
            pass
    assert decode_format(encode_format(attrs.evolve(form, forming=True))).forming


def test_one_process_holds_a_drive(formed):
    lock = DriveLock(formed[0])
    with pytest.raises(ConfigError, match="in use"):
        DriveLock(formed[0])
    lock.release()
    DriveLock(formed[0]).release()


def test_the_guard_notices_another_folder_in_its_place(formed, tmp_path):
    guard = RootGuard(formed[0], inspect(formed[0]).format.drive)
    assert guard.check() is None
    formed[0].rename(tmp_path / "away")
    assert guard.check()[0] is DriveState.MISSING
    formed[0].mkdir()
    assert guard.check()[0] is DriveState.MISSING
    formed[0].rmdir()
    (tmp_path / "away").rename(formed[0])
    write_format(formed[0], inspect(formed[1]).format, FILES)
    assert guard.check()[0] is DriveState.WRONG
