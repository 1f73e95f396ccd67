"""Threads that hang keep no process for ever."""

import subprocess
import sys
import time

import pytest

from cli.machine import deadline


def test_a_stop_that_hangs_is_ended():
    program = (
        "import threading, sys; from cli.machine import deadline\n"
        "with deadline(0.2, 'giving up'):\n"
        "    threading.Event().wait()"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (1, "giving up\n")
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_stop_in_time_is_left_alone():
    with deadline(0.2, "never said"):
        pass
    time.sleep(0.4)  # the timer would have ended this process
