"""What every drive promises about scans: byte order, exact pages, tombstones, one witness for each common prefix."""

from hypothesis import HealthCheck, given, settings, strategies as st

from cluster.ids import BucketId, RowKey
from cluster.register.keys import object_key, object_row, successor
from cluster.register.messages import Accepted, Done, Page, Scan
from tests.contracts.benches import BUCKET, accept, at, expect, learn, live, tombstone

START = object_row(BUCKET, b"")
STOP = RowKey(successor(START) or b"")


def scan(start=START, stop=STOP, limit=100, delimiter=b"", prefix=b""):
    return Scan(
        start=start, stop=stop, limit=limit, epoch=1, bucket_epoch=1, delimiter=delimiter,
        prefix_len=len(START) + len(prefix),
    )  # fmt: skip


async def fill(bench, drive, *, lives=(), unchosen=(), dead=(), undead=()):
    """Rows: live and chosen, live and not known chosen, tombstones that are chosen or not."""
    ballot = at(bench, 1)
    for keys, state, is_chosen in (
        (lives, live(ballot), True),
        (unchosen, live(ballot), False),
        (dead, tombstone(ballot), True),
        (undead, tombstone(ballot), False),
    ):
        for key in keys:
            await expect(drive, accept(ballot, state, object_row(BUCKET, key)), Accepted)
            if is_chosen:
                await expect(drive, learn(ballot, object_row(BUCKET, key)), Done)
    # Chosen flags are durable with what was committed after them.
    await expect(
        drive, accept(ballot, live(ballot), object_row(BucketId(b"z" * 16), b"z")), Accepted
    )


async def pages(drive, limit, **how):
    """All pages: the rows of each."""
    cursor, found = START, []
    while cursor is not None:
        page = await expect(drive, scan(cursor, limit=limit, **how), Page)
        assert len(page.rows) <= limit
        assert page.next is None or all(row.row < page.next for row in page.rows)
        found.append(list(page.rows))
        cursor = page.next
    return found


def keys_of(rows):
    return [object_key(row.row) for row in rows]


async def test_a_scan_returns_all_rows_of_the_range_in_order_tombstones_too(bench):
    async with bench.open() as drive:
        await fill(bench, drive, lives=[b"b", b"a", b"\xff"], dead=[b"d"], undead=[b"e"])
        page = await expect(drive, scan(), Page)
        assert keys_of(page.rows) == [b"a", b"b", b"d", b"e", b"\xff"]
        assert [row.live for row in page.rows] == [True, True, False, False, True]
        assert [row.chosen for row in page.rows] == [True, True, True, False, True]
        assert page.next is None
        part = await expect(drive, scan(object_row(BUCKET, b"b"), object_row(BUCKET, b"e")), Page)
        assert keys_of(part.rows) == [b"b", b"d"]
        everything = await expect(drive, scan(stop=None), Page)
        assert len(everything.rows) == 6


async def test_pages_meet_without_gap_or_repeat(bench):
    keys = [b"%02d" % number for number in range(10)]
    async with bench.open() as drive:
        await fill(bench, drive, lives=keys)
        for limit in (1, 3, 5, 10, 11):
            found = await pages(drive, limit)
            assert [key for rows in found for key in keys_of(rows)] == keys


async def test_each_common_prefix_has_one_witness(bench):
    async with bench.open() as drive:
        await fill(bench, drive, lives=[b"a/1", b"a/2", b"b", b"c/d/1", b"c/e", b"d/1"])
        page = await expect(drive, scan(delimiter=b"/"), Page)
        assert [(object_key(r.row), r.rolled_up) for r in page.rows] == [
            (b"a/1", True),
            (b"b", False),
            (b"c/d/1", True),
            (b"d/1", True),
        ]
        inside = await expect(
            drive,
            scan(
                object_row(BUCKET, b"c/"), object_row(BUCKET, b"c0"), delimiter=b"/", prefix=b"c/"
            ),
            Page,
        )
        assert [(object_key(r.row), r.rolled_up) for r in inside.rows] == [
            (b"c/d/1", True),
            (b"c/e", False),
        ]


async def test_a_witness_is_live_or_not_known_chosen(bench):
    async with bench.open() as drive:
        await fill(
            bench,
            drive,
            dead=[b"a/1", b"a/2", b"b/1", b"c/1"],
            undead=[b"b/2"],
            lives=[b"b/3", b"c/2"],
        )
        page = await expect(drive, scan(delimiter=b"/"), Page)
        assert keys_of(page.rows) == [b"b/2", b"c/2"]
        # The next witness of the same prefix is found from behind the first.
        again = await expect(
            drive, scan(RowKey(object_row(BUCKET, b"b/2") + b"\0"), delimiter=b"/"), Page
        )
        assert keys_of(again.rows) == [b"b/3", b"c/2"]


async def test_prefixes_wider_than_a_page_are_left_in_one_step(bench):
    many = [b"m/%04d" % number for number in range(300)]
    async with bench.open() as drive:
        await fill(bench, drive, lives=[b"a", *many, b"z"])
        for limit in (1, 2, 3, 200):
            found = await pages(drive, limit, delimiter=b"/")
            assert [k for rows in found for k in keys_of(rows)] == [b"a", b"m/0000", b"z"]


async def test_a_corrupt_row_is_shown_as_such(bench):
    async with bench.open() as drive:
        await fill(bench, drive, lives=[b"a", b"b", b"p/1"])
        bench.crash()
    bench.rot_row(object_row(BUCKET, b"b"))
    async with bench.open() as drive:
        page = await expect(drive, scan(delimiter=b"/"), Page)
        assert [row.ballot is None for row in page.rows] == [False, True, False]


KEYS = st.text("ab/", min_size=1, max_size=5).map(str.encode)


@given(
    rows=st.dictionaries(
        KEYS, st.sampled_from(["lives", "unchosen", "dead", "undead"]), max_size=12
    ),
    limit=st.integers(1, 13),
    prefix=st.sampled_from([b"", b"a", b"a/", b"/"]),
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_rolled_up_pages_are_what_a_model_says(bench, rows, limit, prefix):
    """Any rows, any prefix: keys without the delimiter as they are, prefixes by their first witness."""
    first, last = object_row(BUCKET, prefix), successor(object_row(BUCKET, prefix))
    expected, seen = [], set()
    for key in sorted(rows):
        if key.startswith(prefix):
            cut = key.find(b"/", len(prefix))
            if cut < 0:
                expected.append(key)
            elif rows[key] != "dead" and key[: cut + 1] not in seen:
                seen.add(key[: cut + 1])
                expected.append(key)
    fresh = bench.fresh()
    async with fresh.open() as drive:
        by_kind = {}
        for key, kind in rows.items():
            by_kind.setdefault(kind, []).append(key)
        await fill(fresh, drive, **by_kind)
        cursor, found = first, []
        while cursor is not None:
            page = await expect(
                drive, scan(cursor, RowKey(last), limit, delimiter=b"/", prefix=prefix), Page
            )
            assert len(page.rows) <= limit
            found += keys_of(page.rows)
            cursor = page.next
        assert found == expected
