"""What commands share: the node's answer, shown to people or as JSON, and the exit status where there is none."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from cli import admin_socket, exits

STATE = click.option(
    "--state",
    envvar="STORECTL_STATE",
    type=click.Path(path_type=Path),
    help="The node's state folder (or STORECTL_STATE).",
)
JSON = click.option("--json", "as_json", is_flag=True, help="For scripts: JSON on standard output.")
_STATUSES = {400: exits.CONFIG, 404: exits.NOT_FOUND, 503: exits.UNAVAILABLE}


def fail(message: str, status: int) -> NoReturn:
    """End the command."""
    print(f"storectl: {message}", file=sys.stderr)
    sys.exit(status)


def ask(state: Path | None, path: str, **query: str) -> Any:
    """What the node says; ends the command where it says no, or nothing."""
    return _carry_out(state, lambda folder: admin_socket.ask(folder, path, **query))


def tell(state: Path | None, path: str, **arguments: str) -> Any:
    """Have the node change something; ends the command like `ask`."""
    return _carry_out(state, lambda folder: admin_socket.tell(folder, path, **arguments))


def _carry_out(state: Path | None, call: Callable[[Path], Any]) -> Any:
    if state is None:
        fail("name the node by --state DIR or STORECTL_STATE", exits.USAGE)
    try:
        return call(state)
    except admin_socket.AdminError as error:
        fail(str(error), _STATUSES.get(error.status, exits.FAILED))
    except (OSError, ValueError) as error:
        fail(f"no node answers at {state}: {error}", exits.UNREACHABLE)


def show(content: Any, render: Callable[[Any], None], *, as_json: bool) -> None:
    """For people, or for scripts."""
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        render(content)
