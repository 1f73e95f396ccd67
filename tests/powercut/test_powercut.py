"""A power cut between any two I/Os loses nothing that was acknowledged, and the missing sync of each mutant is caught."""

import subprocess
import sys

import pytest

from tests.powercut.engine import MUTANTS

pytestmark = pytest.mark.slow


def cut(tmp_path, *mutant):
    command = [sys.executable, "-m", "tests.powercut.engine", str(tmp_path), *mutant]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


def test_every_state_after_a_power_cut_keeps_what_was_acknowledged(tmp_path):
    done = cut(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_engine_without_a_sync_is_caught(tmp_path, mutant):
    done = cut(tmp_path, mutant)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cut " in done.stdout, done.stderr
