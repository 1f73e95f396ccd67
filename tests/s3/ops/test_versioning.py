"""Versions in S3's words: the bucket's configuration, ids in headers, markers, listings, and many deletions at once."""

import pytest

from s3.ops import HANDLERS
from s3.ops.versioning import parse_versioning
from tests.s3.client import Answer, Client, md5_header
from tests.s3.ops.test_multipart import begin, listing, part

VERSION = "x-amz-version-id"
MARKER = "x-amz-delete-marker"
UNKNOWN = "0" * 32


def configuration(status: str, more: str = "") -> bytes:
    return f"<VersioningConfiguration><Status>{status}</Status>{more}</VersioningConfiguration>".encode()


async def configure(client: Client, status: str) -> None:
    await client("PUT", "/bkt", "versioning", body=configuration(status))


@pytest.fixture
async def client() -> Client:
    """A bucket that keeps versions, with a key of before: its null version."""
    made = Client()
    await made("PUT", "/bkt")
    await made.put("/bkt/k", b"before")
    await configure(made, "Enabled")
    return made


async def versions(client: Client, query: str = "") -> Answer:
    return await client("GET", "/bkt", f"versions&{query}")


def rows(answer: Answer) -> list[tuple[str, str, str, str]]:
    """Kind, key, version id and whether it is the latest, in order."""
    return [
        (
            row.tag,
            row.findtext("Key") or "",
            row.findtext("VersionId") or "",
            row.findtext("IsLatest") or "",
        )
        for row in answer.xml
        if row.tag in {"Version", "DeleteMarker"}
    ]


async def test_the_configuration_of_a_bucket() -> None:
    client = Client()
    await client("PUT", "/bkt")
    assert (await client("GET", "/bkt", "versioning")).text("Status") is None
    for status in ("Suspended", "Enabled", "Suspended"):
        await configure(client, status)
        assert (await client("GET", "/bkt", "versioning")).text("Status") == status
    for body, code in (
        (b"", "MissingRequestBodyError"),
        (b"<VersioningConfiguration/>", "IllegalVersioningConfigurationException"),
        (configuration("enabled"), "MalformedXML"),
        (configuration("Disabled"), "MalformedXML"),
        (configuration("Enabled", "<MfaDelete>Enabled</MfaDelete>"), "NotImplemented"),
        (configuration("Enabled", "<MfaDelete>maybe</MfaDelete>"), "MalformedXML"),
    ):
        assert (await client.refused("PUT", "/bkt", "versioning", body=body)).code == code
    assert (await client("GET", "/bkt", "versioning")).text("Status") == "Suspended"
    assert parse_versioning(configuration("Enabled", "<MfaDelete>Disabled</MfaDelete>"))
    refused = await client.refused("PUT", "/no-such", "versioning", body=configuration("Enabled"))
    assert refused.code == "NoSuchBucket"
    assert {"PutBucketVersioning", "GetBucketVersioning"} <= HANDLERS.keys()


async def test_every_version_is_named_and_read_by_its_name(client: Client) -> None:
    first = (await client.put("/bkt/k", b"first")).headers[VERSION]
    second = (await client.put("/bkt/k", b"second")).headers[VERSION]
    assert first != second
    current = await client("GET", "/bkt/k")
    assert (current.body, current.headers[VERSION]) == (b"second", second)
    for name, body in ((first, b"first"), (second, b"second"), ("null", b"before")):
        got = await client("GET", "/bkt/k", f"versionId={name}")
        assert (got.body, got.headers[VERSION]) == (body, name)
        head = await client("HEAD", "/bkt/k", f"versionId={name}")
        assert (head.length, head.headers[VERSION]) == (len(body), name)
        wanted = {"x-amz-object-attributes": "ObjectSize"}
        facts = await client("GET", "/bkt/k", f"attributes&versionId={name}", headers=wanted)
        assert (facts.text("ObjectSize"), facts.headers[VERSION]) == (str(len(body)), name)
        assert (await client("GET", "/bkt/k", f"tagging&versionId={name}")).headers[VERSION] == name
    error = await client.refused("GET", "/bkt/k", f"versionId={UNKNOWN}")
    assert (error.code, error.fields) == ("NoSuchVersion", {"Key": "k", "VersionId": UNKNOWN})
    not_modified = await client.refused("GET", "/bkt/k", headers={"If-None-Match": "*"})
    assert (b"x-amz-version-id", second.encode()) in not_modified.headers
    assert (await client.refused("PUT", "/bkt/k", f"versionId={first}")).code == "InvalidArgument"


async def test_a_bucket_that_never_kept_versions_names_none() -> None:
    client = Client()
    await client("PUT", "/bkt")
    answers = [
        await client.put("/bkt/k", b"x"),
        await client("GET", "/bkt/k"),
        await client("HEAD", "/bkt/k"),
        await client("PUT", "/bkt/l", headers={"x-amz-copy-source": "bkt/k"}),
        await client("DELETE", "/bkt/k"),
    ]
    for answer in answers:
        assert not {VERSION, MARKER, "x-amz-copy-source-version-id"} & answer.headers.keys()


async def test_a_deletion_inserts_a_marker_and_its_deletion_brings_the_object_back(
    client: Client,
) -> None:
    kept = (await client.put("/bkt/k", b"kept")).headers[VERSION]
    deleted = await client("DELETE", "/bkt/k")
    marker = deleted.headers[VERSION]
    assert (deleted.status, deleted.headers[MARKER]) == (204, "true")
    for method in ("GET", "HEAD"):
        error = await client.refused(method, "/bkt/k")
        assert (error.status, error.code) == (404, "NoSuchKey")
        assert dict(error.headers) == {
            b"x-amz-delete-marker": b"true", b"x-amz-version-id": marker.encode(),
        }  # fmt: skip
        error = await client.refused(method, "/bkt/k", f"versionId={marker}")
        headers = dict(error.headers)
        assert (error.status, error.code) == (405, "MethodNotAllowed")
        assert (headers[b"Allow"], headers[b"x-amz-delete-marker"]) == (b"DELETE", b"true")
        assert b"Last-Modified" in headers
    assert (await client("GET", "/bkt/k", f"versionId={kept}")).body == b"kept"
    assert (await client("GET", "/bkt", "list-type=2")).texts("Contents/Key") == []
    again = await client("DELETE", "/bkt/k", f"versionId={marker}")
    assert (again.headers[VERSION], again.headers[MARKER]) == (marker, "true")
    gone = await client("DELETE", "/bkt/k", f"versionId={marker}")
    assert (gone.headers[VERSION], gone.headers.get(MARKER)) == (marker, None)
    assert (await client("GET", "/bkt/k")).headers[VERSION] == kept
    plain = await client("DELETE", "/bkt/k", f"versionId={kept}")
    assert (plain.headers[VERSION], plain.headers.get(MARKER)) == (kept, None)
    assert (await client("GET", "/bkt/k")).body == b"before"


async def test_a_suspended_bucket_writes_and_marks_the_null_version(client: Client) -> None:
    kept = (await client.put("/bkt/k", b"kept")).headers[VERSION]
    await configure(client, "Suspended")
    for body in (b"one", b"two"):
        assert (await client.put("/bkt/k", body)).headers[VERSION] == "null"
    assert (await client("GET", "/bkt/k", "versionId=null")).body == b"two"
    deleted = await client("DELETE", "/bkt/k")
    assert (deleted.headers[VERSION], deleted.headers[MARKER]) == ("null", "true")
    assert rows(await versions(client)) == [
        ("DeleteMarker", "k", "null", "true"),
        ("Version", "k", kept, "false"),
    ]
    assert (await client.refused("GET", "/bkt/k", "versionId=null")).code == "MethodNotAllowed"
    await client("DELETE", "/bkt/k", "versionId=null")
    assert (await client("GET", "/bkt/k")).body == b"kept"


async def test_conditions_are_about_the_current_version(client: Client) -> None:
    await client("DELETE", "/bkt/k")
    error = await client.refused("PUT", "/bkt/k", headers={"If-Match": "*"})
    assert error.code == "NoSuchKey"
    await client("PUT", "/bkt/k", body=b"new", headers={"If-None-Match": "*"})
    error = await client.refused("PUT", "/bkt/k", headers={"If-None-Match": "*"})
    assert error.code == "PreconditionFailed"
    error = await client.refused("DELETE", "/bkt/k", headers={"If-Match": '"other"'})
    assert error.code == "PreconditionFailed"


async def test_a_version_is_copied_and_restored(client: Client) -> None:
    old = (await client.put("/bkt/k", b"old", x_amz_meta_age="old")).headers[VERSION]
    new = (await client.put("/bkt/k", b"new")).headers[VERSION]
    source = {"x-amz-copy-source": f"bkt/k?versionId={old}"}
    copied = await client("PUT", "/bkt/k", headers=source)
    assert copied.headers["x-amz-copy-source-version-id"] == old
    assert copied.headers[VERSION] not in {old, new}
    restored = await client("GET", "/bkt/k")
    assert (restored.body, restored.headers["x-amz-meta-age"]) == (b"old", "old")
    marker = (await client("DELETE", "/bkt/k")).headers[VERSION]
    for source, code in (
        ("bkt/k", "NoSuchKey"),
        (f"bkt/k?versionId={marker}", "InvalidRequest"),
        (f"bkt/k?versionId={UNKNOWN}", "NoSuchVersion"),
        ("bkt/k?versionId=x", "InvalidArgument"),
    ):
        error = await client.refused("PUT", "/bkt/l", headers={"x-amz-copy-source": source})
        assert error.code == code
    upload = await begin(client, "whole")
    query = f"partNumber=1&uploadId={upload}"
    answer = await client(
        "PUT", "/bkt/whole", query, headers={"x-amz-copy-source": f"bkt/k?versionId={new}"}
    )
    assert answer.headers["x-amz-copy-source-version-id"] == new
    done = await client(
        "POST", "/bkt/whole", f"uploadId={upload}", body=listing((1, answer.text("ETag")))
    )
    assert (await client("GET", "/bkt/whole")).headers[VERSION] == done.headers[VERSION]
    assert (await client("GET", "/bkt/whole")).body == b"new"


async def test_an_upload_makes_a_version_beside_the_others(client: Client) -> None:
    upload = await begin(client, "k")
    tag = (await part(client, upload, 1, b"whole", "k")).headers["etag"]
    body = listing((1, tag))
    done = await client("POST", "/bkt/k", f"uploadId={upload}", body=body)
    again = await client("POST", "/bkt/k", f"uploadId={upload}", body=body)
    assert done.headers[VERSION] == again.headers[VERSION]
    assert (await client("GET", "/bkt/k")).body == b"whole"
    assert (await client("GET", "/bkt/k", "versionId=null")).body == b"before"


async def test_versions_are_listed_newest_first_in_pages(client: Client) -> None:
    expected = [("Version", "k", "null", "false")]
    for body in (b"1", b"2", b"3"):
        expected.insert(
            0, ("Version", "k", (await client.put("/bkt/k", body)).headers[VERSION], "false")
        )
    marker = (await client("DELETE", "/bkt/k")).headers[VERSION]
    expected.insert(0, ("DeleteMarker", "k", marker, "true"))
    for key in ("a b", "x/1", "x/2"):
        made = (await client.put(f"/bkt/{key}", b"")).headers[VERSION]
        row = ("Version", key, made, "true")
        expected = [row, *expected] if key == "a b" else [*expected, row]
    assert rows(await versions(client)) == expected
    for size in (1, 2, 3):
        seen, query = [], f"max-keys={size}"
        while True:
            page = await versions(client, query)
            assert len(rows(page)) <= size
            seen += rows(page)
            if page.text("IsTruncated") == "false":
                break
            markers = (
                (page.text("NextKeyMarker") or "").replace(" ", "%20"),
                page.text("NextVersionIdMarker"),
            )
            assert rows(page)[-1][2] in {markers[1], "null"}
            query = f"max-keys={size}&key-marker={markers[0]}&version-id-marker={markers[1]}"
        assert seen == expected
    rolled = await versions(client, "delimiter=/&encoding-type=url")
    assert rolled.texts("CommonPrefixes/Prefix") == ["x/"]
    assert rolled.texts("Version/Key")[0] == "a%20b"
    cut = await versions(client, "delimiter=/&max-keys=1&key-marker=k")
    assert (cut.texts("CommonPrefixes/Prefix"), cut.text("IsTruncated")) == (["x/"], "false")
    assert rows(await versions(client, "key-marker=k")) == expected[-2:]
    assert rows(await versions(client, "prefix=x/2")) == expected[-1:]
    assert rows(await versions(client, "max-keys=0")) == []
    for query in ("version-id-marker=null", "key-marker=k&version-id-marker=other"):
        error = await client.refused("GET", "/bkt", f"versions&{query}")
        assert error.code == "InvalidArgument"


async def test_many_versions_are_deleted_at_once(client: Client) -> None:
    data = (await client.put("/bkt/k", b"x")).headers[VERSION]
    marker = (await client("DELETE", "/bkt/k")).headers[VERSION]
    names = [
        ("k", data),
        ("k", marker),
        ("k", "null"),
        ("k", UNKNOWN),
        ("k", "other"),
        ("new", None),
    ]
    objects = "".join(
        f"<Object><Key>{key}</Key>{f'<VersionId>{name}</VersionId>' if name else ''}</Object>"
        for key, name in names
    )
    body = f"<Delete>{objects}</Delete>".encode()
    done = await client("POST", "/bkt", "delete", body=body, headers=md5_header(body))
    facts = [
        tuple(
            row.findtext(name)
            for name in ("Key", "VersionId", "DeleteMarker", "DeleteMarkerVersionId")
        )
        for row in done.xml.findall("Deleted")
    ]
    inserted = facts[-1][3]
    assert facts == [
        ("k", data, None, None),
        ("k", marker, "true", marker),
        ("k", "null", None, None),
        ("k", UNKNOWN, None, None),
        ("new", None, "true", inserted),
    ]
    assert done.texts("Error/Code") == ["InvalidArgument"]
    assert rows(await versions(client)) == [("DeleteMarker", "new", inserted, "true")]
    assert (await client.refused("DELETE", "/bkt")).code == "BucketNotEmpty"
    await client("DELETE", "/bkt/new", f"versionId={inserted}")
    await client("DELETE", "/bkt")


async def test_a_key_that_holds_as_many_versions_as_it_can_says_so(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.register.mutations.MAX_VERSIONS", 2)
    await client.put("/bkt/k", b"x")
    error = await client.refused("PUT", "/bkt/k")
    assert (error.status, error.code) == (400, "InvalidRequest")
    assert "2 versions" in error.message
