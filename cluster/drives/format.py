"""Who a folder is: format.json in three copies, and what becomes of each folder at a start.

A folder is formatted only when no folder of the node has an identity yet, or when the others say `forming`: an interrupted first
start is finished by the next. A folder with foreign content is never touched. A folder that should have an identity and has none
is MISSING, never formatted: an unmounted drive looks just like an empty folder. Identity counts, not the path: drives that
changed places are recognised by their uuid.
"""

import enum
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import crc32c

from cluster.drives.drive import DriveState
from cluster.drives.file_ops import FileOps
from cluster.drives.shard_files import make_folders
from cluster.errors import ConfigError
from cluster.ids import ClusterId, DriveId, NodeId

VERSION = 1
COPIES = ("format.json", "format.json.1", "format.json.2")
_IGNORED = frozenset({"lost+found"}) | {
    f"{name}.new" for name in COPIES
}  # a first start was cut off


@attrs.frozen(kw_only=True)
class Member:
    """One drive of the node, as every drive of the node remembers it."""

    drive: DriveId
    path: str
    set_id: int
    position: int
    faulty: str = ""  # why it was taken out; it stays out until it is replaced


@attrs.frozen(kw_only=True)
class Format:
    """The content of format.json."""

    cluster: ClusterId
    node: NodeId
    drive: DriveId
    code: str  # "4+2"
    forming: bool
    members: tuple[Member, ...]

    @property
    def me(self) -> Member:
        """This drive among the node's."""
        return next(member for member in self.members if member.drive == self.drive)


class FormatError(Exception):
    """No copy of format.json is readable."""


class Look(enum.Enum):
    """What lies in a folder."""

    ABSENT = "absent"
    EMPTY = "empty"
    FOREIGN = "foreign"
    DAMAGED = "damaged"
    FORMATTED = "formatted"


@attrs.frozen(kw_only=True)
class Found:
    """One of the folders that the operator named."""

    path: Path
    look: Look
    format: Format | None = None
    detail: str = ""


@attrs.frozen(kw_only=True)
class Seat:
    """What becomes of one drive at this start."""

    member: Member
    path: Path
    state: DriveState  # ACTIVE: open it
    reason: str = ""
    format_it: bool = False


@attrs.frozen(kw_only=True)
class Plan:
    """The node's drives. `forming`: this is the first start, or goes on with one that was interrupted."""

    cluster: ClusterId
    node: NodeId
    code: str
    seats: tuple[Seat, ...]
    forming: bool


def encode_format(form: Format) -> bytes:
    """JSON with a CRC32C over its inner document."""
    inner = {
        "version": VERSION,
        "cluster": form.cluster.hex(),
        "node": form.node,
        "drive": form.drive.hex(),
        "code": form.code,
        "forming": form.forming,
        "drives": [
            {
                "drive": member.drive.hex(),
                "path": member.path,
                "set": member.set_id,
                "position": member.position,
                "faulty": member.faulty,
            }
            for member in form.members
        ],
    }
    text = json.dumps(inner, sort_keys=True)
    return json.dumps({"crc32c": f"{crc32c.crc32c(text.encode()):08x}", "format": text}).encode()


def decode_format(data: bytes) -> Format:
    """Inverse of encode_format. Raises FormatError."""
    try:
        outer = json.loads(data)
        text = outer["format"]
        if f"{crc32c.crc32c(text.encode()):08x}" != outer["crc32c"]:
            raise FormatError("checksum mismatch")
        inner = json.loads(text)
        if inner["version"] != VERSION:
            raise FormatError(f"version {inner['version']} is not one that this program knows")
        form = Format(
            cluster=ClusterId(bytes.fromhex(inner["cluster"])),
            node=NodeId(inner["node"]),
            drive=DriveId(bytes.fromhex(inner["drive"])),
            code=inner["code"],
            forming=inner["forming"],
            members=tuple(
                Member(
                    drive=DriveId(bytes.fromhex(entry["drive"])),
                    path=entry["path"],
                    set_id=entry["set"],
                    position=entry["position"],
                    faulty=entry["faulty"],
                )
                for entry in inner["drives"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(str(error)) from error
    if form.drive not in {member.drive for member in form.members}:
        raise FormatError("the drive is not among the drives that it names")
    return form


def inspect(path: Path) -> Found:
    """Look at a folder without changing it."""
    if not path.is_dir():
        detail = "is not a folder" if path.exists() else "does not exist"
        return Found(
            path=path, look=Look.ABSENT if not path.exists() else Look.FOREIGN, detail=detail
        )
    copies = [path / name for name in COPIES]
    problems = []
    for copy in copies:
        try:
            return Found(path=path, look=Look.FORMATTED, format=decode_format(copy.read_bytes()))
        except FileNotFoundError:
            continue
        except (FormatError, OSError) as error:
            problems.append(f"{copy.name}: {error}")
    if problems:
        return Found(path=path, look=Look.DAMAGED, detail="; ".join(problems))
    strangers = sorted(entry.name for entry in path.iterdir() if entry.name not in _IGNORED)
    if strangers:
        return Found(path=path, look=Look.FOREIGN, detail=f"holds {strangers[0]!r}")
    return Found(path=path, look=Look.EMPTY)


def decide(
    founds: Sequence[Found],
    *,
    code: str | None,
    arrange: Callable[[int], tuple[str, Sequence[tuple[int, int]]]],
    new_id: Callable[[], bytes],
) -> Plan:
    """What to do with the folders. Raises ConfigError with a message that says what the operator can do.

    `arrange` gives the code and the (set, position) of each of so many new drives; `new_id` draws 16 random bytes.
    """
    formats = [found.format for found in founds if found.format is not None]
    if not formats:
        return _form(founds, arrange=arrange, new_id=new_id)
    clusters = {form.cluster for form in formats}
    if len(clusters) > 1:
        listed = ", ".join(f"{f.path} ({f.format.cluster.hex()[:8]})" for f in founds if f.format)
        raise ConfigError(
            f"these folders belong to different clusters: {listed}. Name the folders of one."
        )
    # The newest memory wins: a format that is through with forming. Faults may be remembered by different ones.
    reference = max(formats, key=lambda form: not form.forming)
    faults = {m.drive: m.faulty for form in formats for m in form.members if m.faulty}
    members = [attrs.evolve(m, faulty=faults.get(m.drive, "")) for m in reference.members]
    if code is not None and code != reference.code:
        raise ConfigError(
            f"these drives are formatted as {reference.code}, not {code}: leave --erasure out, or name other folders"
        )
    forming = all(form.forming for form in formats)
    seats = tuple(_seat(member, founds, forming=forming) for member in members)
    known = {seat.path for seat in seats}
    extra = [str(found.path) for found in founds if found.path not in known]
    if extra:
        raise ConfigError(f"not drives of this node: {', '.join(extra)}. Leave them out.")
    return Plan(
        cluster=reference.cluster,
        node=reference.node,
        code=reference.code,
        seats=seats,
        forming=forming,
    )


def _form(
    founds: Sequence[Found],
    *,
    arrange: Callable[[int], tuple[str, Sequence[tuple[int, int]]]],
    new_id: Callable[[], bytes],
) -> Plan:
    for found in founds:
        if found.look is Look.FOREIGN:
            raise ConfigError(
                f"{found.path} {found.detail}: storectl only formats empty folders. Empty it or name another."
            )
        if found.look is Look.DAMAGED:
            raise ConfigError(
                f"{found.path}: no copy of format.json is readable ({found.detail}), and no other drive of its node was "
                "named. Name all drives of the node."
            )
    code, places = arrange(len(founds))
    members = tuple(
        Member(drive=DriveId(new_id()), path=str(found.path), set_id=set_id, position=position)
        for found, (set_id, position) in zip(founds, places, strict=True)
    )
    return Plan(
        cluster=ClusterId(new_id()),
        node=NodeId(int.from_bytes(new_id()[:4], "big")),
        code=code,
        seats=tuple(
            Seat(member=member, path=found.path, state=DriveState.ACTIVE, format_it=True)
            for member, found in zip(members, founds, strict=True)
        ),
        forming=True,
    )


def _seat(member: Member, founds: Sequence[Found], *, forming: bool) -> Seat:
    here = [
        found for found in founds if found.format is not None and found.format.drive == member.drive
    ]
    path = here[0].path if here else Path(member.path)
    if len(here) > 1:
        listed = " and ".join(str(found.path) for found in here)
        return Seat(
            member=member,
            path=path,
            state=DriveState.WRONG,
            reason=f"{listed} carry the same identity: remove the copy",
        )
    if member.faulty:
        return Seat(
            member=member,
            path=path,
            state=DriveState.FAULTY,
            reason=f"{member.faulty}: replace the drive",
        )
    if here:
        return Seat(member=member, path=path, state=DriveState.ACTIVE)
    found = next((found for found in founds if found.path == path), None)
    if forming and found is not None and found.look in {Look.EMPTY, Look.ABSENT}:
        return Seat(member=member, path=path, state=DriveState.ACTIVE, format_it=True)
    if found is not None and found.look in {Look.FOREIGN, Look.DAMAGED}:
        reason = f"{path} {found.detail}: put the drive back, or replace it"
        return Seat(member=member, path=path, state=DriveState.WRONG, reason=reason)
    if found is not None and found.format is not None:
        reason = f"{path} holds another drive of this node, and none holds this one: put it back, or replace it"
        return Seat(member=member, path=path, state=DriveState.MISSING, reason=reason)
    what = "is empty" if found is not None and found.look is Look.EMPTY else "is not there"
    reason = f"{path} {what}: mount the drive, or replace it"
    return Seat(member=member, path=path, state=DriveState.MISSING, reason=reason)


def look_again(member: Member, cluster: ClusterId, paths: Sequence[Path]) -> Seat:
    """Look for a drive of a running node in the node's folders. Blocking; nothing is ever formatted here."""
    founds = []
    for path in paths:
        try:
            found = inspect(path)
        except OSError as error:
            found = Found(path=path, look=Look.DAMAGED, detail=str(error))
        if found.format is not None and found.format.cluster != cluster:
            found = Found(path=path, look=Look.FOREIGN, detail="belongs to another cluster")
        founds.append(found)
    return _seat(member, founds, forming=False)


def carry_out(plan: Plan, files: FileOps) -> None:
    """Format the seats that want it. They say `forming` until `finish`; an interruption is made good by the next start."""
    members = tuple(seat.member for seat in plan.seats)
    for seat in plan.seats:
        if not seat.format_it:
            continue
        seat.path.mkdir(parents=True, exist_ok=True)
        form = Format(
            cluster=plan.cluster,
            node=plan.node,
            drive=seat.member.drive,
            code=plan.code,
            forming=True,
            members=members,
        )
        write_format(seat.path, form, files)
    for seat in plan.seats:
        if seat.state is DriveState.ACTIVE and not (seat.path / "shards" / "ff").is_dir():
            _remove_partial_folders(seat.path)
            make_folders(seat.path, files)


def _remove_partial_folders(root: Path) -> None:
    shards = root / "shards"
    if shards.is_dir():
        for folder in shards.iterdir():
            folder.rmdir()  # raises if anything is in it: then this is no interrupted first start
        shards.rmdir()


def finish(plan: Plan, files: FileOps) -> None:
    """The cluster is formed: no drive says `forming` any more."""
    for seat in plan.seats:
        if seat.state is DriveState.ACTIVE:
            form = inspect(seat.path).format
            if form is not None and form.forming:
                write_format(seat.path, attrs.evolve(form, forming=False), files)


def remember_fault(roots: Sequence[Path], drive: DriveId, reason: str, files: FileOps) -> None:
    """Write into the other drives that one is out, so that a restart does not take it in again."""
    for root in roots:
        try:
            form = inspect(root).format
            if form is None or form.drive == drive:
                continue
            members = tuple(
                attrs.evolve(member, faulty=reason) if member.drive == drive else member
                for member in form.members
            )
            write_format(root, attrs.evolve(form, members=members), files)
        except OSError:
            continue  # that drive has troubles of its own; the others remember


def write_format(root: Path, form: Format, files: FileOps) -> None:
    """All three copies, one after the other, each replaced as a whole: a cut leaves two that are good."""
    data = encode_format(form)
    for name in COPIES:
        scratch = root / f"{name}.new"
        scratch.unlink(missing_ok=True)
        fd = files.create(scratch)
        try:
            files.append(fd, 0, [data])
            files.sync_file(fd)
        finally:
            files.close(fd)
        scratch.replace(root / name)
        files.sync_directory(root)


def heal_copies(root: Path, files: FileOps) -> None:
    """Write the copies of format.json anew when one of them is missing or damaged."""
    form = inspect(root).format
    if form is None:
        return
    data = encode_format(form)
    for name in COPIES:
        copy = root / name
        if not copy.exists() or copy.read_bytes() != data:
            write_format(root, form, files)
            return
