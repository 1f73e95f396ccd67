"""Runs an operation, and once more where what it had looked up was out of date before it was used.

An operation looks its bucket up, then works with it. A bucket delete that is refused fences the bucket in between, and the
store then no longer takes the old look for an answer; nothing took effect. An object's bytes may be collected between the look
at its record and the first read. In both cases nothing of an answer was sent, so a second look gives the right one.
"""

from collections.abc import Awaitable, Callable

from cluster.errors import NotFoundError, SupersededError, UnavailableError
from s3.messages import Response
from s3.object_meta import check_customer_keys
from s3.request import Context, S3Request

Operation = Callable[[Context, S3Request], Awaitable[Response]]


async def run(operation: Operation, context: Context, request: S3Request) -> Response:
    """The operation's response. Raises S3Error, ClusterError."""
    check_customer_keys(request.headers)
    try:
        return await operation(context, request)
    except SupersededError:
        if not request.raw_body.rewind():
            raise
    except NotFoundError as error:
        if error.kind != "bucket":
            raise
        if not request.raw_body.rewind():
            await _tell_of_bucket(context, request)
    try:
        return await operation(context, request)
    except NotFoundError as error:
        if error.kind == "bucket":
            await _tell_of_bucket(context, request)
        raise


async def _tell_of_bucket(context: Context, request: S3Request) -> None:
    """Raises NotFoundError("bucket") where the bucket is gone indeed, else UnavailableError: a retry can help."""
    await context.objects.get_bucket(request.bucket)
    raise UnavailableError("the bucket was fenced while the request ran")
