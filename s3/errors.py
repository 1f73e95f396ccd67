"""S3's error codes: status, text, and the facts that go into the error body."""

from collections.abc import Mapping

# code -> (status, default message); AWS, "Error responses", API reference.
CODES: Mapping[str, tuple[int, str]] = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs."),
    "AccessDenied": (403, "Access Denied."),
    "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
    "AuthorizationQueryParametersError": (400, "The authorization query parameters that you provided are not valid."),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what the server received."),
    "BadRequest": (400, "Bad Request."),
    "BucketAlreadyExists": (409, "The requested bucket name is not available."),
    "BucketAlreadyOwnedByYou": (409, "The bucket that you tried to create already exists, and you own it."),
    "BucketNotEmpty": (409, "The bucket that you tried to delete is not empty."),
    "ConditionalRequestConflict": (409, "A conflicting operation occurred during the execution of this request."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed object size."),
    "IllegalVersioningConfigurationException": (400, "The versioning configuration does not say what it is to be: the Status is missing."),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header."),
    "InternalError": (500, "An internal error occurred. Try again."),
    "InvalidAccessKeyId": (403, "The access key ID that you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidChunkSizeError": (400, "The chunk size is not valid."),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
    "InvalidPart": (400, "One or more of the specified parts could not be found, or its entity tag did not match."),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "InvalidRange": (416, "The requested range is not satisfiable."),
    "InvalidRequest": (400, "Invalid Request."),
    "InvalidStorageClass": (400, "The storage class that you specified is not valid."),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidURI": (400, "The specified URI could not be parsed."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed."),
    "MalformedXML": (400, "The XML that you provided was not well formed or did not validate against our published schema."),
    "MaxMessageLengthExceeded": (400, "Your request was too large."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request body is empty."),
    "MissingSecurityHeader": (400, "Your request is missing a required header."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist."),
    "NoSuchConfiguration": (404, "The specified configuration does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist."),
    "NoSuchObjectLockConfiguration": (404, "The specified object does not have an object lock configuration."),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found."),
    "NoSuchTagSet": (404, "There is no tag set associated with the bucket."),
    "NoSuchUpload": (404, "The specified multipart upload does not exist."),
    "NoSuchVersion": (404, "The version ID specified in the request does not match an existing version."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration."),
    "NotImplemented": (501, "A header or operation that you provided implies functionality that is not implemented."),
    "NotModified": (304, "Not Modified"),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket."),
    "OperationAborted": (409, "A conflicting conditional operation is currently in progress against this resource."),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found."),
    "PreconditionFailed": (412, "At least one of the preconditions that you specified did not hold."),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found."),
    "RequestHeaderSectionTooLarge": (400, "Your request header section exceeds the maximum allowed size."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
    "RequestTimeout": (400, "Your socket connection to the server was not read from or written to within the timeout period."),
    "ServerSideEncryptionConfigurationNotFoundError": (404, "The server side encryption configuration was not found."),
    "ServiceUnavailable": (503, "Service is unable to handle the request. Try again."),
    "SignatureDoesNotMatch": (403, "The request signature that we calculated does not match the signature that you provided."),
    "SlowDown": (503, "Please reduce your request rate."),
    "StorageFull": (507, "The drives have no room for this object."),
    "UnexpectedContent": (400, "This request contains unsupported content."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}  # fmt: skip


class S3Error(Exception):
    """An S3 error response. `fields` become members of the error body; `headers` go onto the response."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        **fields: object,
    ) -> None:
        self.code = code
        self.status, default = CODES[code]
        self.message = message if message is not None else default
        self.headers = headers
        self.fields = fields
        super().__init__(f"{code}: {self.message}")
