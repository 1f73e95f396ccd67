"""Running a node: where the real clock, randomness and threads meet the store and the S3 front end."""

import json
import os
import random
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from cli import admin_socket
from cli.credentials import NodeCredentials
from cli.log import Log
from cli.machine import Machine, calm_collector, deadline, share_arenas
from cluster.config import Config, expand_drives
from cluster.node import Node, open_node, state_folder
from s3.gateway import Gateway, GatewaySettings
from s3.request import Context
from s3.server import HttpServer, ServerSettings, bound_port, open_listeners

ENDPOINT_FILE = "endpoint.json"
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DRIVES_SECONDS = 20.0  # to close the drives, once the requests are through


async def serve(config: Config) -> None:
    """Run a node until SIGINT or SIGTERM. Raises ConfigError, QuorumError, OSError (the address is taken)."""
    log = Log(as_json=config.log_format == "json", requests=config.log_requests)
    machine = Machine(log)
    share_arenas()
    state = state_folder(config, expand_drives(config.drives))
    with ExitStack() as stopping, trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        async with open_node(config, machine, os.environ) as node:
            calm_collector()
            listeners = await open_listeners(*config.address)
            servers = [
                (HttpServer(_gateway(config, node, machine, log), _settings(config)), listeners),
                (HttpServer(admin_socket.AdminHandler(node)), [await admin_socket.listen(state)]),
            ]
            async with trio.open_nursery() as nursery:
                for server, its_listeners in servers:
                    await nursery.start(partial(server.serve, its_listeners))
                endpoint = _announce(config, state, listeners)
                log.line(
                    "listening", endpoint=endpoint, code=node.plan.code, drives=len(node.drives)
                )
                async for number in signals:
                    log.line("stopping", signal=signal.Signals(number).name)
                    stopping.enter_context(
                        deadline(config.stop_seconds + _DRIVES_SECONDS, "the stop hangs: giving up")
                    )
                    break
                for server, _ in servers:
                    server.stop()
    for name in (ENDPOINT_FILE, admin_socket.NAME):
        (state / name).unlink(missing_ok=True)


def _gateway(config: Config, node: Node, machine: Machine, log: Log) -> Gateway:
    return Gateway(
        Context(objects=node.store, region=config.region, now=machine.now),
        settings=GatewaySettings(region=config.region, base_domains=config.domains),
        credentials=NodeCredentials(node),
        ready=node.ready,
        rng=random.Random(machine.rng.getrandbits(64)),  # noqa: S311 - ids, no secrets
        emit=log,
    )


def _settings(config: Config) -> ServerSettings:
    return ServerSettings(
        max_connections=config.max_connections,
        max_connections_per_address=config.max_connections_per_address,
        head_seconds=config.head_seconds,
        idle_seconds=config.idle_seconds,
        stop_seconds=config.stop_seconds,
    )


def _announce(config: Config, state: Path, listeners: list[trio.SocketListener]) -> str:
    """Write STATE/endpoint.json, as a whole; the S3 endpoint."""
    host, _ = config.address
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
    endpoint = f"http://{f'[{shown}]' if ':' in shown else shown}:{bound_port(listeners)}"
    scratch = state / f"{ENDPOINT_FILE}.new"
    scratch.write_text(
        json.dumps({"s3": endpoint, "admin": str(state / admin_socket.NAME), "pid": os.getpid()})
        + "\n"
    )
    scratch.replace(state / ENDPOINT_FILE)
    return endpoint
