"""PutObject, GetObject, HeadObject, DeleteObject, GetObjectAttributes: what clients are promised, over an Objects in memory."""

import base64
import zlib

import pytest

from tests.s3.client import Client, etag


@pytest.fixture
async def client() -> Client:
    client = Client()
    await client("PUT", "/bkt")
    return client


def crc32(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 300_000])
async def test_what_was_put_is_got(client: Client, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    put = await client("PUT", "/bkt/k", body=body)
    assert (put.status, put.headers["etag"]) == (200, etag(body))
    got = await client("GET", "/bkt/k")
    assert (got.status, got.body) == (200, body)
    assert got.headers["etag"] == etag(body)
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-type"] == "binary/octet-stream"
    assert got.headers["last-modified"].endswith(" GMT")
    head = await client("HEAD", "/bkt/k")
    assert (head.status, head.body, head.length) == (200, b"", size)
    assert client.objects.open_readers == 0


async def test_metadata_comes_back_and_is_replaced_whole(client: Client) -> None:
    sent = {
        "Content-Type": "text/plain", "Cache-Control": "no-cache", "Content-Encoding": "aws-chunked, gzip",
        "x-amz-meta-Colour": "grün", "Content-Disposition": "inline", "Expires": "Thu, 01 Dec 1994 16:00:00 GMT",
    }  # fmt: skip
    await client("PUT", "/bkt/k", body=b"x", headers=sent)
    got = (await client("GET", "/bkt/k")).headers
    assert got["content-type"] == "text/plain"
    assert got["cache-control"] == "no-cache"
    assert got["content-encoding"] == "gzip"
    assert got["content-disposition"] == "inline"
    assert got["expires"] == "Thu, 01 Dec 1994 16:00:00 GMT"
    assert got["x-amz-meta-colour"] == "grün"
    await client("PUT", "/bkt/k", body=b"x", headers={"Content-Encoding": "aws-chunked"})
    got = (await client("GET", "/bkt/k")).headers
    assert "x-amz-meta-colour" not in got
    assert "content-encoding" not in got


async def test_metadata_has_a_limit(client: Client) -> None:
    fits = {"x-amz-meta-a": "v" * 2047}
    assert (await client("PUT", "/bkt/k", headers=fits)).status == 200
    error = await client.refused("PUT", "/bkt/k", headers={"x-amz-meta-ab": "v" * 2047})
    assert error.code == "MetadataTooLarge"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"x-amz-storage-class": "PAPER"}, "InvalidStorageClass"),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
        ({"x-amz-server-side-encryption": "AES256"}, "NotImplemented"),
        ({"x-amz-object-lock-mode": "COMPLIANCE"}, "NotImplemented"),
        ({"x-amz-tagging": "a=b"}, "NotImplemented"),
        ({"x-amz-acl": "public-read"}, "AccessControlListNotSupported"),
        ({"x-amz-grant-read": "id=1"}, "AccessControlListNotSupported"),
        ({"x-amz-website-redirect-location": "/x"}, "NotImplemented"),
        ({"x-amz-write-offset-bytes": "0"}, "NotImplemented"),
        ({"x-amz-expected-bucket-owner": "somebody"}, "AccessDenied"),
        ({"content-md5": "AAAA"}, "InvalidDigest"),
        ({"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AA"}, "InvalidRequest"),
    ],
)
async def test_nothing_is_stored_of_a_put_that_is_refused(
    client: Client, header: dict[str, str], code: str
) -> None:
    error = await client.refused("PUT", "/bkt/k", body=b"hello", headers=header)
    assert error.code == code
    assert (await client.refused("GET", "/bkt/k")).code == "NoSuchKey"


async def test_a_storage_class_is_kept_and_told(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"x", headers={"x-amz-storage-class": "STANDARD_IA"})
    assert (await client("HEAD", "/bkt/k")).headers["x-amz-storage-class"] == "STANDARD_IA"
    assert (await client("GET", "/bkt")).text("Contents/StorageClass") == "STANDARD_IA"
    await client("PUT", "/bkt/k", body=b"x", headers={"x-amz-storage-class": "STANDARD"})
    assert "x-amz-storage-class" not in (await client("HEAD", "/bkt/k")).headers


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=10-", 10, None), ("bytes=-5", -5, None), ("bytes=5-99999999", 5, None)],
)  # fmt: skip
async def test_a_range_is_206(
    client: Client, size: int, header: str, start: int, stop: int | None
) -> None:
    body = bytes(i * 7 % 251 for i in range(size))
    await client("PUT", "/bkt/k", body=body)
    got = await client("GET", "/bkt/k", headers={"Range": header})
    wanted = body[start:stop]
    first = start % size
    assert (got.status, got.body) == (206, wanted)
    assert got.headers["content-range"] == f"bytes {first}-{first + len(wanted) - 1}/{size}"
    head = await client("HEAD", "/bkt/k", headers={"Range": header})
    assert (head.status, head.length) == (206, len(wanted))


async def test_ranges_out_of_reach_and_nonsense(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"hello")
    error = await client.refused("GET", "/bkt/k", headers={"Range": "bytes=5-"})
    assert (error.code, error.status) == ("InvalidRange", 416)
    assert (b"Content-Range", b"bytes */5") in error.headers
    await client("PUT", "/bkt/empty")
    assert (
        await client.refused("GET", "/bkt/empty", headers={"Range": "bytes=0-"})
    ).code == "InvalidRange"
    for nonsense in ("bytes=a-b", "bytes=3-1", "lines=0-1", "bytes=0-1,2-3"):
        got = await client("GET", "/bkt/k", headers={"Range": nonsense})
        assert (got.status, got.body) == (200, b"hello")


async def test_conditions_of_reads(client: Client) -> None:
    tag = (await client("PUT", "/bkt/k", body=b"x")).headers["etag"]
    modified = (await client("HEAD", "/bkt/k")).headers["last-modified"]
    assert (await client("GET", "/bkt/k", headers={"If-Match": tag})).status == 200
    assert (await client("GET", "/bkt/k", headers={"If-Match": "*"})).status == 200
    error = await client.refused("GET", "/bkt/k", headers={"If-Match": '"other"'})
    assert error.status == 412
    error = await client.refused("GET", "/bkt/k", headers={"If-None-Match": tag.strip('"')})
    assert error.status == 304
    assert {b"ETag", b"Last-Modified"} <= {name for name, _ in error.headers}
    error = await client.refused("HEAD", "/bkt/k", headers={"If-Modified-Since": modified})
    assert error.status == 304


async def test_conditions_of_writes(client: Client) -> None:
    error = await client.refused("PUT", "/bkt/k", body=b"1", headers={"If-Match": '"x"'})
    assert error.code == "NoSuchKey"
    first = await client("PUT", "/bkt/k", body=b"1", headers={"If-None-Match": "*"})
    error = await client.refused("PUT", "/bkt/k", body=b"2", headers={"If-None-Match": "*"})
    assert error.code == "PreconditionFailed"
    error = await client.refused("PUT", "/bkt/k", body=b"2", headers={"If-Match": '"x"'})
    assert error.code == "PreconditionFailed"
    assert (await client("GET", "/bkt/k")).body == b"1"
    await client("PUT", "/bkt/k", body=b"2", headers={"If-Match": first.headers["etag"]})
    assert (await client("GET", "/bkt/k")).body == b"2"
    error = await client.refused("PUT", "/bkt/k", body=b"3", headers={"If-None-Match": '"x"'})
    assert error.code == "NotImplemented"


async def test_deletes(client: Client) -> None:
    assert (await client("DELETE", "/bkt/missing")).status == 204
    assert (await client("DELETE", "/bkt/missing", headers={"If-Match": '"x"'})).status == 204
    assert (await client.refused("DELETE", "/nosuch/k")).code == "NoSuchBucket"
    await client("PUT", "/bkt/k", body=b"1")
    assert (
        await client.refused("DELETE", "/bkt/k", headers={"If-Match": '"x"'})
    ).code == "PreconditionFailed"
    for header in ("x-amz-if-match-size", "x-amz-if-match-last-modified-time"):
        assert (
            await client.refused("DELETE", "/bkt/k", headers={header: "1"})
        ).code == "NotImplemented"
    assert (await client("GET", "/bkt/k")).body == b"1"
    assert (await client("DELETE", "/bkt/k", headers={"If-Match": etag(b"1")})).status == 204
    assert (await client.refused("GET", "/bkt/k")).code == "NoSuchKey"


async def test_keys_are_opaque(client: Client) -> None:
    keys = ["a", "a/", "a/b", "../x", "/lead", "a//b", ".", "..", "nul\0byte", "ü/€", "+ &?%41"]
    for key in keys:
        await client("PUT", f"/bkt/{key}", body=key.encode())
    for key in keys:
        assert (await client("GET", f"/bkt/{key}")).body == key.encode()
    listed = (await client("GET", "/bkt", "encoding-type=url")).texts("Contents/Key")
    assert len(listed) == len(keys)
    await client("PUT", "/bkt/" + "k" * 1024)
    assert (await client.refused("PUT", "/bkt/" + "k" * 1025)).code == "KeyTooLongError"


async def test_a_checksum_is_told_when_asked_for(client: Client) -> None:
    body = b"hello world"
    put = await client("PUT", "/bkt/k", body=body, headers={"x-amz-checksum-crc32": crc32(body)})
    assert put.headers["x-amz-checksum-crc32"] == crc32(body)
    assert "x-amz-checksum-crc32" not in (await client("GET", "/bkt/k")).headers
    mode = {"x-amz-checksum-mode": "ENABLED"}
    for method in ("GET", "HEAD"):
        got = (await client(method, "/bkt/k", headers=mode)).headers
        assert got["x-amz-checksum-crc32"] == crc32(body)
        assert got["x-amz-checksum-type"] == "FULL_OBJECT"
    part = await client("GET", "/bkt/k", headers=mode | {"Range": "bytes=0-1"})
    assert "x-amz-checksum-crc32" not in part.headers


async def test_overrides_of_the_response(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"x")
    got = await client(
        "GET", "/bkt/k", "response-content-type=text/x%20y&response-cache-control=no-store"
    )
    assert got.headers["content-type"] == "text/x y"
    assert got.headers["cache-control"] == "no-store"
    error = await client.refused("GET", "/bkt/k", "response-expires=a%0d%0aSet-Cookie:%20x")
    assert error.code == "InvalidArgument"


async def test_versions_of_a_bucket_without_versioning(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"x")
    assert (await client("GET", "/bkt/k", "versionId=null")).body == b"x"
    unknown = "0" * 32
    error = await client.refused("GET", "/bkt/k", f"versionId={unknown}")
    assert error.code == "NoSuchVersion"
    for invalid in ("", "3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY"):
        assert (
            await client.refused("GET", "/bkt/k", f"versionId={invalid}")
        ).code == "InvalidArgument"
    deleted = await client("DELETE", "/bkt/k", f"versionId={unknown}")
    assert deleted.headers["x-amz-version-id"] == unknown
    assert (await client("GET", "/bkt/k")).body == b"x"
    await client("DELETE", "/bkt/k", "versionId=null")
    assert (await client.refused("GET", "/bkt/k")).code == "NoSuchKey"


async def test_attributes(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"hello", headers={"x-amz-checksum-crc32": crc32(b"hello")})
    wanted = {"x-amz-object-attributes": "ETag,ObjectSize,StorageClass,Checksum,ObjectParts"}
    got = await client("GET", "/bkt/k", "attributes", headers=wanted)
    assert got.text("ETag") == etag(b"hello").strip('"')
    assert got.text("ObjectSize") == "5"
    assert got.text("StorageClass") == "STANDARD"
    assert got.text("Checksum/ChecksumCRC32") == crc32(b"hello")
    assert got.xml.find("ObjectParts") is None
    for header in ({}, {"x-amz-object-attributes": "Nonsense"}):
        error = await client.refused("GET", "/bkt/k", "attributes", headers=header)
        assert error.code == "InvalidArgument"


async def test_an_object_has_no_tags(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"hello")
    assert (await client("GET", "/bkt/k", "tagging")).texts("TagSet/Tag") == []
    assert (await client.refused("PUT", "/bkt/k", "tagging", body=b"<x/>")).code == "NotImplemented"


async def test_a_part_number_of_a_plain_object(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"hello")
    got = await client("GET", "/bkt/k", "partNumber=1")
    assert (got.status, got.body) == (206, b"hello")
    assert "x-amz-mp-parts-count" not in got.headers
    assert (await client.refused("GET", "/bkt/k", "partNumber=2")).code == "InvalidPartNumber"
    for nonsense in ("0", "10001", "x", "-1"):
        error = await client.refused("GET", "/bkt/k", f"partNumber={nonsense}")
        assert error.code == "InvalidArgument"
    error = await client.refused("GET", "/bkt/k", "partNumber=1", headers={"Range": "bytes=0-1"})
    assert error.code == "InvalidRequest"
