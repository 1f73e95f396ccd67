"""Signatures: AWS's published examples, botocore's word against ours, and every way to be refused."""

import datetime as dt

import attrs
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given, strategies as st

from s3.errors import S3Error
from s3.messages import Headers, RequestHead
from s3.sigv4 import EMPTY_SHA256, parse, query_pairs, sign_request, verify

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
DAY = dt.datetime(2013, 5, 24, tzinfo=dt.UTC).timestamp()


def head_of(method, target, headers):
    path, _, query = target.encode().partition(b"?")
    return RequestHead(
        method=method, path=path, query=query, remote="127.0.0.1",
        headers=Headers((name.lower().encode(), value.encode()) for name, value in headers),
    )  # fmt: skip


def check(head, *, now=DAY, secret=SECRET, region="us-east-1", access=ACCESS):
    signed = parse(head, query_pairs(head.query))
    if signed is None:
        return None
    return verify(
        head,
        signed,
        secret_of=lambda key: secret if key == access else None,
        region=region,
        now=now,
    )


# "Examples: Signature Calculations", S3 API reference
EXAMPLE = head_of(
    "GET",
    "/test.txt",
    [
        ("Host", "examplebucket.s3.amazonaws.com"),
        (
            "Authorization",
            (
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
                "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
                "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
            ),
        ),
        ("Range", "bytes=0-9"),
        ("x-amz-content-sha256", EMPTY_SHA256),
        ("x-amz-date", "20130524T000000Z"),
    ],
)


def test_the_published_header_example_is_accepted():
    assert check(EXAMPLE).access_key == ACCESS


def test_the_published_presigned_example_is_accepted():
    target = (
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F"
        "aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    head = head_of("GET", target, [("Host", "examplebucket.s3.amazonaws.com")])
    assert check(head).presigned
    with pytest.raises(S3Error, match="expired"):
        check(head, now=DAY + 86401)
    with pytest.raises(S3Error, match="not valid yet"):
        check(head, now=DAY - 3600)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"now": DAY + 901}, "RequestTimeTooSkewed"),
        ({"now": DAY - 901}, "RequestTimeTooSkewed"),
        ({"secret": "other"}, "SignatureDoesNotMatch"),
        ({"access": "other"}, "InvalidAccessKeyId"),
        ({"region": "eu-west-1"}, "AuthorizationHeaderMalformed"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_code(change, code):
    with pytest.raises(S3Error) as caught:
        check(EXAMPLE, **change)
    assert caught.value.code == code


def test_a_changed_request_is_refused():
    for changed in (
        attrs.evolve(EXAMPLE, method="PUT"),
        attrs.evolve(EXAMPLE, path=b"/test.tx"),
        attrs.evolve(EXAMPLE, query=b"acl"),
    ):
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            check(changed)


def test_an_amz_header_that_is_not_signed_is_refused():
    head = attrs.evolve(
        EXAMPLE, headers=Headers([*EXAMPLE.headers.items, (b"x-amz-acl", b"public-read")])
    )
    with pytest.raises(S3Error) as caught:
        check(head)
    assert caught.value.code == "AccessDenied"


@pytest.mark.parametrize(
    ("target", "headers", "code"),
    [
        ("/", [("authorization", "AWS AKID:sig")], "InvalidRequest"),
        ("/", [("authorization", "AWS4-ECDSA-P256-SHA256 x")], "InvalidRequest"),
        ("/", [("authorization", "Basic x")], "AuthorizationHeaderMalformed"),
        ("/?AWSAccessKeyId=x&Signature=y&Expires=1", [], "InvalidRequest"),
        ("/?X-Amz-Signature=1", [], "AuthorizationQueryParametersError"),
        ("/?X-Amz-Signature=1", [("authorization", "AWS4-HMAC-SHA256 x")], "InvalidArgument"),
    ],
)
def test_other_schemes_and_broken_ones_are_refused_clearly(target, headers, code):
    with pytest.raises(S3Error) as caught:
        check(head_of("GET", target, [("host", "h"), *headers]))
    assert caught.value.code == code


def test_no_signature_is_none():
    assert check(head_of("GET", "/", [("host", "h")])) is None


keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    keys,
    st.dictionaries(st.sampled_from(["prefix", "marker", "x-id", "delimiter"]), keys),
    st.sampled_from(["GET", "PUT"]),
)
def test_botocore_and_we_agree(key, query, method):
    from urllib.parse import quote, urlencode

    url = "http://127.0.0.1:9000/bucket/" + quote(key, safe="/~")
    if query:
        url += "?" + urlencode(query, quote_via=quote)
    request = botocore.awsrequest.AWSRequest(
        method=method, url=url, data=b"", headers={"x-amz-meta-a": " two  words "}
    )
    auth = botocore.auth.S3SigV4Auth(
        botocore.credentials.Credentials(ACCESS, SECRET), "s3", "us-east-1"
    )
    auth.add_auth(request)
    prepared = request.prepare()
    headers = [
        ("host", "127.0.0.1:9000"),
        *((n, v if isinstance(v, str) else v.decode()) for n, v in prepared.headers.items()),
    ]
    target = prepared.url.removeprefix("http://127.0.0.1:9000")
    now = dt.datetime.now(dt.UTC).timestamp()
    assert check(head_of(method, target, headers), now=now).access_key == ACCESS


@given(keys, st.booleans())
def test_what_we_sign_we_accept(key, has_query):
    from urllib.parse import quote

    head = head_of(
        "PUT",
        "/b/" + quote(key) + ("?uploads" if has_query else ""),
        [("host", "h:1"), ("x-amz-meta-a", "b")],
    )
    added = sign_request(
        head,
        access_key=ACCESS,
        secret=SECRET,
        region="us-east-1",
        amz_date="20130524T000000Z",
        payload="UNSIGNED-PAYLOAD",
    )
    signed = attrs.evolve(head, headers=Headers([*head.headers.items, *added]))
    assert check(signed).payload == "UNSIGNED-PAYLOAD"


@given(st.text(max_size=200), st.binary(max_size=100))
def test_any_header_and_query_is_refused_or_parsed(header, query):
    head = RequestHead(
        method="GET",
        path=b"/",
        query=query,
        remote="",
        headers=Headers([(b"authorization", header.encode("utf-8", "replace"))]),
    )
    try:
        check(head)
    except S3Error:
        pass
