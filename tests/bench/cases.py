"""The cases that load a running node: small, middle and large objects, listings, memory, the index, bytes on disk."""

import base64
import hashlib
import random

import attrs

from tests.bench.core import ALL, KIB, MIB, coded
from tests.bench.measure import (
    disk_bytes,
    ended_bytes,
    process_bytes,
    wait_until_quiet,
)

ROW_BYTES = 48 * KIB  # on six drives, of an object of 4 KiB: rows, pages half full, and logs


def small(bench):
    """4 KiB: records with the bytes inline, rows from the caches."""
    count = 2000 if bench.quick else 12_000
    with bench.fresh_node() as node:
        bench.report(
            "small.put", "PUT 4 KiB, 32 clients",
            node.put_many("small-", count, 4 * KIB), size=4 * KIB, baseline="bare small",
        )  # fmt: skip
        hot = [node.request("GET", f"/bench/small-{n}") for n in range(1000)]
        bench.report(
            "small.get", "GET 4 KiB hot, 16 clients", node.get_again(hot, 16), size=4 * KIB,
            baseline="bare small",
        )  # fmt: skip
        heads = [node.request("HEAD", f"/bench/small-{n}") for n in range(1000)]
        bench.report(
            "small.head", "HEAD 4 KiB hot, 16 clients", node.get_again(heads, 16, is_head=True),
            baseline="bare small",
        )  # fmt: skip


def index(bench):
    """4 KiB without row caches: every GET asks the drives' indexes."""
    count = 5000 if bench.quick else 50_000
    with bench.fresh_node(room=count * ROW_BYTES, MEMORY_ROW_CACHE_MIB=0) as node:
        node.put_many("index-", count, 4 * KIB)
        wait_until_quiet(bench.scratch)  # what the PUTs left to write is not the GETs' affair
        gets = [node.request("GET", f"/bench/index-{n}") for n in range(count)]
        random.Random(1).shuffle(gets)
        bench.report(
            "index.get", f"GET 4 KiB from the index, {count} keys, row caches 0, 16 clients",
            node.get_again(gets, 16), size=4 * KIB, baseline="bare small",
        )  # fmt: skip


def middle(bench):
    """64 KiB: shards that are rows of the index."""
    with bench.fresh_node() as node:
        bench.report(
            "middle.put",
            "PUT 64 KiB, 16 clients",
            node.put_many("middle-", 400, 64 * KIB, 16),
            size=64 * KIB,
        )


def large(bench):
    """1 and 16 MiB: shards that are files."""
    for name, row, size, clients, count in (
        ("1 MiB", "1m", MIB, 8, 100),
        ("16 MiB", "16m", 16 * MIB, 4, 16),
    ):
        with bench.fresh_node(room=coded(count * size)) as node:
            bench.report(
                f"large.put-{row}", f"PUT {name}, {clients} clients",
                node.put_many("large-", count, size, clients), size=size, baseline="PUT bound MiB/s",
            )  # fmt: skip
            gets = [node.request("GET", f"/bench/large-{n}") for n in range(count)]
            bench.report(
                f"large.get-{row}", f"GET {name}, {clients} clients", node.get_again(gets, clients),
                size=size, baseline=f"bare {name}",
            )  # fmt: skip


def listing(bench):
    """Pages of 1,000 keys, and deletes of as many."""
    count = 3000 if bench.quick else 20_000
    with bench.fresh_node() as node:
        node.put_many("list/", count, 16, 64)
        page = node.request("GET", "/bench", query="list-type=2&prefix=list%2F")
        bench.report(
            "list.page", f"LIST 1,000 of {count} keys, 1 client", node.get_again([page], 1)
        )
        bodies = [_delete_request(node, at) for at in range(0, count - 999, 1000)]
        bench.report(
            "list.delete", "DeleteObjects of 1,000 keys, 1 client",
            node.measure([bodies], seconds=ALL),
        )  # fmt: skip


def _delete_request(node, start):
    keys = "".join(f"<Object><Key>list/{n}</Key></Object>" for n in range(start, start + 1000))
    xml = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
    md5 = base64.b64encode(hashlib.md5(xml).digest())
    return node.request(
        "POST", "/bench", body=xml, query="delete=", headers=[(b"content-md5", md5)]
    )


def memory(bench):
    """Many large bodies at once. The node's start is this case's own, and so is its peak."""
    clients, size = (16, 16 * MIB) if bench.quick else (64, 64 * MIB)
    name = f"{size // MIB} MiB, {clients} clients at once"
    with bench.fresh_node(room=coded(clients * size)) as node:
        bench.report(
            "memory.put", f"PUT {name}", node.put_many("memory-", clients, size, clients), size=size
        )
        gets = [[node.request("GET", f"/bench/memory-{n}")] for n in range(clients)]
        bench.report("memory.get", f"GET {name}", node.measure(gets, seconds=ALL), size=size)


def amplification_4k(bench):
    """Bytes on disk for objects that are rows."""
    _amplification(bench, "written-4k.put", "4 KiB", 4 * KIB, 2000 if bench.quick else 20_000, 32)


def amplification_64k(bench):
    """Bytes on disk for objects whose shards are rows."""
    _amplification(bench, "written-64k.put", "64 KiB", 64 * KIB, 400 if bench.quick else 4000, 16)


def amplification_16m(bench):
    """Bytes on disk for objects whose shards are files."""
    _amplification(bench, "written-16m.put", "16 MiB", 16 * MIB, 16 if bench.quick else 64, 4)


def _amplification(bench, row, name, size, count, clients):
    """From a quiet disk to a quiet disk. The node is stopped in between: closing an index checkpoints it."""
    with bench.fresh_node(room=count * max(coded(size), ROW_BYTES)) as node:
        was_quiet = wait_until_quiet(bench.scratch)
        disk, ended = disk_bytes(bench.scratch), ended_bytes()
        own = process_bytes(node.node.process.pid)
        measured = node.put_many("written-", count, size, clients)
        status = node.node.stop()
        assert status == 0, f"the node's exit status is {status}"
        is_quiet = wait_until_quiet(bench.scratch)
        disk = (disk_bytes(bench.scratch) - disk) / count
        own = (ended_bytes() - ended - own) / count
        note = f"the object is {size / KIB:g} KiB; 4+2 alone makes {coded(size) / KIB:g} KiB of it"
        if not (was_quiet and is_quiet):
            note += "; the disk was not quiet: disk_kib has others' bytes in it, own_kib has not"
        bench.report(
            row, f"bytes on disk per PUT of {name}, {count} objects, checkpoint included",
            attrs.evolve(measured, disk=disk, own=own), size=size, note=note,
        )  # fmt: skip
