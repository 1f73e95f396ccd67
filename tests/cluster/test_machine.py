"""Threads that hang keep nobody else waiting, and no process for ever."""

import subprocess
import sys
import threading
import time

import pytest
import trio

from cli.machine import Machine, deadline


async def test_a_lane_that_hangs_leaves_the_others_alone():
    machine = Machine(lambda _: None)
    gate = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(lambda: machine.offload(gate.wait, lane="hung drive"))
        await trio.sleep(0.05)
        with trio.fail_after(5):
            assert await machine.offload(lambda: 7, lane="other drive") == 7
            assert await machine.offload(lambda: 8) == 8
        gate.set()


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
