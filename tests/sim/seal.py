"""No thread, socket, clock or entropy of the real world inside a simulated run: whoever reaches for one is told so."""

import contextlib
import os
import random
import secrets
import socket
import threading
import time
import uuid

import trio

FORBIDDEN = (
    *((time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "sleep")),
    *((random, name) for name in ("random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform", "getrandbits")),
    *((secrets, name) for name in ("token_bytes", "token_hex", "randbits", "choice")),
    (os, "urandom"), (uuid, "uuid1"), (uuid, "uuid4"),
    (socket, "socket"), (socket, "create_connection"), (socket, "socketpair"),
    (threading.Thread, "start"), (trio.to_thread, "run_sync"),
)  # fmt: skip


class LeakError(AssertionError):
    """The real world was reached for."""


@contextlib.contextmanager
def sealed():
    """For as long as a run takes. What was imported by its bare name before is out of reach of this; the linter bans these."""
    usual = [(owner, name, getattr(owner, name)) for owner, name in FORBIDDEN]
    for owner, name in FORBIDDEN:
        setattr(owner, name, _refuse(f"{owner.__name__}.{name}"))
    try:
        yield
    finally:
        for owner, name, thing in usual:
            setattr(owner, name, thing)


def _refuse(what):
    def refuse(*_, **__):
        raise LeakError(f"{what} in a simulated run: it would differ from run to run")

    return refuse
