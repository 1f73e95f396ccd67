"""Keys that a client wants its data encrypted with: refused by every operation, never taken for an ornament."""

import pytest

from tests.s3.client import Client
from tests.s3.ops.test_multipart import begin, listing, part

PREFIX = "x-amz-server-side-encryption-customer-"
HEADERS = (f"{PREFIX}algorithm", f"{PREFIX}key", f"{PREFIX}key-MD5")
SOURCE_HEADERS = tuple(name.replace("x-amz-", "x-amz-copy-source-", 1) for name in HEADERS)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize(
    ("method", "key", "query"),
    [
        ("GET", "k", ""), ("HEAD", "k", ""), ("GET", "k", "attributes"), ("PUT", "k", ""), ("POST", "k", "uploads"),
        ("PUT", "up", "partNumber=2&uploadId="), ("POST", "up", "uploadId="), ("GET", "up", "uploadId="),
    ],
)  # fmt: skip
async def test_a_key_of_the_customer_is_refused(
    method: str, key: str, query: str, header: str
) -> None:
    client = Client()
    await client("PUT", "/bkt")
    await client("PUT", "/bkt/k", body=b"there")
    upload = await begin(client, "up")
    tag = (await part(client, upload, 1, b"a", "up")).headers["etag"]
    query += upload if query.endswith("=") else ""
    headers = {header: "AES256", "x-amz-object-attributes": "ETag"}
    body = listing((1, tag)) if method == "POST" else b""
    error = await client.refused(method, f"/bkt/{key}", query, body=body, headers=headers)
    assert (error.code, error.fields) == ("NotImplemented", {"Header": header.lower()})
    assert (await client("GET", "/bkt/k")).body == b"there"
    assert (await client("GET", "/bkt/up", f"uploadId={upload}")).texts("Part/ETag") == [tag]


@pytest.mark.parametrize("header", HEADERS + SOURCE_HEADERS)
async def test_a_key_of_the_customer_is_refused_by_copies(header: str) -> None:
    client = Client()
    await client("PUT", "/bkt")
    await client("PUT", "/bkt/k", body=b"there")
    upload = await begin(client, "up")
    headers = {"x-amz-copy-source": "bkt/k", header: "AES256"}
    for key, query in (("copy", ""), ("up", f"partNumber=1&uploadId={upload}")):
        error = await client.refused("PUT", f"/bkt/{key}", query, headers=headers)
        assert (error.code, error.fields) == ("NotImplemented", {"Header": header.lower()})
    assert (await client("GET", "/bkt")).texts("Contents/Key") == ["k"]
    assert (await client("GET", "/bkt/up", f"uploadId={upload}")).texts("Part/ETag") == []
