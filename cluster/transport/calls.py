"""One call over one stream: the thin Trio driver around Framing. Either side holds a Call."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import trio
from trio.abc import HalfCloseableStream

from cluster.transport.base import CallCancelledError, StreamBrokenError, TransportError
from cluster.transport.framing import (
    INITIAL_CREDIT,
    MAX_DATA,
    Cancelled,
    CreditGranted,
    Data,
    Ended,
    Event,
    Framing,
    FramingError,
    Message,
)

Blob: TypeAlias = bytes | bytearray | memoryview
_RECEIVE_BYTES = 64 * 1024
_GOODBYE_SECONDS = 1.0
# A quarter of the window is withheld at most; what is left is more than one run of blocks (rpc_messages.MAX_RUN), or
# both sides would wait: the receiver for the rest of the run, the sender for credit.
_GRANT_BYTES = INITIAL_CREDIT // 4


class Call:
    """Send messages and body bytes, receive the peer's. All verbs raise TransportError, and FramingError.

    One task may send while another receives.
    """

    def __init__(self, stream: HalfCloseableStream) -> None:
        self._stream = stream
        self._framing = Framing()
        self._events: deque[Event] = deque()
        self._owed = 0  # body bytes dealt with, of which the peer has not heard
        self._is_closed = False

    # -- sending

    async def send_message(self, payload: bytes, *, last: bool = False) -> None:
        """Send a message; with `last` nothing follows it."""
        frames = self._framing.message(payload) + payload
        if last:
            frames += self._framing.end()
        await self._send(frames)

    async def send_body(self, blobs: Sequence[Blob]) -> bool:
        """Send body bytes as the peer takes them; False: it has said something instead, see `receive`."""
        for blob in blobs:
            view, at = memoryview(blob), 0
            while at < len(view):
                if not self._framing.credit and not await self._wait_for_credit():
                    return False
                count = min(len(view) - at, self._framing.credit, MAX_DATA)
                await self._send(self._framing.data(count))
                await self._send(view[at : at + count])
                at += count
        return True

    async def grant(self, count: int) -> None:
        """`count` body bytes have been dealt with. The peer hears of it in larger pieces."""
        self._owed += count
        if self._owed >= _GRANT_BYTES:
            count, self._owed = self._owed, 0
            # A peer that has sent everything may have closed; if it broke off, `receive` tells.
            with suppress(StreamBrokenError):
                await self._send(self._framing.grant(count))

    async def end(self) -> None:
        """Send nothing more."""
        await self._send(self._framing.end())

    async def cancel(self, reason: str) -> None:
        """Give the call up, and close it. Takes a second at most, and raises nothing."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE_SECONDS):
            with suppress(StreamBrokenError):
                await self._send(self._framing.cancel(reason))
        await self.close()

    async def close(self) -> None:
        """After the last word, let what was sent arrive; takes a second at most."""
        self._is_closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE_SECONDS):
            await self._stream.aclose()

    async def abandon(self) -> None:
        """Reset the stream, at once and whoever is cancelled; a no-op on a closed one."""
        if not self._is_closed:
            self._is_closed = True
            with trio.CancelScope(shield=True) as scope:
                scope.cancel()  # what makes it a reset, see trio.aclose_forcefully
                await self._stream.aclose()

    async def _send(self, data: Blob) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamBrokenError("the stream was cut") from error

    async def _wait_for_credit(self) -> bool:
        while not self._framing.credit:
            event = await self._next()
            if not isinstance(event, CreditGranted):
                self._events.appendleft(event)
                return False
        return True

    # -- receiving

    async def receive(self) -> Message | Data | Ended:
        """The peer's next word. Raises CallCancelledError when it gave the call up."""
        while True:
            event = await self._next()
            if isinstance(event, Cancelled):
                raise CallCancelledError(event.reason)
            if not isinstance(event, CreditGranted):
                return event

    async def receive_message(self) -> bytes:
        """The next word, which must be a message."""
        event = await self.receive()
        if not isinstance(event, Message):
            raise FramingError("a message was to come")
        return event.payload

    async def receive_body(self, size: int, *, grant: bool = True) -> bytearray:
        """`size` body bytes that a message has announced; with `grant`, credit is granted as they come."""
        body = bytearray()
        while len(body) < size:
            event = await self.receive()
            if not isinstance(event, Data) or len(body) + len(event.payload) > size:
                raise FramingError("the body is not as long as it was said to be")
            body += event.payload
            if grant:
                await self.grant(len(event.payload))
        return body

    async def _next(self) -> Event:
        while not self._events:
            try:
                data = await self._stream.receive_some(_RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise StreamBrokenError("the stream was cut") from error
            if not data:
                raise StreamBrokenError("the peer has closed the stream")
            self._events.extend(self._framing.receive(data))
        return self._events.popleft()

    @asynccontextmanager
    async def while_wanted(self) -> AsyncIterator[None]:
        """Cancel the block when the caller gives up or goes away; nothing else may receive meanwhile.

        Raises TransportError in place of the cancelled block.
        """
        lost: list[Exception] = []

        async def watch(scope: trio.CancelScope) -> None:
            try:
                while isinstance(await self.receive(), Ended):
                    pass
                lost.append(FramingError("nothing was to come"))
            except (TransportError, FramingError) as error:
                lost.append(error)
            scope.cancel()

        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised below, outside the nursery that would wrap it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if lost:
            raise lost[0]
