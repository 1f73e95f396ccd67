"""Conditional requests: reads by RFC 9110 section 13.2.2, writes as preconditions that travel with the commit."""

import functools
from datetime import UTC
from email.utils import parsedate_to_datetime

from cluster.objects.model import Absent, Precondition, Present, ValidatorIn
from s3.errors import S3Error
from s3.messages import Headers


def etags(header: str) -> list[str]:
    """The entity tags of a list, without quotes and weakness; "*" as it is."""
    tags = []
    for item in header.split(","):
        tag = item.strip()
        tags.append(tag.removeprefix("W/").strip('"'))
    return tags


@functools.lru_cache(maxsize=1024)
def http_seconds(header: str) -> float | None:
    """An HTTP date in seconds since 1970; None: it is none, and the header is ignored."""
    try:
        when = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()


def check_read(headers: Headers, etag: str, mtime_ms: int, *, prefix: bytes = b"") -> None:
    """Raises S3Error PreconditionFailed (412) or NotModified (304). `prefix` is b"x-amz-copy-source-" for a source."""
    modified = mtime_ms // 1000  # headers have a resolution of one second
    if_match = headers.get(prefix + b"if-match")
    if if_match is not None:
        if "*" not in (tags := etags(if_match)) and etag not in tags:
            raise S3Error("PreconditionFailed", Condition="If-Match")
    else:
        since = headers.get(prefix + b"if-unmodified-since")
        seconds = http_seconds(since) if since is not None else None
        if seconds is not None and modified > seconds:
            raise S3Error("PreconditionFailed", Condition="If-Unmodified-Since")
    none_match = headers.get(prefix + b"if-none-match")
    changed: str | None = None
    if none_match is not None:
        if "*" in (tags := etags(none_match)) or etag in tags:
            changed = "If-None-Match"
    else:
        since = headers.get(prefix + b"if-modified-since")
        seconds = http_seconds(since) if since is not None else None
        if seconds is not None and modified <= seconds:
            changed = "If-Modified-Since"
    if changed is not None:
        if prefix:
            raise S3Error("PreconditionFailed", Condition=changed)
        raise S3Error("NotModified")


def write_conditions(headers: Headers) -> tuple[Precondition, ...]:
    """If-None-Match: * and If-Match of a PUT, a copy or a Complete. Raises S3Error for other forms."""
    if_match, none_match = headers.get(b"if-match"), headers.get(b"if-none-match")
    conditions: list[Precondition] = []
    if none_match is not None:
        if none_match.strip() != "*":
            raise S3Error(
                "NotImplemented", "A header you provided implies functionality that is not implemented.",
                Header="If-None-Match", additionalMessage="We don't accept the provided value of If-None-Match header for this API",
            )  # fmt: skip
        conditions.append(Absent())
    if if_match is not None:
        if none_match is not None:
            raise S3Error(
                "NotImplemented",
                Header="If-Match",
                additionalMessage="Multiple conditional request headers present",
            )
        tags = etags(if_match)
        conditions.append(Present() if "*" in tags else ValidatorIn(validators=tuple(tags)))
    return tuple(conditions)


def delete_condition(if_match: str | None) -> tuple[Precondition, ...]:
    """If-Match of a DELETE, or the ETag of an entry in DeleteObjects."""
    if if_match is None:
        return ()
    tags = etags(if_match)
    return (Present(),) if "*" in tags else (ValidatorIn(validators=tuple(tags)),)
