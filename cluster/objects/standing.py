"""Work on a bucket as it stands: whoever knows it from before a fence looks it up once more."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.errors import StaleBucketError, UnavailableError
from cluster.objects.model import Bucket

T = TypeVar("T")
MAX_FENCES = 8  # deletions that are refused one after the other while one operation is under way


async def while_standing(
    bucket: Bucket,
    work: Callable[[Bucket], Awaitable[T]],
    renew: Callable[[Bucket], Awaitable[Bucket]],
) -> T:
    """`work` on the bucket, again after each fence, as refused deletions leave them: nothing of it took effect before.

    Raises what `work` and `renew` raise, but for StaleBucketError: UnavailableError where the fences do not end.
    """
    for _ in range(MAX_FENCES):
        try:
            return await work(bucket)
        except StaleBucketError:
            bucket = await renew(bucket)
    raise UnavailableError(f"deletions of bucket {bucket.name} are refused without end")
