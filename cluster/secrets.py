"""Secret keys: the root pair is drawn at the first start; all are kept sealed in registers, opened by the key file of the state folder."""

import base64
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from random import Random

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.errors import ConfigError, UnavailableError

DOCUMENT = b"root-key"
KEY_FILE = "cluster.key"
CREDENTIALS_FILE = "root-credentials.json"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_WELL_KNOWN = frozenset({"minioadmin", "admin", "password", "secret", "changeme", "storectl"})


@attrs.frozen(kw_only=True)
class KeyPair:
    """An access key and its secret, which repr does not show."""

    access_key: str
    secret_key: str = attrs.field(repr=False)


def draw_key_pair(rng: Random) -> KeyPair:
    """A new pair: 20 and 40 characters, as long as AWS's; 240 random bits are in the secret."""
    access = "".join(rng.choice(_ALPHABET) for _ in range(18))
    secret = base64.urlsafe_b64encode(rng.randbytes(30)).decode()
    return KeyPair(access_key=f"SK{access}", secret_key=secret)


def given_key_pair(environment: Mapping[str, str]) -> KeyPair | None:
    """The pair that the operator gives by environment or file; None: none. Raises ConfigError."""
    access = _given(environment, "STORECTL_ROOT_ACCESS_KEY")
    secret = _given(environment, "STORECTL_ROOT_SECRET_KEY")
    if access is None and secret is None:
        return None
    if access is None or secret is None:
        raise ConfigError(
            "give both STORECTL_ROOT_ACCESS_KEY and STORECTL_ROOT_SECRET_KEY, or neither"
        )
    if not re.fullmatch(r"[A-Za-z0-9._+=@-]{3,128}", access):
        raise ConfigError("STORECTL_ROOT_ACCESS_KEY: 3 to 128 letters, digits and ._+=@-")
    if len(secret) < 8 or secret.lower() in _WELL_KNOWN:
        raise ConfigError(
            "STORECTL_ROOT_SECRET_KEY: at least 8 characters, and not a well-known default"
        )
    return KeyPair(access_key=access, secret_key=secret)


def _given(environment: Mapping[str, str], name: str) -> str | None:
    path = environment.get(f"{name}_FILE")
    if path is None:
        return environment.get(name)
    if name in environment:
        raise ConfigError(f"give {name} or {name}_FILE, not both")
    try:
        check_private(Path(path))
        return Path(path).read_text().strip()
    except OSError as error:
        raise ConfigError(f"{name}_FILE: {path}: {error.strerror}") from error


def check_private(path: Path) -> None:
    """Raises ConfigError where others than the owner may read a secret."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{path} may be read by others (mode {mode:o}): chmod 600 it")


def write_private(path: Path, data: bytes) -> None:
    """A file of mode 0600, durable, replaced as a whole."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def sealing_key(state: Path, rng: Random, *, may_create: bool) -> bytes:
    """The cluster's sealing key, from the state folder. Raises ConfigError where it is missing and must not be."""
    path = state / KEY_FILE
    if path.exists():
        check_private(path)
        return bytes.fromhex(path.read_text().strip())
    if not may_create:
        raise ConfigError(
            f"{path} is missing: these drives were formatted with another state folder. Restore it, or name it with --state."
        )
    key = rng.randbytes(32)
    write_private(path, key.hex().encode() + b"\n")
    return key


def seal(pair: KeyPair, key: bytes, rng: Random) -> bytes:
    """The document that the register holds."""
    nonce = rng.randbytes(12)
    sealed = AESGCM(key).encrypt(nonce, pair.secret_key.encode(), pair.access_key.encode())
    return json.dumps(
        {"access_key": pair.access_key, "nonce": nonce.hex(), "sealed": sealed.hex()}
    ).encode()


def unseal(document: bytes, key: bytes) -> KeyPair:
    """Inverse of seal. Raises ConfigError where the key is not the one, or the document is none."""
    try:
        fields = json.loads(document)
        access = fields["access_key"]
        secret = AESGCM(key).decrypt(
            bytes.fromhex(fields["nonce"]), bytes.fromhex(fields["sealed"]), access.encode()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"the register holds no sealed key: {error}") from error
    except InvalidTag:
        raise ConfigError(
            f"{KEY_FILE} in the state folder does not open this cluster's keys: restore the right one"
        ) from None
    return KeyPair(access_key=access, secret_key=secret.decode())


class Vault:
    """Seals and unseals, once the node has come up and knows its key. Before that it raises UnavailableError."""

    def __init__(self) -> None:
        self._key: bytes | None = None

    def open(self, key: bytes) -> None:
        """From now on this is the cluster's sealing key."""
        self._key = key

    def seal(self, pair: KeyPair, rng: Random) -> bytes:
        """See seal."""
        return seal(pair, self._opened(), rng)

    def unseal(self, document: bytes) -> KeyPair:
        """See unseal."""
        return unseal(document, self._opened())

    def _opened(self) -> bytes:
        if self._key is None:
            raise UnavailableError("the node waits for drives to read its keys")
        return self._key
