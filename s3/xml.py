"""XML in and out: writers that join strings, and one parser that takes nothing it does not need.

Requests are parsed by expat with document types forbidden, so there are no entities to expand, and with limits on depth and size.
"""

import functools
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from xml.parsers import expat

import attrs

from s3.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
MAX_DEPTH = 16
MAX_ELEMENTS = 60_000
_SPECIAL = re.compile(r"[&<>\x00-\x08\x0b-\x1f\ufffe\uffff]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def text(value: object) -> str:
    """Escaped for an element's content. Characters that XML 1.0 cannot hold become references, as S3 writes them."""
    plain = str(value)
    return _SPECIAL.sub(_reference, plain) if _SPECIAL.search(plain) else plain


def _reference(found: re.Match[str]) -> str:
    return _NAMED.get(found[0]) or f"&#x{ord(found[0]):X};"


def element(name: str, value: object) -> str:
    """`<name>value</name>`; nothing for None."""
    return "" if value is None else f"<{name}>{text(value)}</{name}>"


def document(root: str, body: Iterable[str] | str, *, namespace: bool = True) -> bytes:
    """A whole response body."""
    inner = body if isinstance(body, str) else "".join(body)
    attribute = f' xmlns="{NAMESPACE}"' if namespace else ""
    # What is not UTF-8 in a query becomes a question mark: the document stays one.
    return f"{DECLARATION}<{root}{attribute}>{inner}</{root}>".encode("utf-8", "replace")


def timestamp(ms: int) -> str:
    """ISO 8601 with milliseconds, as in listings."""
    return f"{_second(ms // 1000)}{ms % 1000:03d}Z"


@functools.lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


@attrs.define
class Node:
    """An element of a request: its name without namespace, its text, its children."""

    name: str
    text: str = ""
    children: "list[Node]" = attrs.field(factory=list)

    def all(self, name: str) -> "list[Node]":
        """Children of that name."""
        return [child for child in self.children if child.name == name]

    def get(self, name: str) -> str | None:
        """The text of the first child of that name."""
        return next((child.text.strip() for child in self.children if child.name == name), None)


def parse(data: bytes, root: str) -> Node:
    """The root element. Raises S3Error MalformedXML for anything that is not a plain document with that root."""
    parser = expat.ParserCreate(namespace_separator=" ")
    stack: list[Node] = []
    top: list[Node] = []
    count = 0

    def start(name: str, _attributes: object) -> None:
        nonlocal count
        count += 1
        node = Node(name.rpartition(" ")[2])
        if len(stack) >= MAX_DEPTH or count > MAX_ELEMENTS:
            raise S3Error("MalformedXML")
        (stack[-1].children if stack else top).append(node)
        stack.append(node)

    def end(_name: str) -> None:
        stack.pop()

    def characters(piece: str) -> None:
        stack[-1].text += piece

    def refuse(*_arguments: object) -> None:
        raise S3Error("MalformedXML")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise S3Error("MalformedXML") from error
    if len(top) != 1 or top[0].name != root:
        raise S3Error("MalformedXML")
    return top[0]
