"""Every setting of a node: typed, with a default, from one TOML file, the environment and flags, in rising order.

`node.listen` in the file is `STORECTL_NODE_LISTEN` in the environment. What is unknown or badly typed is refused by name.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs

from cluster.errors import ConfigError

ENVIRONMENT_PREFIX = "STORECTL_"


def _setting(name: str, default: Any, text: str) -> Any:
    return attrs.field(default=default, metadata={"name": name, "text": text})


@attrs.frozen(kw_only=True)
class Config:
    """The settings. `metadata` of each field has its name in the file and its description."""

    drives: tuple[str, ...] = _setting(
        "node.drives", (), "folders that are drives; {1...6} expands"
    )
    listen: str = _setting(
        "node.listen", "127.0.0.1:9000", "address of the S3 listener; port 0 takes a free one"
    )
    state: str = _setting(
        "node.state", "", "state folder; empty: storectl-state beside the first drive"
    )
    erasure: str = _setting(
        "node.erasure", "", "data+parity, for example 4+2; empty: from the number of drives"
    )
    region: str = _setting("s3.region", "us-east-1", "region that requests are signed for")
    domains: tuple[str, ...] = _setting(
        "s3.domains", (), "domains below which the host name is the bucket"
    )
    max_connections: int = _setting(
        "s3.max_connections", 4096, "open connections, all clients together"
    )
    max_connections_per_address: int = _setting(
        "s3.max_connections_per_address", 2048, "open connections of one address"
    )
    head_seconds: float = _setting(
        "s3.head_seconds", 10.0, "from the first to the last byte of a request head"
    )
    idle_seconds: float = _setting(
        "s3.idle_seconds", 60.0, "an idle connection is closed after that"
    )
    stop_seconds: float = _setting(
        "s3.stop_seconds", 20.0, "requests in flight get that long when the node stops"
    )
    ack: str = _setting(
        "write.ack",
        "shards",
        "when a PUT is acknowledged: shards (k+1 are durable), or node, which waits up to a second more until "
        "the loss of any one node leaves k",
    )
    outage_seconds: float = _setting(
        "access.outage_seconds",
        60.0,
        "known access keys of users are let in that long while too few drives answer to check them",
    )
    buffer_mib: int = _setting("memory.buffer_mib", 96, "chunk buffers of all requests together")
    row_cache_mib: int = _setting(
        "memory.row_cache_mib", 8, "cached records of each drive; 0: none"
    )
    read_grace_seconds: float = _setting(
        "drive.read_grace_seconds", 900.0, "superseded data stays that long, for reads in flight"
    )
    min_free_mib: int = _setting(
        "drive.min_free_mib", 1024, "a drive with less than this free takes no shards"
    )
    min_free_ratio: float = _setting(
        "drive.min_free_ratio",
        0.02,
        "nor one with less than this part of it free; of the two, what is more, up to a tenth",
    )
    log_format: str = _setting("log.format", "human", "human or json")
    log_requests: str = _setting(
        "log.requests", "errors", "which requests are logged: none, errors or all"
    )

    def __attrs_post_init__(self) -> None:
        _one_of("write.ack", self.ack, "shards", "node")
        _one_of("log.format", self.log_format, "human", "json")
        _one_of("log.requests", self.log_requests, "none", "errors", "all")
        for field in attrs.fields(Config):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < 0:
                raise ConfigError(f"{field.metadata['name']} must not be negative")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`. Raises ConfigError."""
        host, colon, port = self.listen.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"node.listen: {self.listen!r} is not HOST:PORT")
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - ":9000" asks for all addresses


def _one_of(name: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, not {value!r}")


def load_config(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Config:
    """File, then environment, then flags (those that are not None). Raises ConfigError naming the setting."""
    fields = {field.metadata["name"]: field for field in attrs.fields(Config)}
    values: dict[str, Any] = {}
    if path is not None:
        for name, value in _flatten(_read(path)).items():
            if name not in fields:
                raise ConfigError(f"{path}: unknown setting {name}")
            values[fields[name].name] = _typed(name, fields[name].type, value)
    for name, field in fields.items():
        text = environment.get(ENVIRONMENT_PREFIX + name.upper().replace(".", "_"))
        if text is not None:
            values[field.name] = _from_text(name, field.type, text)
    values.update({name: value for name, value in flags.items() if value is not None})
    return Config(**values)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _flatten(tables: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for section, content in tables.items():
        if isinstance(content, dict):
            flat.update({f"{section}.{key}": value for key, value in content.items()})
        else:
            flat[section] = content
    return flat


def _typed(name: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        if isinstance(value, list) and all(isinstance(item, get_args(kind)[0]) for item in value):
            return tuple(value)
        raise ConfigError(f"{name} must be a list of strings")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{name} must be of type {kind.__name__}, not {value!r}")
    return value


def _from_text(name: str, kind: Any, text: str) -> Any:
    if get_origin(kind) is tuple:
        return tuple(item for item in text.split(",") if item)
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name} must be of type {kind.__name__}, not {text!r}") from None


def describe() -> list[tuple[str, str, str]]:
    """(name, default, description) of every setting."""
    return [
        (field.metadata["name"], str(field.default), field.metadata["text"])
        for field in attrs.fields(Config)
    ]


def expand_drives(patterns: tuple[str, ...]) -> list[Path]:
    """Folders from patterns: DIR{1...6} stands for DIR1 to DIR6. Raises ConfigError."""
    paths: list[Path] = []
    for pattern in patterns:
        paths += [Path(text).absolute() for text in _expand(pattern)]
    if not paths:
        raise ConfigError("name the drives: --drives 'DIR{1...6}'")
    doubles = sorted({str(path) for path in paths if paths.count(path) > 1})
    if doubles:
        raise ConfigError(f"named twice: {', '.join(doubles)}")
    return paths


def _expand(pattern: str) -> list[str]:
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    inner, closing, after = rest.partition("}")
    first, dots, last = inner.partition("...")
    if not (
        closing
        and dots
        and first.isdecimal()
        and last.isdecimal()
        and int(first) <= int(last) < int(first) + 1000
    ):
        raise ConfigError(f"{pattern!r}: braces take a range of numbers, for example {{1...6}}")
    width = len(first) if first.startswith("0") else 0
    return [
        f"{before}{number:0{width}d}{tail}"
        for number in range(int(first), int(last) + 1)
        for tail in _expand(after)
    ]
