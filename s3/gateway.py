"""The one place that knows the order of the steps: request id, health, route, authenticate, authorize, dispatch, translate, log.

An operation is reached only with a Verified signature in hand; the table of operations has no default.
"""

import functools
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from random import Random

import attrs

from cluster.errors import ClusterError
from s3.errors import S3Error
from s3.messages import BodyError, RequestBody, RequestHead, Response
from s3.ops import HANDLERS, Operation
from s3.ops.objects import XML_TYPE
from s3.ops.permissions import authorize, betrays
from s3.request import Context, Credentials, Identity, S3Request
from s3.router import HEALTH, NOWHERE, Route, host_bucket, route
from s3.sigv4 import Verified, parse, verify
from s3.translate import subject_of, translate
from s3.xml import DECLARATION, element

HEALTH_PREFIX = b"/-/"
_CUSTOMER_KEYS = tuple(
    f"x-amz-{source}server-side-encryption-customer-{what}".encode()
    for source in ("", "copy-source-")
    for what in ("algorithm", "key", "key-md5")
)


@attrs.frozen(kw_only=True)
class Answered:
    """Event: a request was answered. Becomes a line of the access log; never holds a secret."""

    request_id: str
    remote: str
    method: str
    operation: str
    bucket: str | None
    key: str | None
    access_key: str | None
    status: int
    code: str | None
    seconds: float


@attrs.frozen(kw_only=True)
class Failure:
    """Event: a request met a bug. `error` has the traceback."""

    request_id: str
    error: BaseException


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """What the operator says of the S3 side."""

    region: str = "us-east-1"
    base_domains: tuple[str, ...] = ()  # virtual-host style below these


class Gateway:
    """s3.messages.Handler: answers every request, whatever happens."""

    def __init__(
        self,
        context: Context,
        *,
        settings: GatewaySettings,
        credentials: Credentials,
        ready: Callable[[], Awaitable[tuple[bool, str]]],
        rng: Random,
        emit: Callable[[object], None],
        operations: Mapping[str, Operation] = HANDLERS,
    ) -> None:
        self._context = context
        self._settings = settings
        self._credentials = credentials
        self._ready = ready
        self._rng = rng
        self._emit = emit
        self._operations = operations

    async def handle(self, head: RequestHead, body: RequestBody) -> Response:
        """See s3.messages.Handler."""
        began = self._context.now()
        request_id = self._new_id()
        trail = _Trail()
        code: str | None = None
        try:
            response = await self._answer(head, body, request_id, trail)
        except S3Error as error:
            shown = _shown(error, head, trail)
            code, response = shown.code, _error_response(head, shown, request_id)
        except ClusterError as error:
            shown = _shown(translate(error, subject_of(trail.route, head.headers)), head, trail)
            code, response = shown.code, _error_response(head, shown, request_id)
        except BodyError:
            # The connection is not to be used again; whether the client still listens is its business.
            code = "IncompleteBody"
            response = _error_response(head, S3Error("IncompleteBody"), request_id)
            response.close = True
        except Exception as error:  # noqa: BLE001 - a bug in one request must not end the connection's task
            self._emit(Failure(request_id=request_id, error=error))
            code, response = (
                "InternalError",
                _error_response(head, S3Error("InternalError"), request_id),
            )
        return self._finish(
            response, request_id, began, trail, code, remote=head.remote, method=head.method
        )

    def refuse(self, remote: str, status: int, code: str, message: str) -> Response:
        """See s3.messages.Handler."""
        began = self._context.now()
        request_id = self._new_id()
        response = Response(
            status=status, headers=[XML_TYPE], body=_error_body(code, message, "", request_id)
        )
        return self._finish(response, request_id, began, _Trail(), code, remote=remote, method="-")

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(64):016X}"

    def _finish(
        self, response: Response, request_id: str, began: float, trail: "_Trail", code: str | None,
        *, remote: str, method: str,
    ) -> Response:  # fmt: skip
        """What every answer carries, and its line in the log."""
        response.headers += [
            (b"x-amz-request-id", request_id.encode()),
            (b"x-amz-id-2", request_id.encode()),
            (b"Date", _date(int(began))),
            (b"Server", b"storectl"),
        ]
        self._emit(
            Answered(
                request_id=request_id,
                remote=remote,
                method=method,
                operation=trail.route.operation,
                bucket=trail.route.bucket,
                key=None if trail.route.key is None else trail.route.key.decode(),
                access_key=None if trail.identity is None else trail.identity.access_key,
                status=response.status,
                code=code,
                seconds=self._context.now() - began,
            )
        )
        return response

    async def _answer(
        self, head: RequestHead, body: RequestBody, request_id: str, trail: "_Trail"
    ) -> Response:
        domains = self._settings.base_domains
        if head.path.startswith(HEALTH_PREFIX) and host_bucket(head, domains) is None:
            trail.route = HEALTH
            return await self._health(head)
        found = route(head, domains)
        trail.route = found
        verified, identity = await self._authenticate(head, found)
        trail.identity = identity
        authorize(identity, found, head.headers)
        _refuse_customer_keys(head)
        request = S3Request(
            head=head,
            route=found,
            raw_body=body,
            verified=verified,
            identity=identity,
            request_id=request_id,
        )
        return await self._operations[found.operation](self._context, request)

    async def _authenticate(self, head: RequestHead, found: Route) -> tuple[Verified, Identity]:
        """Who signed the request. Raises S3Error: there is no way past this without a good signature."""
        signed = parse(head, found.query.pairs)
        if signed is None:
            raise S3Error("AccessDenied")
        known = await self._credentials.find(signed.scope.access_key)
        verified = verify(
            head,
            signed,
            secret_of=lambda _: None if known is None else known.secret,
            region=self._settings.region,
            now=self._context.now(),
        )
        assert known is not None  # verify has refused an unknown key
        return verified, known.identity

    async def _health(self, head: RequestHead) -> Response:
        if head.method not in {"GET", "HEAD"}:
            raise S3Error("MethodNotAllowed", headers=((b"Allow", b"GET, HEAD"),))
        if head.path == b"/-/live":
            return Response(status=200, body=b"live\n")
        if head.path == b"/-/ready":
            is_ready, why = await self._ready()
            headers = [] if is_ready else [(b"Retry-After", b"5")]
            return Response(
                status=200 if is_ready else 503, headers=headers, body=f"{why}\n".encode()
            )
        return Response(status=404, body=b"not found\n")


def _refuse_customer_keys(head: RequestHead) -> None:
    """A key that was given for encryption and is ignored would be a promise broken in silence. Raises S3Error."""
    for name in _CUSTOMER_KEYS:
        if name in head.headers:
            raise S3Error("NotImplemented", Header=name.decode())


@attrs.define
class _Trail:
    """What is known of a request so far, for errors and the log."""

    route: Route = NOWHERE
    identity: Identity | None = None


def _shown(error: S3Error, head: RequestHead, trail: _Trail) -> S3Error:
    """The error, unless it would tell somebody who may not know which keys exist."""
    if trail.identity is not None and betrays(
        error.code, trail.identity, trail.route, head.headers
    ):
        return S3Error("AccessDenied")
    return error


def _error_response(head: RequestHead, error: S3Error, request_id: str) -> Response:
    headers = list(error.headers)
    if error.status == 304 or head.method == "HEAD":
        return Response(status=error.status, headers=headers, length=0)
    fields = "".join(element(name, value) for name, value in error.fields.items())
    fields += element("Resource", head.path.decode("latin-1"))
    headers.append(XML_TYPE)
    body = _error_body(error.code, error.message, fields, request_id)
    return Response(status=error.status, headers=headers, body=body)


def _error_body(code: str, message: str, fields: str, request_id: str) -> bytes:
    body = (
        f"{DECLARATION}<Error>{element('Code', code)}{element('Message', message)}{fields}"
        f"{element('RequestId', request_id)}{element('HostId', request_id)}</Error>"
    )
    return body.encode("utf-8", "replace")


@functools.lru_cache(maxsize=4)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
