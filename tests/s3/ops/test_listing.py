"""Listings: order, pages, prefixes and encodings, for every pagination that clients use."""

from urllib.parse import quote, unquote

import pytest
import trio
from hypothesis import given, strategies as st

from s3.errors import S3Error
from s3.ops.listing import decode_token, encode_token
from tests.s3.client import Client, etag

NAMES = st.text(alphabet="ab/-é", min_size=1, max_size=5)


@pytest.fixture
async def client() -> Client:
    client = Client()
    await client("PUT", "/bkt")
    return client


async def fill(client: Client, *keys: str) -> None:
    for key in keys:
        await client("PUT", f"/bkt/{key}", body=b"x")


def rows(answer: object, contents: str = "Contents") -> list[str]:
    names = answer.texts(f"{contents}/Key") + answer.texts("CommonPrefixes/Prefix")  # type: ignore[attr-defined]
    return [unquote(name) for name in names]


def expected(keys: set[str], prefix: str, delimiter: str) -> set[str]:
    found = set()
    for key in keys:
        if key.startswith(prefix):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            found.add(key if cut < 0 else key[: cut + len(delimiter)])
    return found


@given(
    st.sets(NAMES, max_size=8), st.sampled_from(["", "a", "a/", "/"]), st.sampled_from(["", "/", "a"]), st.integers(1, 4),
    st.sampled_from(["v1", "v2", "versions"]),
)  # fmt: skip
def test_pages_together_are_the_whole(
    keys: set[str], prefix: str, delimiter: str, limit: int, form: str
) -> None:
    async def main() -> None:
        client = Client()
        await client("PUT", "/bkt")
        await fill(client, *keys)
        base = f"encoding-type=url&prefix={quote(prefix)}&delimiter={quote(delimiter)}&max-keys={limit}"
        seen: list[str] = []
        query = ""
        while True:
            match form:
                case "v1":
                    page = await client("GET", "/bkt", base + query)
                    found = rows(page)
                    marker = page.text("NextMarker")
                    assert (marker is not None) == (
                        page.text("IsTruncated") == "true" and delimiter != ""
                    )
                    query = f"&marker={marker or quote(max(found, key=str.encode, default=''))}"
                case "v2":
                    page = await client("GET", "/bkt", "list-type=2&" + base + query)
                    found = rows(page)
                    assert page.text("KeyCount") == str(len(found))
                    query = f"&continuation-token={page.text('NextContinuationToken')}"
                case _:
                    page = await client("GET", "/bkt", "versions&" + base + query)
                    found = rows(page, "Version")
                    query = f"&key-marker={page.text('NextKeyMarker')}"
                    if page.text("NextVersionIdMarker"):
                        query += "&version-id-marker=null"
            assert len(found) <= limit
            seen += found
            if page.text("IsTruncated") == "false":
                break
            assert len(found) == limit
        assert len(seen) == len(set(seen))
        assert set(seen) == expected(keys, prefix, delimiter)

    trio.run(main)


async def test_a_listing_tells_what_clients_need(client: Client) -> None:
    await fill(client, "b", "a/1", "a/2", "c d&e")
    page = await client("GET", "/bkt", "list-type=2&delimiter=/&fetch-owner=true")
    assert page.texts("Contents/Key") == ["b", "c d&e"]
    assert page.texts("Contents/ETag") == [etag(b"x")] * 2
    assert page.texts("Contents/Size") == ["1", "1"]
    assert page.texts("Contents/StorageClass") == ["STANDARD"] * 2
    assert page.texts("Contents/Owner/ID") == ["root"] * 2
    assert page.texts("CommonPrefixes/Prefix") == ["a/"]
    assert (page.text("Name"), page.text("KeyCount"), page.text("MaxKeys")) == ("bkt", "3", "1000")
    assert all(time.endswith("Z") and "." in time for time in page.texts("Contents/LastModified"))
    assert page.text("NextContinuationToken") is None
    page = await client("GET", "/bkt", "list-type=2")
    assert page.texts("Contents/Owner/ID") == []
    assert (await client("GET", "/bkt")).texts("Contents/Owner/ID") == ["root"] * 4


async def test_order_is_that_of_utf8_bytes(client: Client) -> None:
    keys = [
        "\U00010000",
        "\uffee",
        "z",
        "Z",
        "é",
        "a",
    ]  # UTF-16 would put the first before the second
    await fill(client, *keys)
    got = rows(await client("GET", "/bkt", "encoding-type=url"))
    assert got == sorted(keys, key=str.encode)


async def test_encoding_applies_to_names_and_not_to_tokens(client: Client) -> None:
    await fill(client, "a b/1", "a b/2+", "nul\x01")
    page = await client(
        "GET", "/bkt", "list-type=2&encoding-type=url&prefix=a%20b/&start-after=a%20b/1&delimiter=%7C"
    )  # fmt: skip
    assert page.texts("Contents/Key") == ["a%20b/2%2B"]
    assert page.text("Prefix") == "a%20b/"
    assert page.text("StartAfter") == "a%20b/1"
    assert page.text("Delimiter") == "%7C"
    assert page.text("EncodingType") == "url"
    assert "nul%01" in (await client("GET", "/bkt", "encoding-type=url")).texts("Contents/Key")
    plain = await client("GET", "/bkt", "prefix=nul")
    assert b"<Key>nul&#x1;</Key>" in plain.body
    assert (await client.refused("GET", "/bkt", "encoding-type=x")).code == "InvalidArgument"


async def test_limits_of_a_page(client: Client) -> None:
    await fill(client, "a", "b")
    page = await client("GET", "/bkt", "list-type=2&max-keys=0")
    assert (rows(page), page.text("IsTruncated"), page.text("KeyCount")) == ([], "false", "0")
    page = await client("GET", "/bkt", "list-type=2&max-keys=2")
    assert (rows(page), page.text("IsTruncated")) == (["a", "b"], "false")
    assert (await client("GET", "/bkt", "max-keys=5000")).text("MaxKeys") == "1000"
    for nonsense in ("-1", "x", "99999999999", "1.5"):
        error = await client.refused("GET", "/bkt", f"max-keys={nonsense}")
        assert error.code == "InvalidArgument"


async def test_start_after_counts_only_without_a_token(client: Client) -> None:
    await fill(client, "a", "b", "c")
    first = await client("GET", "/bkt", "list-type=2&start-after=a&max-keys=1")
    assert rows(first) == ["b"]
    token = first.text("NextContinuationToken")
    second = await client("GET", "/bkt", f"list-type=2&start-after=c&continuation-token={token}")
    assert (rows(second), second.text("ContinuationToken")) == (["c"], token)
    for nonsense in ("x", "", "AAAA"):
        error = await client.refused("GET", "/bkt", f"list-type=2&continuation-token={nonsense}")
        assert error.code == "InvalidArgument"


async def test_versions_of_a_bucket_without_versioning(client: Client) -> None:
    await fill(client, "a", "b/1")
    page = await client("GET", "/bkt", "versions&delimiter=/")
    assert page.texts("Version/Key") == ["a"]
    assert page.texts("Version/VersionId") == ["null"]
    assert page.texts("Version/IsLatest") == ["true"]
    assert page.texts("CommonPrefixes/Prefix") == ["b/"]
    error = await client.refused("GET", "/bkt", "versions&version-id-marker=null")
    assert error.code == "InvalidArgument"


async def test_a_missing_bucket(client: Client) -> None:
    for query in ("", "list-type=2", "versions", "uploads", "max-keys=0"):
        assert (await client.refused("GET", "/nosuch", query)).code == "NoSuchBucket"


async def test_names_that_are_not_utf8_still_give_a_document(client: Client) -> None:
    page = await client("GET", "/bkt", "prefix=%ff&marker=%fe&delimiter=%fd")
    assert page.texts("Contents/Key") == []


@given(st.binary(max_size=1100))
def test_tokens_come_back(resume: bytes) -> None:
    assert decode_token(encode_token(resume)) == resume


@given(st.text(max_size=60))
def test_a_token_is_checked(token: str) -> None:
    try:
        decode_token(token)
    except S3Error as error:
        assert error.code == "InvalidArgument"  # noqa: PT017
