"""The storectl command line."""

import os
from pathlib import Path
from typing import Any

import click
import trio

from cli import access_commands, exits, render
from cli.asking import JSON, STATE, ask, fail, show
from cli.serve import serve
from cluster.config import describe, load_config
from cluster.errors import ConfigError, UnavailableError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="storectl")
def main() -> None:
    """An S3-compatible object store that runs as a cluster of equal peers.

    Exit statuses: 0 done, 1 failed, 2 wrong command line, 3 a setting, folder, key or policy cannot be used,
    4 no node answers, 5 not found, 6 quorum lost.
    """


for _group in (access_commands.user, access_commands.key, access_commands.policy):
    main.add_command(_group)


@main.group()
def node() -> None:
    """Run a node."""


_CONFIG = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings."
)


@node.command("start")
@click.option(
    "--drives",
    multiple=True,
    metavar="'DIR{1...6}'",
    help="Folders that are drives. May be repeated.",
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Address of the S3 listener; port 0 takes a free one."
)
@STATE
@click.option("--erasure", metavar="K+M", help="Data and parity shards, for example 4+2.")
@_CONFIG
def node_start(
    drives: tuple[str, ...],
    listen: str | None,
    state: Path | None,
    erasure: str | None,
    config_file: Path | None,
) -> None:
    """Start a node; on empty folders, form a new store on them first."""
    flags = {
        "drives": drives or None,
        "listen": listen,
        "state": str(state) if state is not None else None,
        "erasure": erasure,
    }
    try:
        trio.run(serve, load_config(config_file, os.environ, flags))
    except* ConfigError as group:
        fail(_first(group), exits.CONFIG)
    except* UnavailableError as group:
        fail(f"the store cannot be opened: {_first(group)}", exits.UNAVAILABLE)
    except* OSError as group:
        fail(_first(group), exits.FAILED)


def _first(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


@main.group("cluster")
def cluster_group() -> None:
    """Look at the cluster."""


@cluster_group.command("status")
@STATE
@JSON
def cluster_status(*, state: Path | None, as_json: bool) -> None:
    """Drives, sets, what the layout tolerates, heal debt, warnings."""
    show(ask(state, "/cluster/status"), render.cluster_status, as_json=as_json)


@main.group("object")
def object_group() -> None:
    """Look at objects."""


@object_group.command("inspect")
@click.argument("bucket")
@click.argument("key")
@STATE
@JSON
def object_inspect(*, bucket: str, key: str, state: Path | None, as_json: bool) -> None:
    """The record of a key, its placement, and the state of each shard."""
    show(ask(state, "/object", bucket=bucket, key=key), render.object_inspect, as_json=as_json)


@main.group("config")
def config_group() -> None:
    """Settings."""


@config_group.command("show")
@_CONFIG
@JSON
def configshow(*, config_file: Path | None, as_json: bool) -> None:
    """Every setting: its value, default and meaning."""
    try:
        config = load_config(config_file, os.environ, {})
    except ConfigError as error:
        fail(str(error), exits.CONFIG)
    rows = [
        {"name": name, "value": value, "default": default, "meaning": text}
        for (name, default, text), value in zip(describe(), render.values(config), strict=True)
    ]
    show(rows, render.settings, as_json=as_json)


@config_group.command("check")
@_CONFIG
def config_check(config_file: Path | None) -> None:
    """Whether the settings can be used; says what is wrong where they cannot."""
    try:
        config = load_config(config_file, os.environ, {})
        _ = config.address
    except ConfigError as error:
        fail(str(error), exits.CONFIG)
    print("the configuration is fine")


if __name__ == "__main__":
    main()
