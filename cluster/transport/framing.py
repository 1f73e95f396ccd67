"""Frames of one call: messages, body bytes under credit, end, cancellation. Pure (docs/formats/rpc.md).

    frame   version(1) ‖ kind(1) ‖ zero(2) ‖ length(4, big-endian) ‖ payload

Body bytes flow only against credit that the receiver has granted, because a transport's own window is refilled when its
library has read, not when a slow drive has written. Messages need no credit: they are few, and their size is capped.
"""

import enum
import struct
from typing import Final

import attrs

VERSION: Final = 1
HEADER_BYTES: Final = 8
MAX_MESSAGE: Final = 16 << 20
MAX_DATA: Final = 256 << 10
INITIAL_CREDIT: Final = 1 << 20  # 10 Gbit/s over 0.8 ms
MAX_CREDIT: Final = 16 << 20
_HEADER = struct.Struct(">BBHI")
_CREDIT = struct.Struct(">I")


class FramingError(Exception):
    """The peer broke the framing; the stream is of no more use."""


class Kind(enum.IntEnum):
    """What a frame is."""

    MESSAGE = 1
    DATA = 2
    CREDIT = 3  # payload: how many more body bytes the receiver takes
    END = 4  # neither messages nor body bytes will follow
    CANCEL = 5  # payload: why, UTF-8. The sender has given the call up


_MAX_PAYLOAD = {
    Kind.MESSAGE: MAX_MESSAGE,
    Kind.DATA: MAX_DATA,
    Kind.CREDIT: _CREDIT.size,
    Kind.END: 0,
    Kind.CANCEL: 256,
}


@attrs.frozen
class Message:
    """A whole message."""

    payload: bytes


@attrs.frozen
class Data:
    """Body bytes; where frames begin and end means nothing. Grant as many once they are dealt with."""

    payload: bytes


@attrs.frozen
class CreditGranted:
    """More body bytes may be sent."""


@attrs.frozen
class Ended:
    """The peer's last word, unless it cancels."""


@attrs.frozen
class Cancelled:
    """The peer has given the call up."""

    reason: str


Event = Message | Data | CreditGranted | Ended | Cancelled


class Framing:
    """One side of one call. Verbs to send return bytes for the stream; `receive` takes what came from it."""

    def __init__(self) -> None:
        self.credit = INITIAL_CREDIT  # body bytes that we may send
        self._granted = INITIAL_CREDIT  # body bytes that the peer may send
        self._buffer = bytearray()
        self._has_ended = False
        self._peer_has_ended = False
        self._is_cancelled = False  # by either side

    # -- sending

    def message(self, payload: bytes) -> bytes:
        """The frame header of a message; its payload follows."""
        assert len(payload) <= MAX_MESSAGE
        return self._frame(Kind.MESSAGE, len(payload))

    def data(self, length: int) -> bytes:
        """The frame header of body bytes, 0 < length <= min(credit, MAX_DATA); the bytes follow."""
        assert 0 < length <= min(self.credit, MAX_DATA)
        self.credit -= length
        return self._frame(Kind.DATA, length)

    def grant(self, count: int) -> bytes:
        """Let the peer send `count` more body bytes, 0 < count."""
        assert 0 < count <= MAX_CREDIT - self._granted
        self._granted += count
        assert not self._is_cancelled
        return _HEADER.pack(VERSION, Kind.CREDIT, 0, _CREDIT.size) + _CREDIT.pack(count)

    def end(self) -> bytes:
        """Nothing follows."""
        frame = self._frame(Kind.END, 0)
        self._has_ended = True
        return frame

    def cancel(self, reason: str) -> bytes:
        """Give the call up; also after the end."""
        assert not self._is_cancelled
        self._is_cancelled = True
        payload = reason.encode()[: _MAX_PAYLOAD[Kind.CANCEL]]
        return _HEADER.pack(VERSION, Kind.CANCEL, 0, len(payload)) + payload

    def _frame(self, kind: Kind, length: int) -> bytes:
        assert not self._has_ended
        assert not self._is_cancelled
        return _HEADER.pack(VERSION, kind, 0, length)

    # -- receiving

    def receive(self, data_untrusted: bytes | bytearray | memoryview) -> list[Event]:
        """What arrived with these bytes, in order. Raises FramingError."""
        self._buffer += data_untrusted
        events: list[Event] = []
        at = 0
        while len(self._buffer) - at >= HEADER_BYTES:
            kind, length = self._check_header(at)
            start, stop = at + HEADER_BYTES, at + HEADER_BYTES + length
            if len(self._buffer) < stop:
                break
            with memoryview(self._buffer) as view:
                payload = bytes(view[start:stop])
            events.append(self._take(kind, payload))
            at = stop
        del self._buffer[:at]
        return events

    def _check_header(self, at: int) -> tuple[Kind, int]:
        version, number, zero, length = _HEADER.unpack_from(self._buffer, at)
        if version != VERSION:
            raise FramingError(f"version {version}; we speak {VERSION}")
        if zero != 0 or number not in _MAX_PAYLOAD:
            raise FramingError(f"an unknown frame of kind {number}")
        kind = Kind(number)
        if length > _MAX_PAYLOAD[kind]:
            raise FramingError(f"a {kind.name} of {length} bytes")
        # Judged by the header, before the payload is waited for.
        if kind is Kind.DATA and not 0 < length <= self._granted:
            raise FramingError(f"{length} body bytes against a credit of {self._granted}")
        if self._peer_has_ended and kind in {Kind.MESSAGE, Kind.DATA, Kind.END}:
            raise FramingError(f"a {kind.name} after the end")
        return kind, length

    def _take(self, kind: Kind, payload: bytes) -> Event:
        match kind:
            case Kind.MESSAGE:
                return Message(payload)
            case Kind.DATA:
                self._granted -= len(payload)
                return Data(payload)
            case Kind.CREDIT:
                return self._take_credit(payload)
            case Kind.END:
                self._peer_has_ended = True
                return Ended()
            case Kind.CANCEL:
                self._is_cancelled = True
                return Cancelled(payload.decode(errors="replace"))

    def _take_credit(self, payload: bytes) -> Event:
        if len(payload) != _CREDIT.size:
            raise FramingError("a credit without a number")
        (count,) = _CREDIT.unpack(payload)
        if not 0 < count <= MAX_CREDIT - self.credit:
            raise FramingError(f"a credit of {count} on top of {self.credit}")
        self.credit += count
        return CreditGranted()
