"""What people see: tables by rich, from the same data that scripts get as JSON."""

from datetime import UTC, datetime
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from cluster.config import Config

_COLOURS = {
    "active": "green",
    "slow": "yellow",
    "readonly": "yellow",
    "crowded": "yellow",
    "rebuilding": "yellow",
}


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def cluster_status(status: dict[str, Any]) -> None:
    """`storectl cluster status`."""
    console = Console(highlight=False)
    tolerates = status["tolerates"]
    console.print(
        f"cluster {status['cluster']}   layout epoch {status['epoch']}   code {status['code']}"
    )
    console.print(f"{'ready' if status['ready'] else 'NOT READY'}: {status['reason']}")
    console.print(
        f"tolerates: {tolerates['drives']} drives, {tolerates['nodes']} nodes "
        f"(reads {tolerates['read_drives']} drives, {tolerates['read_nodes']} nodes; "
        f"writes {tolerates['write_drives']} drives, {tolerates['write_nodes']} nodes; "
        f"writes with the full code {tolerates['full_code_drives']})"
    )
    sets = _table("set", "drives", "voting", "may still lose", "reads", "writes")
    for row in status["sets"]:
        sets.add_row(
            str(row["set"]), str(row["drives"]), str(row["voting"]), str(row["may_still_lose"]),
            "yes" if row["can_read"] else "NO", "yes" if row["can_write"] else "NO",
        )  # fmt: skip
    console.print(sets)
    drives = _table("drive", "node", "set", "pos", "state", "used", "free", "heal debt", "path")
    for row in status["drives"]:
        total, free = row["total_bytes"], row["free_bytes"]
        used = total - free if total is not None else None
        colour = _COLOURS.get(row["state"], "red")
        drives.add_row(
            row["drive"][:8], "-" if row["node"] is None else str(row["node"]), str(row["set"]), str(row["position"]), f"[{colour}]{row['state']}[/{colour}]",
            _bytes(used), _bytes(free), str(row["heal_debt"]), row["path"],
        )  # fmt: skip
    console.print(drives)
    console.print(f"heal debt: {status['heal_debt']} shards")
    for warning in status["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {warning}")


def object_inspect(found: dict[str, Any]) -> None:
    """`storectl object inspect`."""
    console = Console(highlight=False)
    version = found["version"]
    console.print(
        f"{found['bucket']['name']}/{found['key']}   {version['size']} bytes   {version['validator']}"
    )
    console.print(
        f"home set {found['home_set']}   ballot {found['ballot']}   {'inline' if version['inline'] else 'sharded'}"
    )
    for part in found["parts"]:
        console.print(
            f"part {part['number']}: {part['size']} bytes, data {part['data_id']}, code {part['code']}, set {part['set']}"
        )
        shards = _table("pos", "drive", "at commit", "now")
        for shard in part["shards"]:
            shards.add_row(
                str(shard["position"]),
                shard["drive"][:8],
                "staged" if shard["staged_at_commit"] else "missing",
                shard["state"],
            )
        console.print(shards)


def users(rows: list[dict[str, Any]]) -> None:
    """`storectl user list`."""
    table = _table("user", "state", "policies", "created")
    for row in rows:
        table.add_row(row["user"], _state(row), ", ".join(row["policies"]), _day(row["created_ms"]))
    Console(highlight=False).print(table)


def keys(rows: list[dict[str, Any]]) -> None:
    """`storectl key list`."""
    table = _table("access key", "user", "state", "created")
    for row in rows:
        table.add_row(row["access_key"], row["user"], _state(row), _day(row["created_ms"]))
    Console(highlight=False).print(table)


def new_key(pair: dict[str, Any]) -> None:
    """`storectl key create`."""
    print(f"access key  {pair['access_key']}")
    print(f"secret key  {pair['secret_key']}")
    print("The secret is not shown again: keep it.")


def policies(rows: list[dict[str, Any]]) -> None:
    """`storectl policy list`."""
    table = _table("policy", "")
    for row in rows:
        table.add_row(row["policy"], "built in" if row["built_in"] else "")
    Console(highlight=False).print(table)


def _state(row: dict[str, Any]) -> str:
    return "[red]disabled[/red]" if row["disabled"] else "active"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def settings(rows: list[dict[str, Any]]) -> None:
    """`storectl config show`."""
    table = _table("setting", "value", "default", "meaning")
    for row in rows:
        table.add_row(row["name"], str(row["value"]), row["default"], row["meaning"])
    Console(highlight=False).print(table)


def values(config: Config) -> list[Any]:
    """The values of all settings, in order of their fields."""
    return [getattr(config, field.name) for field in attrs.fields(Config)]
