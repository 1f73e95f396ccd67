"""Versions and delete markers: keys in byte order, newest first, common prefixes rolled up here.

Each key's versions come from its newest copy, as the scan settles it. Drives roll up by what is live, and a prefix with
nothing but markers must show, too: so rows are read plainly, and a page that ends inside a prefix is followed by one
behind the prefix.
"""

from collections.abc import Iterator, Sequence

from cluster.ids import RowKey
from cluster.metadata.scan import Scanner, Span
from cluster.objects.context import Context
from cluster.objects.model import (
    NULL_VERSION,
    Bucket,
    VersionEntry,
    VersionListing,
    VersionPlace,
)
from cluster.register.keys import object_key, object_row, successor
from cluster.register.records import Version

PAGE_ROWS = 128  # each with all its versions


async def list_versions(
    context: Context,
    bucket: Bucket,
    *,
    prefix: bytes,
    delimiter: bytes,
    start: VersionPlace,
    limit: int,
) -> VersionListing:
    """A page of versions and common prefixes. See Objects.list_versions."""
    end = successor(object_row(bucket.bucket_id, prefix))
    assert end is not None  # an object's row begins with a bucket id and a kind
    stop = RowKey(end)
    place = start if start.key >= prefix else VersionPlace(prefix)
    cursor: RowKey | None = object_row(bucket.bucket_id, place.key)
    entries: list[VersionEntry] = []
    scanner = Scanner(context.table)
    while cursor is not None and cursor < stop:
        span = Span(start=cursor, stop=stop, bucket_epoch=bucket.epoch)
        rows = min(PAGE_ROWS, limit - len(entries) + 1)
        found, cursor = await scanner.scan(bucket.generation, span, rows, only_live=False)
        past: bytes | None = b""  # where the common prefix that was shown last ends; None: nowhere
        for item in found:
            key = object_key(item.row)
            if item.state is None or not item.state.versions or past is None or key < past:
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                name = key[: cut + len(delimiter)]
                past = successor(name)
                row: Iterator[VersionEntry] = iter((VersionEntry(key=name),))
            else:
                behind = place.behind if key == place.key else None
                row = _entries(key, item.state.versions, behind)
            for entry in row:
                if len(entries) == limit:
                    return VersionListing(entries=tuple(entries), resume=resume_behind(entries[-1]))
                entries.append(entry)
        if past is None:
            break
        if past and cursor is not None:
            cursor = max(cursor, object_row(bucket.bucket_id, past))
    return VersionListing(entries=tuple(entries), resume=None)


def _entries(
    key: bytes, versions: Sequence[Version], behind: bytes | None
) -> Iterator[VersionEntry]:
    for version in versions_behind(versions, behind):
        yield VersionEntry(key=key, version=version, is_latest=version is versions[0])


def versions_behind(versions: Sequence[Version], behind: bytes | None) -> Sequence[Version]:
    """The versions that a listing still has to show of a key whose versions down to `behind` were shown."""
    if behind is None:
        return versions
    if behind == NULL_VERSION:
        at = next((at for at, v in enumerate(versions) if v.version_id is None), -1)
        return versions[at + 1 :]
    return [version for version in versions if version.stamp.pack() < behind]


def resume_behind(last: VersionEntry) -> VersionPlace | None:
    """Where a listing goes on behind its last entry; None: nothing can follow."""
    if last.version is None:
        end = successor(last.key)
        return VersionPlace(end) if end is not None else None
    return VersionPlace(last.key, last.version.stamp.pack())
