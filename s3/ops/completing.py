"""CompleteMultipartUpload: the list of parts judged, and the object that they make."""

import hashlib
import itertools
import re
from collections.abc import Sequence

import attrs
import msgspec

from cluster.errors import NotFoundError
from cluster.objects.model import Part, PartChoice, Seal, Upload
from s3.checksums import ALGORITHMS, combine, encode_value
from s3.conditions import etags, write_conditions
from s3.errors import S3Error
from s3.messages import Headers, Response
from s3.object_meta import ObjectMeta, checksum_headers, decode, decode_part, encode
from s3.ops.access import find_bucket
from s3.ops.multipart import upload_id, upload_meta
from s3.ops.objects import MAX_PARTS, XML_TYPE
from s3.request import Context, S3Request
from s3.versions import version_headers
from s3.xml import document, element, parse

MIN_PART_BYTES = 5 << 20
MAX_COMPLETE_BYTES = 2 << 20


@attrs.frozen
class _Listed:
    """A part as Complete lists it."""

    choice: PartChoice
    checksums: dict[str, str]


def parse_complete(body: bytes) -> list[_Listed]:
    """The part list of a Complete. Raises S3Error."""
    root = parse(body, "CompleteMultipartUpload")
    listed = []
    for node in root.all("Part"):
        number, etag = node.get("PartNumber"), node.get("ETag")
        if number is None or etag is None or not re.fullmatch(r"[0-9]{1,5}", number):
            raise S3Error("MalformedXML")
        if not 1 <= int(number) <= MAX_PARTS:
            raise S3Error(
                "InvalidArgument",
                "PartNumber must be >= 1 and <= 10000.",
                ArgumentName="partNumber",
                ArgumentValue=number,
            )
        sums = {
            name: value for name in ALGORITHMS if (value := node.get(f"Checksum{name}")) is not None
        }
        listed.append(_Listed(PartChoice(number=int(number), validator=etags(etag)[0]), sums))
    if not listed or len(listed) > MAX_PARTS:
        raise S3Error("MalformedXML")
    numbers = [item.choice.number for item in listed]
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise S3Error("InvalidPartOrder")
    return listed


async def complete_multipart_upload(context: Context, request: S3Request) -> Response:
    """CompleteMultipartUpload: one compare-and-set; a repetition gets the same answer."""
    upload = upload_id(request)
    expect = write_conditions(request.headers)
    announced = _Announced.of(request.headers)
    listed = parse_complete(await _complete_body(request))
    bucket = await find_bucket(context, request)

    def judge(opened: Upload, parts: Sequence[Part]) -> Seal:
        meta = upload_meta(opened)
        _check_parts(request, listed, parts)
        value = ""
        md5 = hashlib.md5(
            b"".join(bytes.fromhex(part.validator) for part in parts), usedforsecurity=False
        )
        if meta.checksum:
            algorithm = ALGORITHMS[meta.checksum]
            values = [(decode_part(part.attributes).value, part.size) for part in parts]
            value = combine(algorithm, meta.checksum_type, values)
        announced.check(meta, value, sum(part.size for part in parts))
        meta = msgspec.structs.replace(meta, checksum_value=value)
        return Seal(validator=f"{md5.hexdigest()}-{len(parts)}", attributes=encode(meta))

    choices = [item.choice for item in listed]
    try:
        version = await context.objects.complete_upload(
            bucket, request.key, upload, choices, judge, expect
        )
    except NotFoundError as error:
        if error.kind != "part":
            raise
        raise _invalid_part(
            request, next(c for c in choices if str(c.number) == error.name)
        ) from None
    host = request.headers.get(b"host") or ""
    xml = element("Location", f"http://{host}{request.head.path.decode('latin-1')}")
    xml += element("Bucket", request.bucket) + element("Key", request.key.decode())
    xml += f'<ETag>"{version.validator}"</ETag>'
    meta = decode(version.attributes)
    if meta.checksum_value:
        xml += element(f"Checksum{meta.checksum}", meta.checksum_value) + element(
            "ChecksumType", meta.checksum_type
        )
    headers = [XML_TYPE, *checksum_headers(meta), *version_headers(bucket, version)]
    return Response(
        status=200, headers=headers, body=document("CompleteMultipartUploadResult", xml)
    )


async def _complete_body(request: S3Request) -> bytes:
    # The checksum headers of a Complete speak of the object, not of this body: only its signature is checked.
    if request.raw_body.length is not None and request.raw_body.length > MAX_COMPLETE_BYTES:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=MAX_COMPLETE_BYTES)
    return await request.body(with_checksum=False).read_all(MAX_COMPLETE_BYTES)


@attrs.frozen
class _Announced:
    """What a Complete says of the object that it makes."""

    checksums: list[tuple[str, str]]  # algorithm and value
    kind: str | None
    size: str | None

    @classmethod
    def of(cls, headers: Headers) -> "_Announced":
        return cls(
            [
                (name, value)
                for name, algorithm in ALGORITHMS.items()
                if (value := headers.get(algorithm.header)) is not None
            ],
            headers.get(b"x-amz-checksum-type"),
            headers.get(b"x-amz-mp-object-size"),
        )

    def check(self, meta: ObjectMeta, value: str, size: int) -> None:
        """Raises S3Error where the object is not what was announced."""
        if self.size is not None and self.size != str(size):
            raise S3Error("InvalidRequest", f"The object has {size} bytes, not {self.size}.")
        if self.kind is not None and self.kind.upper() != meta.checksum_type:
            raise S3Error("InvalidRequest", "The upload was created with another checksum type.")
        for name, announced in self.checksums:
            if name != meta.checksum:
                raise S3Error("InvalidRequest", f"The upload was not created with {name}.")
            known = value if "-" in announced else value.partition("-")[0]
            if announced != known:
                raise S3Error(
                    "BadDigest", "The checksum you specified did not match the calculated checksum."
                )


def _check_parts(request: S3Request, listed: Sequence[_Listed], parts: Sequence[Part]) -> None:
    for item, part in zip(listed[:-1], parts[:-1], strict=True):
        del item
        if part.size < MIN_PART_BYTES:
            raise S3Error(
                "EntityTooSmall", ProposedSize=part.size, MinSizeAllowed=MIN_PART_BYTES, PartNumber=part.number,
                ETag=part.validator,
            )  # fmt: skip
    for item, part in zip(listed, parts, strict=True):
        known = decode_part(part.attributes)
        for name, value in item.checksums.items():
            if name == known.checksum and value != encode_value(known.value):
                raise _invalid_part(request, item.choice)


def _invalid_part(request: S3Request, choice: PartChoice) -> S3Error:
    return S3Error(
        "InvalidPart",
        UploadId=request.query.get("uploadId"),
        PartNumber=choice.number,
        ETag=choice.validator,
    )
