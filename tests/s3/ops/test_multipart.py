"""Multipart uploads: parts, completion, and the ways both are refused, over an Objects in memory."""

import base64
import hashlib
import zlib

import pytest

from s3.ops.completing import MIN_PART_BYTES
from tests.s3.client import Answer, Client, etag

BIG = bytes(MIN_PART_BYTES)


@pytest.fixture
async def client() -> Client:
    client = Client()
    await client("PUT", "/bkt")
    return client


def crc32(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


async def begin(client: Client, key: str = "k", **headers: str) -> str:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    upload = (await client("POST", f"/bkt/{key}", "uploads", headers=sent)).text("UploadId")
    assert upload is not None
    return upload


async def part(client: Client, upload: str, number: int, body: bytes, key: str = "k") -> Answer:
    return await client(
        "PUT", f"/bkt/{key}", f"partNumber={number}&uploadId={upload}&x-id=UploadPart", body=body
    )


def listing(*parts: tuple[int, str], extra: str = "") -> bytes:
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag>{extra}</Part>" for number, tag in parts
    )  # fmt: skip
    return f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()


async def test_parts_become_one_object(client: Client) -> None:
    upload = await begin(client, content_type="text/plain", x_amz_meta_a="b")
    assert (await client.refused("GET", "/bkt/k")).code == "NoSuchKey"
    assert (await client("GET", "/bkt")).texts("Contents/Key") == []
    first = await part(client, upload, 2, BIG)
    assert first.headers["etag"] == etag(BIG)
    await part(client, upload, 9, b"tail")
    await part(client, upload, 5, b"never listed")
    body = listing((2, etag(BIG)), (9, etag(b"tail")))
    digests = hashlib.md5(BIG).digest() + hashlib.md5(b"tail").digest()
    wanted = f'"{hashlib.md5(digests).hexdigest()}-2"'
    for _ in range(2):  # a repetition gets the same answer
        done = await client("POST", "/bkt/k", f"uploadId={upload}", body=body)
        assert (done.status, done.text("ETag")) == (200, wanted)
        assert (done.text("Bucket"), done.text("Key")) == ("bkt", "k")
    got = await client("GET", "/bkt/k")
    assert got.body == BIG + b"tail"
    assert got.headers["etag"] == wanted
    assert got.headers["content-type"] == "text/plain"
    assert got.headers["x-amz-meta-a"] == "b"
    error = await client.refused("PUT", "/bkt/k", f"partNumber=1&uploadId={upload}", body=b"late")
    assert error.code == "NoSuchUpload"


async def test_a_part_of_the_object_is_read_by_number(client: Client) -> None:
    upload = await begin(client)
    await part(client, upload, 1, BIG)
    await part(client, upload, 2, b"tail")
    body = listing((1, etag(BIG)), (2, etag(b"tail")))
    await client("POST", "/bkt/k", f"uploadId={upload}", body=body)
    got = await client("GET", "/bkt/k", "partNumber=2")
    assert (got.status, got.body) == (206, b"tail")
    assert got.headers["x-amz-mp-parts-count"] == "2"
    assert got.headers["content-range"] == f"bytes {len(BIG)}-{len(BIG) + 3}/{len(BIG) + 4}"
    assert (await client("HEAD", "/bkt/k", "partNumber=1")).length == len(BIG)
    assert (await client.refused("GET", "/bkt/k", "partNumber=3")).code == "InvalidPartNumber"
    attributes = await client(
        "GET", "/bkt/k", "attributes", headers={"x-amz-object-attributes": "ObjectParts"}
    )
    assert attributes.text("ObjectParts/PartsCount") == "2"


async def test_the_last_upload_of_a_number_counts(client: Client) -> None:
    upload = await begin(client)
    await part(client, upload, 1, b"old")
    await part(client, upload, 1, b"new")
    error = await client.refused(
        "POST", "/bkt/k", f"uploadId={upload}", body=listing((1, etag(b"old")))
    )
    assert error.code == "InvalidPart"
    await client("POST", "/bkt/k", f"uploadId={upload}", body=listing((1, etag(b"new"))))
    assert (await client("GET", "/bkt/k")).body == b"new"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (listing(), "MalformedXML"),
        (b"", "MalformedXML"),
        (b"<Delete/>", "MalformedXML"),
        (listing((2, etag(b"b")), (1, etag(b"a"))), "InvalidPartOrder"),
        (listing((1, etag(b"a")), (1, etag(b"a"))), "InvalidPartOrder"),
        (listing((1, etag(b"b"))), "InvalidPart"),
        (listing((3, etag(b"a"))), "InvalidPart"),
        (listing((1, etag(b"a")), (2, etag(b"b"))), "EntityTooSmall"),
        (listing((0, etag(b"a"))), "InvalidArgument"),
        (listing((1, etag(b"a")), extra="<ChecksumCRC32>AAAAAA==</ChecksumCRC32>"), "InvalidPart"),
    ],
)
async def test_a_wrong_list_of_parts_changes_nothing(
    client: Client, body: bytes, code: str
) -> None:
    upload = await begin(client, x_amz_checksum_algorithm="CRC32")
    await part(client, upload, 1, b"a")
    await part(client, upload, 2, b"b")
    assert (await client.refused("POST", "/bkt/k", f"uploadId={upload}", body=body)).code == code
    await client("POST", "/bkt/k", f"uploadId={upload}", body=listing((1, etag(b"a"))))
    assert (await client("GET", "/bkt/k")).body == b"a"


@pytest.mark.parametrize("wrong", [(3, etag(b"a")), (2, etag(b"c"))])
async def test_a_part_that_is_not_there_is_named(client: Client, wrong: tuple[int, str]) -> None:
    upload = await begin(client, x_amz_checksum_algorithm="CRC32")
    await part(client, upload, 1, BIG)
    await part(client, upload, 2, b"b")
    body = listing((1, etag(BIG)), wrong)
    error = await client.refused("POST", "/bkt/k", f"uploadId={upload}", body=body)
    facts = {"UploadId": upload, "PartNumber": wrong[0], "ETag": wrong[1].strip('"')}
    assert (error.code, error.fields) == ("InvalidPart", facts)


@pytest.mark.parametrize("number", ["0", "10001", "x", ""])
async def test_part_numbers_have_limits(client: Client, number: str) -> None:
    upload = await begin(client)
    error = await client.refused("PUT", "/bkt/k", f"partNumber={number}&uploadId={upload}")
    assert error.code == "InvalidArgument"


@pytest.mark.parametrize(
    ("algorithm", "kind", "wanted"),
    [
        ("CRC32", "FULL_OBJECT", crc32(BIG + b"tail")),
        ("CRC32", "", None),
        ("crc64nvme", "", None),
        ("SHA256", "COMPOSITE", None),
    ],
)
async def test_the_checksum_of_an_upload(
    client: Client, algorithm: str, kind: str, wanted: str | None
) -> None:
    sent = {"x_amz_checksum_algorithm": algorithm}
    if kind:
        sent["x_amz_checksum_type"] = kind
    upload = await begin(client, **sent)
    first = await part(client, upload, 1, BIG)
    second = await part(client, upload, 2, b"tail")
    header = f"x-amz-checksum-{algorithm.lower()}"
    assert header in first.headers
    body = listing((1, etag(BIG)), (2, etag(b"tail")))
    error = await client.refused(
        "POST", "/bkt/k", f"uploadId={upload}", body=body, headers={header: crc32(b"else")}
    )
    assert error.code == "BadDigest"
    done = await client("POST", "/bkt/k", f"uploadId={upload}", body=body)
    value = done.text(f"Checksum{algorithm.upper()}")
    assert value is not None
    kind_told = done.text("ChecksumType")
    assert kind_told == ("COMPOSITE" if value.endswith("-2") else "FULL_OBJECT")
    if wanted is not None:
        assert value == wanted
    if algorithm == "SHA256":
        parts = b"".join(base64.b64decode(p.headers[header]) for p in (first, second))
        assert value == base64.b64encode(hashlib.sha256(parts).digest()).decode() + "-2"
    got = await client("HEAD", "/bkt/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert got.headers[header] == value


async def test_a_checksum_of_another_kind_is_not_ignored(client: Client) -> None:
    upload = await begin(client, x_amz_checksum_algorithm="CRC32")
    error = await client.refused(
        "PUT", "/bkt/k", f"partNumber=1&uploadId={upload}", body=b"a",
        headers={"x-amz-checksum-sha1": base64.b64encode(hashlib.sha1(b"a").digest()).decode()},
    )  # fmt: skip
    assert error.code == "InvalidRequest"
    await part(client, upload, 1, b"a")
    for header in (
        {"x-amz-checksum-crc32c": "AAAAAA=="},
        {"x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-mp-object-size": "2"},
    ):
        error = await client.refused(
            "POST", "/bkt/k", f"uploadId={upload}", body=listing((1, etag(b"a"))), headers=header
        )
        assert error.code == "InvalidRequest", header
    right = {"x-amz-mp-object-size": "1", "x-amz-checksum-type": "COMPOSITE"}
    body = listing((1, etag(b"a")))
    await client("POST", "/bkt/k", f"uploadId={upload}", body=body, headers=right)


async def test_an_upload_refuses_what_no_algorithm_has(client: Client) -> None:
    for headers in (
        {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-algorithm": "SHA1", "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-algorithm": "MD4"},
        {"x-amz-checksum-type": "FULL_OBJECT"},
    ):
        error = await client.refused("POST", "/bkt/k", "uploads", headers=headers)
        assert error.code == "InvalidRequest", headers


async def test_conditions_of_a_completion(client: Client) -> None:
    await client("PUT", "/bkt/k", body=b"there")
    upload = await begin(client)
    await part(client, upload, 1, b"a")
    body = listing((1, etag(b"a")))
    for header in ({"If-None-Match": "*"}, {"If-Match": '"other"'}):
        error = await client.refused(
            "POST", "/bkt/k", f"uploadId={upload}", body=body, headers=header
        )
        assert error.code == "PreconditionFailed"
        assert error.fields == {"Condition": next(iter(header))}
    right = {"If-Match": etag(b"there")}
    await client("POST", "/bkt/k", f"uploadId={upload}", body=body, headers=right)
    assert (await client("GET", "/bkt/k")).body == b"a"


async def test_an_aborted_upload_is_gone(client: Client) -> None:
    upload = await begin(client)
    await part(client, upload, 1, b"a")
    assert (await client("DELETE", "/bkt/k", f"uploadId={upload}")).status == 204
    body = listing((1, etag(b"a")))
    for method, query, sent in (
        ("DELETE", "", b""), ("GET", "", b""), ("POST", "", body), ("PUT", "partNumber=1&", b"a"),
    ):  # fmt: skip
        error = await client.refused(method, "/bkt/k", f"{query}uploadId={upload}", body=sent)
        assert (error.code, error.fields) == ("NoSuchUpload", {"UploadId": upload})
    assert (await client.refused("GET", "/bkt/k", "uploadId=nonsense")).code == "NoSuchUpload"


async def test_parts_are_listed_by_page(client: Client) -> None:
    upload = await begin(client, x_amz_checksum_algorithm="CRC32")
    for number in (1, 3, 7):
        await part(client, upload, number, b"%d" % number)
    page = await client("GET", "/bkt/k", f"uploadId={upload}&max-parts=2")
    assert page.texts("Part/PartNumber") == ["1", "3"]
    assert page.texts("Part/ETag") == [etag(b"1"), etag(b"3")]
    assert page.texts("Part/ChecksumCRC32") == [crc32(b"1"), crc32(b"3")]
    assert (page.text("IsTruncated"), page.text("NextPartNumberMarker")) == ("true", "3")
    page = await client("GET", "/bkt/k", f"uploadId={upload}&part-number-marker=3")
    assert page.texts("Part/PartNumber") == ["7"]
    assert page.text("IsTruncated") == "false"
    none = await client("GET", "/bkt/k", f"uploadId={upload}&max-parts=0")
    assert (none.texts("Part/PartNumber"), none.text("IsTruncated")) == ([], "false")


async def uploads(client: Client, query: str) -> tuple[Answer, list[tuple[str, str]]]:
    page = await client("GET", "/bkt", "uploads&" + query)
    rows = list(zip(page.texts("Upload/Key"), page.texts("Upload/UploadId"), strict=True))
    return page, rows


async def test_uploads_are_listed_by_key_and_age(client: Client) -> None:
    made = [(key, await begin(client, key)) for key in ("b", "a/1", "b", "a/2", "b")]
    wanted = sorted(made, key=lambda row: row[0])
    _, rows = await uploads(client, "")
    assert rows == wanted
    seen: list[tuple[str, str]] = []
    query = "max-uploads=1"
    while True:
        page, rows = await uploads(client, query)
        seen += rows
        if page.text("IsTruncated") == "false":
            break
        query = (
            f"max-uploads=1&key-marker={page.text('NextKeyMarker')}"
            f"&upload-id-marker={page.text('NextUploadIdMarker')}"
        )
    assert seen == wanted
    page, rows = await uploads(client, "delimiter=/")
    assert [key for key, _ in rows] == ["b", "b", "b"]
    assert page.texts("CommonPrefixes/Prefix") == ["a/"]
    page, rows = await uploads(client, "prefix=a/&delimiter=/")
    assert [key for key, _ in rows] == ["a/1", "a/2"]
    page, rows = await uploads(client, "key-marker=a/1")
    assert [key for key, _ in rows] == ["a/2", "b", "b", "b"]
    page, rows = await uploads(client, "max-uploads=0")
    assert (rows, page.text("IsTruncated")) == ([], "false")


async def test_aborting_page_by_page_reaches_every_upload(client: Client) -> None:
    for _ in range(5):
        await begin(client, "same")
    query = ""
    for _ in range(10):
        page, rows = await uploads(client, "max-uploads=2" + query)
        for key, upload in rows:
            await client("DELETE", f"/bkt/{key}", f"uploadId={upload}")
        if page.text("IsTruncated") == "false":
            break
        query = (
            f"&key-marker={page.text('NextKeyMarker')}"
            f"&upload-id-marker={page.text('NextUploadIdMarker')}"
        )
    assert (await uploads(client, ""))[1] == []


async def test_copying_into_parts(client: Client) -> None:
    await client("PUT", "/bkt/source", body=BIG + b"tail")
    upload = await begin(client, x_amz_checksum_algorithm="CRC32")
    end = len(BIG)
    copied = []
    for number, span in ((1, f"bytes=0-{end - 1}"), (2, f"bytes={end}-{end + 3}")):
        answer = await client(
            "PUT", "/bkt/k", f"partNumber={number}&uploadId={upload}",
            headers={"x-amz-copy-source": "/bkt/source", "x-amz-copy-source-range": span},
        )  # fmt: skip
        copied.append((number, answer.text("ETag") or ""))
        assert answer.text("ChecksumCRC32") == crc32(BIG if number == 1 else b"tail")
    await client("POST", "/bkt/k", f"uploadId={upload}", body=listing(*copied))
    assert (await client("GET", "/bkt/k")).body == BIG + b"tail"
    assert client.objects.open_readers == 0
    upload = await begin(client)
    for span, code in (
        (f"bytes=0-{end + 4}", "InvalidRange"), ("bytes=3-", "InvalidArgument"), ("bytes=3-1", "InvalidRange"),
    ):  # fmt: skip
        error = await client.refused(
            "PUT", "/bkt/k", f"partNumber=1&uploadId={upload}",
            headers={"x-amz-copy-source": "bkt/source", "x-amz-copy-source-range": span},
        )  # fmt: skip
        assert error.code == code
