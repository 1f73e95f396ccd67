"""Live keys in byte order, common prefixes rolled up by the drives."""

from cluster.ids import RowKey
from cluster.metadata.scan import Scanner, Span
from cluster.objects.context import Context
from cluster.objects.model import Bucket, Entry, Listing
from cluster.register.keys import object_key, object_row, successor


async def list_objects(
    context: Context, bucket: Bucket, *, prefix: bytes, delimiter: bytes, start: bytes, limit: int
) -> Listing:
    """A page of live keys and common prefixes."""
    low = object_row(bucket.bucket_id, max(start, prefix))
    stop = successor(object_row(bucket.bucket_id, prefix))
    span = Span(
        start=low, stop=RowKey(stop) if stop is not None else None, bucket_epoch=bucket.epoch,
        delimiter=delimiter, prefix_len=len(object_row(bucket.bucket_id, prefix)),
    )  # fmt: skip
    found, cursor = await Scanner(context.table).scan(bucket.generation, span, limit)
    entries = tuple(
        Entry(key=object_key(item.row), versions=item.state.versions if item.state else ())
        for item in found
    )
    return Listing(
        entries=entries,
        resume=object_key(cursor)
        if cursor is not None and cursor < (stop or cursor + b"x")
        else None,
    )
