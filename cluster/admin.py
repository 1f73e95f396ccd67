"""What operators ask a running node: plain data, for JSON. How it travels is the command line's business."""

from typing import Any

from cluster.drives.drive import VOTING, Drive, DriveError, DriveStatus
from cluster.errors import NotFoundError
from cluster.ids import NodeId
from cluster.metadata.table import RegisterRef
from cluster.node import Node
from cluster.placement import home_set
from cluster.register.keys import object_row
from cluster.register.records import Part, Version, decode_parts
from cluster.topology.tolerance import set_tolerates


async def cluster_status(node: Node) -> dict[str, Any]:
    """Drives, sets, what the layout tolerates, heal debt, warnings."""
    layout, tolerance = node.layout, node.tolerance
    drives = await node.core.drive_statuses()
    is_ready, why = await node.ready()
    up = {drive.drive for drive in drives if drive.state in VOTING}
    down = {seat.drive for seat in layout.seats()} - up
    at = {seat.drive: seat.node for seat in layout.seats()}
    sets = []
    for erasure_set in layout.sets:
        now = set_tolerates(layout, erasure_set.set_id, down)
        sets.append(
            {
                "set": erasure_set.set_id,
                "drives": layout.n,
                "voting": sum(p.voting and p.drive in up for p in erasure_set.positions),
                "may_still_lose": max(0, min(now.read_drives, now.write_drives)),
                "can_read": now.read_drives >= 0,
                "can_write": now.write_drives >= 0,
            }
        )
    return {
        "cluster": layout.cluster.hex(),
        "epoch": layout.epoch,
        "code": f"{layout.k}+{layout.m}",
        "codec": layout.codec,
        "ready": is_ready,
        "reason": why,
        "tolerates": {
            "drives": min(tolerance.read_drives, tolerance.write_drives),
            "nodes": min(tolerance.read_nodes, tolerance.write_nodes),
            "read_drives": tolerance.read_drives,
            "write_drives": tolerance.write_drives,
            "read_nodes": tolerance.read_nodes,
            "write_nodes": tolerance.write_nodes,
            "full_code_drives": tolerance.full_drives,
        },
        "nodes": [{"node": entry.node, "address": entry.address} for entry in layout.nodes],
        "sets": sets,
        "drives": [_drive(drive, at.get(drive.drive)) for drive in drives],
        "heal_debt": sum(drive.heal_debt for drive in drives),
        "warnings": _warnings(node, drives),
    }


def _drive(status: DriveStatus, node: NodeId | None) -> dict[str, Any]:
    usage = status.usage
    return {
        "drive": status.drive.hex(),
        "node": node,
        "path": status.path,
        "set": status.set_id,
        "position": status.position,
        "state": status.state.value,
        "reason": status.reason,
        "total_bytes": usage.total if usage is not None else None,
        "free_bytes": usage.free if usage is not None else None,
        "heal_debt": status.heal_debt,
    }


def _warnings(node: Node, drives: list[DriveStatus]) -> list[str]:
    warnings = [
        f"{drive.path}: {drive.state.value}: {drive.reason}" for drive in drives if drive.reason
    ]
    if node.layout.m == 0:
        warnings.append("this layout has no parity: a lost drive is lost data")
    elif len(node.layout.nodes) == 1:
        warnings.append("all drives are on one node: the store is down while this machine is")
    return warnings


async def inspect_object(node: Node, bucket_name: str, key: str) -> dict[str, Any]:
    """The record of a key, where its data lies, and the state of each shard. Raises NotFoundError."""
    bucket = await node.store.get_bucket(bucket_name)
    row = object_row(bucket.bucket_id, key.encode())
    ref = RegisterRef(
        row, home_set(bucket.bucket_id, key.encode(), bucket.generation), bucket.epoch
    )
    reading = await node.table.read(ref, bodies=True)
    live = reading.state.live
    if live is None:
        raise NotFoundError("key", key)
    parts = live.parts
    if live.body is not None and live.body.count:
        data = reading.bodies.get(live.body.id) or await node.table.read_body(ref, live.body)
        parts = decode_parts(data) if data is not None else ()
    return {
        "bucket": {"name": bucket.name, "id": bucket.bucket_id.hex(), "epoch": bucket.epoch},
        "key": key,
        "row": row.hex(),
        "home_set": ref.set_id,
        "ballot": list(reading.ballot),
        "version": _version(live),
        "parts": [await _part(node, part) for part in parts],
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "size": version.size,
        "validator": version.validator,
        "stamp": list(version.stamp),
        "mtime_ms": version.mtime_ms,
        "inline": version.body is not None and not version.body.count,
    }


async def _part(node: Node, part: Part) -> dict[str, Any]:
    by_id = {drive.drive_id: drive for drive in node.drives}
    positions = node.layout.erasure_set(part.set_id).positions
    shards = []
    for position, seat in enumerate(positions):
        drive = by_id.get(seat.drive)
        shards.append(
            {
                "position": position,
                "drive": seat.drive.hex(),
                "staged_at_commit": bool(part.staged >> position & 1),
                "state": await _shard_state(drive, part, position),
            }
        )
    return {
        "number": part.number,
        "size": part.size,
        "data_id": part.data_id.hex(),
        "code": f"{part.k}+{part.m}",
        "codec": part.codec,
        "set": part.set_id,
        "shards": shards,
    }


async def _shard_state(drive: Drive | None, part: Part, position: int) -> str:
    if drive is None:
        return "unknown: the drive is on another node"
    try:
        present = await drive.stat_shard(part.data_id, position)
    except (DriveError, OSError) as error:
        return f"unreachable: {error}"
    return "missing" if present is None else "present"
