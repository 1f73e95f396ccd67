"""Bucket names and object keys ("Bucket naming rules" and "Naming Amazon S3 objects", S3 User Guide)."""

import re

from s3.errors import S3Error

MAX_KEY_BYTES = 1024
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")


def is_bucket_name(name: str) -> bool:
    """3 to 63 lower-case letters, digits, hyphens and dots; no IP address, no empty label."""
    return (
        _BUCKET.fullmatch(name) is not None
        and _ADDRESS.fullmatch(name) is None
        and ".." not in name
        and not name.startswith(("xn--", "sthree-"))
        and not name.endswith(("-s3alias", "--ol-s3"))
    )


def check_bucket_name(name: str) -> None:
    """Raises S3Error InvalidBucketName."""
    if not is_bucket_name(name):
        raise S3Error("InvalidBucketName", BucketName=name)


def check_key(key: bytes) -> None:
    """Keys are UTF-8 of up to 1,024 bytes; everything else is legal. Raises S3Error."""
    if len(key) > MAX_KEY_BYTES:
        raise S3Error("KeyTooLongError", Size=len(key), MaxSizeAllowed=MAX_KEY_BYTES)
    try:
        key.decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None
