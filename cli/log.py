"""Events become lines on standard error: for people, or JSON for machines. Secrets are in no event."""

import json
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import attrs

from s3.gateway import Answered, Failure


class Log:
    """The listener of a node's events. `requests`: none, errors or all."""

    def __init__(self, *, as_json: bool, requests: str, out: TextIO | None = None) -> None:
        self._json, self._requests = as_json, requests
        self._out = out if out is not None else sys.stderr

    def __call__(self, event: object) -> None:
        """Write an event, where it is wanted."""
        if isinstance(event, Answered):
            if self._requests == "none" or (self._requests == "errors" and event.status < 500):
                return
            self.line("request", **attrs.asdict(event))
        elif isinstance(event, Failure):
            trace = "".join(traceback.format_exception(event.error))
            self.line("bug", request_id=event.request_id, trace=trace)
        elif attrs.has(type(event)):
            self.line(type(event).__name__, **attrs.asdict(event))  # type: ignore[arg-type]
        else:
            self.line(str(event))

    def line(self, what: str, **facts: Any) -> None:
        """One line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        if self._json:
            text = json.dumps({"time": now, "event": what, **facts}, default=_plain)
        else:
            shown = " ".join(
                f"{name}={_plain(value)}" for name, value in facts.items() if value is not None
            )
            text = f"{now} {what} {shown}"
        print(text, file=self._out, flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return round(value, 6)
    return getattr(value, "value", value) if not isinstance(value, str | int | None) else value
