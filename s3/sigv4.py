"""AWS Signature Version 4, header and presigned ("Signature Calculations for the Authorization Header", S3 API reference).

Pure: `now` and the secret are passed in. The canonical request is made from the path and query as received; S3 encodes a path once and
normalises nothing.
"""

import functools
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, unquote_to_bytes

import attrs

from s3.errors import S3Error
from s3.messages import RequestHead

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
MAX_SKEW_SECONDS = 15 * 60
MAX_EXPIRES_SECONDS = 7 * 24 * 3600
EMPTY_SHA256 = sha256(b"").hexdigest()
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([0-9a-f]{64})\s*"
)
_DATE = re.compile(r"\d{8}T\d{6}Z")
_DUMMY_SECRET = "0" * 40  # an unknown key costs the same work as a known one


@attrs.frozen(kw_only=True)
class Scope:
    """What a signature is valid for."""

    access_key: str
    date: str  # YYYYMMDD
    region: str
    service: str

    @property
    def text(self) -> str:
        """The credential scope, as it is signed."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@attrs.frozen(kw_only=True)
class Signed:
    """A request as its signature claims it to be: parsed, not yet verified."""

    scope: Scope
    amz_date: str
    signed_headers: tuple[str, ...]
    signature: str
    payload: str  # the x-amz-content-sha256 that is signed
    presigned: bool
    expires: int | None = None


@attrs.frozen(kw_only=True)
class Verified:
    """A request whose signature holds; only made by `verify`. The chunk signatures continue from `signature`."""

    access_key: str
    payload: str
    presigned: bool
    signature: str
    amz_date: str
    scope: str
    signing_key: bytes


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """The query as ordered (name, value) pairs, decoded once; a plus is a plus."""
    pairs = []
    for item in query.split(b"&"):
        if item:
            name, _, value = item.partition(b"=")
            pairs.append((_text(name), _text(value)))
    return pairs


def _text(encoded: bytes) -> str:
    return unquote_to_bytes(encoded.replace(b"+", b"%20")).decode("utf-8", "surrogateescape")


def parse(head: RequestHead, pairs: Sequence[tuple[str, str]]) -> Signed | None:
    """The signature of a request; None: it carries none. Raises S3Error for one that cannot be used."""
    authorization = head.headers.get(b"authorization")
    presigned = any(name in {"X-Amz-Algorithm", "X-Amz-Signature"} for name, _ in pairs)
    if any(name in {"AWSAccessKeyId", "Signature"} for name, _ in pairs) and not presigned:
        raise S3Error(
            "InvalidRequest", "Signature Version 2 is not supported: use AWS4-HMAC-SHA256."
        )
    if authorization is not None and presigned:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed.")
    if authorization is not None:
        return _parse_header(head, authorization)
    return _parse_query(head, pairs) if presigned else None


def _parse_header(head: RequestHead, authorization: str) -> Signed:
    if len(head.headers.all(b"authorization")) != 1:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed.")
    if authorization.startswith("AWS "):
        raise S3Error(
            "InvalidRequest", "Signature Version 2 is not supported: use AWS4-HMAC-SHA256."
        )
    if authorization.startswith("AWS4-ECDSA"):
        raise S3Error(
            "InvalidRequest", "Signature Version 4A is not supported: use AWS4-HMAC-SHA256."
        )
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None:
        raise S3Error("AuthorizationHeaderMalformed")
    credential, signed_headers, signature = found.groups()
    amz_date = head.headers.get(b"x-amz-date")
    if amz_date is None or not _DATE.fullmatch(amz_date):
        raise S3Error("AccessDenied", "AWS authentication requires a valid x-amz-date header.")
    payload = head.headers.get(b"x-amz-content-sha256")
    if payload is None:
        raise S3Error(
            "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
        )
    scope = _scope(credential, "AuthorizationHeaderMalformed")
    _check_signed_headers(head, names := tuple(signed_headers.split(";")))
    return Signed(
        scope=scope, amz_date=amz_date, signed_headers=names, signature=signature, payload=payload, presigned=False
    )  # fmt: skip


def _parse_query(head: RequestHead, pairs: Sequence[tuple[str, str]]) -> Signed:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name.startswith("X-Amz-"):
            if name in values:
                raise S3Error("AuthorizationQueryParametersError", f"{name} is given twice.")
            values[name] = value
    wanted = (
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
    )
    if any(name not in values for name in wanted):
        raise S3Error(
            "AuthorizationQueryParametersError",
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
        )
    if values["X-Amz-Algorithm"] != ALGORITHM:
        raise S3Error(
            "AuthorizationQueryParametersError", f"X-Amz-Algorithm only supports {ALGORITHM}."
        )
    if not _DATE.fullmatch(values["X-Amz-Date"]):
        raise S3Error(
            "AuthorizationQueryParametersError", "X-Amz-Date must be formatted as YYYYMMDDTHHMMSSZ."
        )
    expires = values["X-Amz-Expires"]
    if not re.fullmatch(r"\d{1,7}", expires) or not 1 <= int(expires) <= MAX_EXPIRES_SECONDS:
        raise S3Error(
            "AuthorizationQueryParametersError",
            "X-Amz-Expires must be between 1 and 604800 seconds.",
        )
    names = tuple(values["X-Amz-SignedHeaders"].split(";"))
    _check_signed_headers(head, names)
    return Signed(
        scope=_scope(values["X-Amz-Credential"], "AuthorizationQueryParametersError"),
        amz_date=values["X-Amz-Date"],
        signed_headers=names,
        signature=values["X-Amz-Signature"],
        payload=head.headers.get(b"x-amz-content-sha256") or UNSIGNED_PAYLOAD,
        presigned=True,
        expires=int(expires),
    )


def _scope(credential: str, code: str) -> Scope:
    # An access key may hold slashes; the four last members may not.
    parts = credential.rsplit("/", 4)
    if (
        len(parts) != 5
        or not parts[0]
        or parts[4] != "aws4_request"
        or not re.fullmatch(r"\d{8}", parts[1])
    ):
        raise S3Error(
            code,
            'The Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    return Scope(access_key=parts[0], date=parts[1], region=parts[2], service=parts[3])


def _check_signed_headers(head: RequestHead, names: tuple[str, ...]) -> None:
    """Host and every x-amz-* header that was sent must be signed, else somebody else may have added it."""
    signed = set(names)
    missing = [] if "host" in signed else ["host"]
    for raw, _ in head.headers.items:
        name = raw.decode("latin-1")
        if name.startswith("x-amz-") and name not in signed and name != "x-amz-content-sha256":
            missing.append(name)
    if missing:
        raise S3Error(
            "AccessDenied", "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(missing),
        )  # fmt: skip


def verify(
    head: RequestHead,
    signed: Signed,
    *,
    secret_of: Callable[[str], str | None],
    region: str,
    now: float,
) -> Verified:
    """Check the signature. Raises S3Error with the code and the facts that S3 gives."""
    _check_scope(signed, region)
    _check_time(signed, now)
    secret = secret_of(signed.scope.access_key)
    key = signing_key(
        secret if secret is not None else _DUMMY_SECRET, signed.scope.date, signed.scope.region
    )
    canonical = canonical_request(head, signed)
    to_sign = string_to_sign(canonical, signed)
    expected = hmac.new(key, to_sign.encode(), sha256).hexdigest()
    equal = hmac.compare_digest(expected, signed.signature)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=signed.scope.access_key)
    if not equal:
        raise S3Error(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=signed.scope.access_key,
            StringToSign=to_sign,
            SignatureProvided=signed.signature,
            StringToSignBytes=_hex(to_sign),
            CanonicalRequest=canonical,
            CanonicalRequestBytes=_hex(canonical),
        )
    return Verified(
        access_key=signed.scope.access_key,
        payload=signed.payload,
        presigned=signed.presigned,
        signature=signed.signature,
        amz_date=signed.amz_date,
        scope=signed.scope.text,
        signing_key=key,
    )


def _hex(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").hex(" ")


def _check_scope(signed: Signed, region: str) -> None:
    scope = signed.scope
    code = (
        "AuthorizationQueryParametersError" if signed.presigned else "AuthorizationHeaderMalformed"
    )
    if scope.region != region:
        raise S3Error(
            code, f"The region '{scope.region}' is wrong; expecting '{region}'.", Region=region
        )
    if scope.service != "s3":
        raise S3Error(code, f"The service '{scope.service}' is wrong; expecting 's3'.")
    if scope.date != signed.amz_date[:8]:
        raise S3Error(code, "The date of the credential scope is not that of the request.")


def _check_time(signed: Signed, now: float) -> None:
    made = _seconds(signed.amz_date)
    if signed.presigned:
        assert signed.expires is not None
        if made - now > MAX_SKEW_SECONDS:
            raise S3Error("AccessDenied", "Request is not valid yet.")
        if now > made + signed.expires:
            raise S3Error("AccessDenied", "Request has expired.")
    elif abs(now - made) > MAX_SKEW_SECONDS:
        raise S3Error(
            "RequestTimeTooSkewed",
            RequestTime=signed.amz_date,
            ServerTime=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            MaxAllowedSkewMilliseconds=MAX_SKEW_SECONDS * 1000,
        )


@functools.lru_cache(maxsize=256)
def _seconds(amz_date: str) -> float:
    """Seconds since 1970 of a YYYYMMDDTHHMMSSZ; requests of one second share it. Raises S3Error for no date."""
    try:
        return datetime.strptime(amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise S3Error("AccessDenied", "The request's date is no date.") from None


@functools.lru_cache(maxsize=256)
def signing_key(secret: str, date: str, region: str) -> bytes:
    """The derived key of a day and region; four HMACs, so it is kept."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_request(head: RequestHead, signed: Signed) -> str:
    """The canonical request of what arrived."""
    lines = []
    for name in signed.signed_headers:
        values = head.headers.all(name.encode("latin-1", "replace"))
        text = ",".join(" ".join(v.decode("utf-8", "surrogateescape").split()) for v in values)
        lines.append(f"{name}:{text}\n")
    return "\n".join(
        (
            head.method,
            canonical_path(head.path),
            canonical_query(head.query),
            "".join(lines),
            ";".join(signed.signed_headers),
            signed.payload,
        )
    )


@functools.lru_cache(maxsize=4096)
def canonical_path(path: bytes) -> str:
    """The path encoded exactly once, whatever of it the client had encoded."""
    return quote(unquote_to_bytes(path), safe="/-_.~")


def canonical_query(query: bytes) -> str:
    """Encoded names and values, sorted; the signature itself left out."""
    if not query:
        return ""
    pairs = []
    for item in query.split(b"&"):
        if item:
            name, _, value = item.partition(b"=")
            pairs.append((_encode(name), _encode(value)))
    pairs.sort()
    return "&".join(f"{name}={value}" for name, value in pairs if name != "X-Amz-Signature")


def _encode(part: bytes) -> str:
    return quote(unquote_to_bytes(part.replace(b"+", b"%20")), safe="-_.~")


def string_to_sign(canonical: str, signed: Signed) -> str:
    """What the signature is made over."""
    digest = sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{signed.amz_date}\n{signed.scope.text}\n{digest}"


def sign_request(
    head: RequestHead, *, access_key: str, secret: str, region: str, amz_date: str, payload: str
) -> list[tuple[bytes, bytes]]:
    """The headers to add to a request so that it is signed; for our own clients and the bench."""
    extra = [(b"x-amz-date", amz_date.encode()), (b"x-amz-content-sha256", payload.encode())]
    items: Mapping[bytes, bytes] = dict(head.headers.items) | dict(extra)
    names = tuple(
        sorted(name.decode() for name in items if name == b"host" or name.startswith(b"x-amz-"))
    )
    signed = Signed(
        scope=Scope(access_key=access_key, date=amz_date[:8], region=region, service="s3"),
        amz_date=amz_date, signed_headers=names, signature="", payload=payload, presigned=False,
    )  # fmt: skip
    whole = attrs.evolve(head, headers=type(head.headers)(items.items()))
    key = signing_key(secret, amz_date[:8], region)
    to_sign = string_to_sign(canonical_request(whole, signed), signed)
    signature = hmac.new(key, to_sign.encode(), sha256).hexdigest()
    value = f"{ALGORITHM} Credential={access_key}/{signed.scope.text},SignedHeaders={';'.join(names)},Signature={signature}"
    return [*extra, (b"authorization", value.encode())]
