"""Version ids as S3 writes them: "null", or the 16 bytes of the store's id in hexadecimal."""

import re

from cluster.objects.model import NULL_VERSION, Bucket, Version, Versioning
from s3.errors import S3Error
from s3.router import Query

NULL = "null"
VERSION_ID = b"x-amz-version-id"
DELETE_MARKER = (b"x-amz-delete-marker", b"true")
_NAMED = re.compile("[0-9a-f]{32}")


def version_text(version_id: bytes | None) -> str:
    """The id of a version as it stands in headers and XML."""
    return version_id.hex() if version_id else NULL


def parse_version_id(text: str, name: str = "versionId") -> bytes:
    """The store's name of a version. Raises S3Error InvalidArgument for what no version can be called."""
    if text == NULL:
        return NULL_VERSION
    if not _NAMED.fullmatch(text):
        why = "Invalid version id specified" if text else "Version id cannot be the empty string"
        raise S3Error("InvalidArgument", why, ArgumentName=name, ArgumentValue=text)
    return bytes.fromhex(text)


def asked_version(query: Query) -> bytes | None:
    """The version that the query names; None: none. Raises S3Error."""
    text = query.get("versionId")
    return None if text is None else parse_version_id(text)


def version_headers(
    bucket: Bucket, version: Version, name: bytes = VERSION_ID
) -> list[tuple[bytes, bytes]]:
    """The id of a version, where its bucket has or had versions at all."""
    if version.version_id is None and bucket.versioning is Versioning.UNVERSIONED:
        return []
    return [(name, version_text(version.version_id).encode())]
