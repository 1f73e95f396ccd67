"""The cases that need much room or time: a start with a million keys, and an object of 5 GiB."""

import random
import subprocess
import sys
import time
import urllib.parse

from tests.bench.core import GIB, KIB, MIB, Measured, coded
from tests.bench.fill import body_of, key_of
from tests.bench.load import Result
from tests.bench.measure import (
    cpu_seconds,
    disk_bytes,
    forget_pages,
    peak_rss_mib,
    process_bytes,
    reset_peak_rss,
)
from tests.bench.report import Row
from tests.bench.stream import get_stream, put_stream

PAGE_KEYS = 1000
FILLED_BYTES = 4 * KIB  # of a filled key on all six drives (measured: 2.3 KiB)


def restart(bench):
    """From the start of the process to answers, after a clean stop and after SIGKILL; then listings."""
    count, small = (50_000, 2000) if bench.quick else (1_000_000, 2000)
    with bench.fresh_node(room=count * FILLED_BYTES) as node:
        node.ask("PUT", "/million")
        node.put_many("list/", small, 16, 64)
        assert node.node.stop() == 0, "the node did not stop well"
        began = time.perf_counter()
        _fill(node.node, "million", count)
        filled = f"{count} keys in {time.perf_counter() - began:.0f} s"
        bench.add(
            _started(
                node, "restart.stopped", f"restart with {count} keys, clean stop", count, filled
            )
        )
        # Something must lie in the logs, for the start to replay.
        node.put_many("unclean-", 500 if bench.quick else 5000, 4 * KIB)
        node.node.kill()
        bench.add(
            _started(
                node, "restart.killed", f"restart with {count} keys, after SIGKILL", count, filled
            )
        )
        assert node.ask("GET", "/bench/unclean-0"), "what was acknowledged before SIGKILL is gone"
        assert _count_keys(node, "million") == count, "the listing does not show what was filled"
        _list_pages(bench, node, count, small)


def _fill(node, bucket, count):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fill", f"{node.root}/drive{{1...{node.drives}}}",
         str(node.state), bucket, str(count)],
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"the loader's exit status is {done.returncode}"


def _started(loaded, row, case, count, note):
    """Start the stopped node, with nothing of its drives in the page cache, and ask it."""
    node = loaded.node
    for number in range(1, node.drives + 1):
        forget_pages(node.drive(number))
    began = time.perf_counter()
    node.start(wait=False)
    node.wait_ready()
    listening = time.perf_counter() - began
    key = count // 2
    assert loaded.ask("GET", f"/million/{key_of(key).decode()}") == body_of(key), "wrong bytes"
    page = loaded.ask("GET", "/million", query=_page_query(key_of(key - 1)))
    assert page.count(b"<Key>") == PAGE_KEYS, "the listing is not complete"
    assert page.find(b"<Key>" + key_of(key) + b"</Key>") == page.find(b"<Key>"), "a key is missing"
    answered = time.perf_counter() - began
    return Row(
        row=row, case=case, seconds=round(answered, 2), rss_mib=peak_rss_mib(node.process.pid),
        note=f"endpoint.json after {listening:.2f} s; {note}; page cache of the drives dropped",
    )  # fmt: skip


def _page_query(after):
    return f"list-type=2&start-after={urllib.parse.quote(after.decode(), safe='')}"


def _count_keys(loaded, bucket):
    """The keys of a bucket, by listing all of it."""
    total, last = 0, b""
    while True:
        page = loaded.ask("GET", f"/{bucket}", query=_page_query(last))
        total += page.count(b"<Key>")
        if b"<IsTruncated>true</IsTruncated>" not in page:
            return total
        last = page[page.rfind(b"<Key>") + 5 : page.rfind(b"</Key>")]


def _list_pages(bench, node, count, small):
    """Pages from all over the big bucket, beside the one of a small bucket."""
    starts = list(range(0, count - PAGE_KEYS, max(1, count // 500)))
    random.Random(1).shuffle(starts)
    pages = [node.request("GET", "/million", query=_page_query(key_of(start))) for start in starts]
    bench.report("restart.list", f"LIST 1,000 of {count} keys, 1 client", node.get_again(pages, 1))
    page = node.request("GET", "/bench", query="list-type=2&prefix=list%2F")
    bench.report(
        "restart.list-small", f"LIST 1,000 of {small} keys, same node", node.get_again([page], 1)
    )


def big(bench):
    """One object of 5 GiB, the most that a PUT may carry; neither side holds it."""
    size = 512 * MIB if bench.quick else 5 * GIB
    name = f"{size // MIB} MiB as one stream, UNSIGNED-PAYLOAD"
    with bench.fresh_node(room=coded(size)) as node:
        keys = node.node.access_key, node.node.secret_key
        endpoint, path = node.node.endpoint, "/bench/big"
        (seconds, sent), put = _metered(node, lambda: put_stream(endpoint, keys, path, size))
        bench.report("big.put", f"PUT {name}", put(seconds), size=size)
        (seconds, length, got), get = _metered(node, lambda: get_stream(endpoint, keys, path))
        assert (length, got) == (size, sent), "what came back is not what was sent"
        bench.report("big.get", f"GET {name}", get(seconds), size=size)


def _metered(loaded, work):
    """What `work` gives, and its costs as a load of one operation that took so many seconds."""
    pid = loaded.node.process.pid
    reset_peak_rss(pid)
    cpu, disk, own = cpu_seconds(pid), disk_bytes(loaded.folder), process_bytes(pid)
    value = work()
    costs = (
        cpu_seconds(pid) - cpu,
        disk_bytes(loaded.folder) - disk,
        process_bytes(pid) - own,
        peak_rss_mib(pid),
    )
    return value, lambda seconds: Measured(Result(1, seconds, [seconds], 0), *costs)
