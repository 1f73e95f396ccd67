"""CopyObject and DeleteObjects over an Objects in memory."""

import base64
import zlib

import pytest

from cluster.errors import UnavailableError
from cluster.objects.model import Bucket, PutRequest, Version
from s3.errors import S3Error
from s3.ops.copying import parse_source
from tests.s3.client import Client, etag, md5_header
from tests.s3.fake_objects import FakeObjects


@pytest.fixture
async def client() -> Client:
    client = Client()
    await client("PUT", "/bkt")
    await client("PUT", "/other")
    return client


async def copy(client: Client, source: str, path: str, **headers: str) -> str | None:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client("PUT", path, headers={"x-amz-copy-source": source, **sent})
    assert answer.status == 200
    return answer.text("ETag")


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_a_copy_has_the_bytes_and_the_metadata(client: Client, size: int) -> None:
    body = b"7" * size
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    headers = {"x-amz-meta-a": "1", "content-type": "text/x", "x-amz-checksum-crc32": checksum}
    await client("PUT", "/bkt/a b+c", body=body, headers=headers)
    tag = await copy(client, "bkt/a+b%2Bc", "/other/k", x_amz_meta_a="ignored")
    assert tag == etag(body)
    got = await client("GET", "/other/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert got.body == body
    assert (got.headers["x-amz-meta-a"], got.headers["content-type"]) == ("1", "text/x")
    assert got.headers["x-amz-checksum-crc32"] == checksum
    assert client.objects.open_readers == 0


async def test_a_copy_may_replace_the_metadata(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"x", headers={"x-amz-meta-a": "1"})
    await copy(client, "/bkt/k", "/bkt/k", x_amz_metadata_directive="REPLACE", x_amz_meta_b="2")
    got = (await client("HEAD", "/bkt/k")).headers
    assert got["x-amz-meta-b"] == "2"
    assert "x-amz-meta-a" not in got
    error = await client.refused("PUT", "/bkt/k", headers={"x-amz-copy-source": "bkt/k"})
    assert error.code == "InvalidRequest"
    await copy(client, "bkt/k", "/bkt/k", x_amz_storage_class="STANDARD_IA")
    got = (await client("HEAD", "/bkt/k")).headers
    assert (got["x-amz-meta-b"], got["x-amz-storage-class"]) == ("2", "STANDARD_IA")


async def test_conditions_of_a_copy(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"x")
    for name, value in (
        ("x-amz-copy-source-if-match", '"y"'),
        ("x-amz-copy-source-if-none-match", etag(b"x")),
        ("x-amz-copy-source-if-modified-since", "Fri, 01 Jan 2038 00:00:00 GMT"),
        ("x-amz-copy-source-if-unmodified-since", "Thu, 01 Jan 1998 00:00:00 GMT"),
    ):
        headers = {"x-amz-copy-source": "bkt/k", name: value}
        assert (await client.refused("PUT", "/bkt/l", headers=headers)).status == 412
    await copy(client, "bkt/k", "/bkt/l", if_none_match="*")
    headers = {"x-amz-copy-source": "bkt/k", "if-none-match": "*"}
    assert (await client.refused("PUT", "/bkt/l", headers=headers)).status == 412
    assert client.objects.open_readers == 0


async def test_what_cannot_be_copied(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"x")
    for source, code in (
        ("bkt/missing", "NoSuchKey"),
        ("nosuch/k", "NoSuchBucket"),
        ("bkt", "InvalidArgument"),
        ("bkt/k?versionId=abc", "InvalidArgument"),
        (f"bkt/k?versionId={'0' * 32}", "NoSuchVersion"),
    ):
        error = await client.refused("PUT", "/bkt/l", headers={"x-amz-copy-source": source})
        assert error.code == code
    headers = {"x-amz-copy-source": "bkt/k", "x-amz-metadata-directive": "MERGE"}
    assert (await client.refused("PUT", "/bkt/l", headers=headers)).code == "InvalidArgument"
    headers = {"x-amz-copy-source": "bkt/k", "x-amz-source-expected-bucket-owner": "else"}
    assert (await client.refused("PUT", "/bkt/l", headers=headers)).code == "AccessDenied"
    headers = {"x-amz-copy-source": "bkt/k"}
    assert (await client.refused("PUT", "/nosuch/l", headers=headers)).code == "NoSuchBucket"
    assert client.objects.open_readers == 0


class Unavailable(FakeObjects):
    async def put(self, bucket: Bucket, key: bytes, request: PutRequest) -> Version:
        if key == b"fails":
            await request.source.readinto(memoryview(bytearray(10)))
            raise UnavailableError("too few drives")
        return await super().put(bucket, key, request)


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_copy_that_fails_gives_its_buffers_back(size: int) -> None:
    client = Client(Unavailable())
    await client("PUT", "/bkt")
    await client("PUT", "/bkt/k", body=bytes(size))
    error = await client.refused("PUT", "/bkt/fails", headers={"x-amz-copy-source": "bkt/k"})
    assert error.code == "ServiceUnavailable"
    assert client.objects.open_readers == 0


@pytest.mark.parametrize(
    ("header", "bucket", "key"),
    [
        ("bkt/k", "bkt", b"k"),
        ("/bkt/k", "bkt", b"k"),
        ("/bkt//k", "bkt", b"/k"),
        ("bkt/a%20b%2Bc+d", "bkt", b"a b+c d"),
        ("%2Fbkt%2Fa%2Fb?versionId=null", "bkt", b"a/b"),
        ("bkt/%E2%82%AC%3F", "bkt", "€?".encode()),
    ],
)
def test_the_source_of_a_copy(header: str, bucket: str, key: bytes) -> None:
    found = parse_source(header)
    assert (found.bucket, found.key) == (bucket, key)


@pytest.mark.parametrize("header", ["", "/", "b", "bkt/", "//", "Bkt/k", "bkt/%ff", "bkt/k?a=b"])
def test_a_source_that_is_none(header: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_source(header)
    assert caught.value.code == ("InvalidURI" if "%ff" in header else "InvalidArgument")


def listing(*keys: str, quiet: bool = False, inner: str = "") -> bytes:
    objects = "".join(f"<Object><Key>{key}</Key>{inner}</Object>" for key in keys)
    return f"<Delete><Quiet>{str(quiet).lower()}</Quiet>{objects}</Delete>".encode()


async def test_many_keys_are_deleted(client: Client) -> None:
    for key in ("a", "b c", "d&amp;e", "stays"):
        await client("PUT", "/bkt/" + key.replace("&amp;", "&"), body=b"x")
    body = listing("a", "b c", "d&amp;e", "never there")
    done = await client("POST", "/bkt", "delete", body=body, headers=md5_header(body))
    assert done.texts("Deleted/Key") == ["a", "b c", "d&e", "never there"]
    assert done.texts("Error/Key") == []
    assert (await client("GET", "/bkt")).texts("Contents/Key") == ["stays"]
    body = listing("stays", quiet=True)
    done = await client("POST", "/bkt", "delete", body=body, headers=md5_header(body))
    assert done.texts("Deleted/Key") == []
    assert (await client("GET", "/bkt")).texts("Contents/Key") == []


async def test_each_key_has_its_own_outcome(client: Client) -> None:
    await client("PUT", "/bkt/a", body=b"x")
    await client("PUT", "/bkt/b", body=b"y")
    long = "k" * 1025
    body = listing("a", "b", "c", long, inner=f"<ETag>{etag(b'x')}</ETag>")
    done = await client("POST", "/bkt", "delete", body=body, headers=md5_header(body))
    assert done.texts("Deleted/Key") == ["a", "c"]
    assert done.texts("Error/Key") == ["b", long]
    assert done.texts("Error/Code") == ["PreconditionFailed", "KeyTooLongError"]


async def test_a_condition_that_is_not_known_deletes_nothing(client: Client) -> None:
    await client("PUT", "/bkt/a", body=b"x")
    body = listing("a", inner="<Size>7</Size>")
    done = await client("POST", "/bkt", "delete", body=body, headers=md5_header(body))
    assert done.texts("Error/Code") == ["NotImplemented"]
    assert (await client("GET", "/bkt/a")).body == b"x"


async def test_lists_of_keys_that_are_refused(client: Client) -> None:
    body = listing("a")
    assert (await client.refused("POST", "/bkt", "delete", body=body)).code == "InvalidRequest"
    for body in (
        b"",
        b"<Delete/>",
        b"<Delete><Object/></Delete>",
        listing(*"a" * 1001),
        b"<D",
        b"\xff",
    ):
        error = await client.refused("POST", "/bkt", "delete", body=body, headers=md5_header(body))
        assert error.code == "MalformedXML"
    body = listing("a")
    error = await client.refused("POST", "/nosuch", "delete", body=body, headers=md5_header(body))
    assert error.code == "NoSuchBucket"
    most = listing(*(f"k{i}" for i in range(1000)))
    done = await client("POST", "/bkt", "delete", body=most, headers=md5_header(most))
    assert len(done.texts("Deleted/Key")) == 1000
