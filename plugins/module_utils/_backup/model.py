# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What a backup is made of: the store, the keys, the manifest, and the protocols that each substrate implements.

What is said of bots holds for VMs: the store knows which of them it is about.

A Source can be read consistently, a Target can be filled and switched over. Both bring the runner that starts
restic where their paths are visible: on this host, or in a Job beside a pod's volumes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import posixpath
import re
import typing as t

from .._errors import FleetError, bad_value
from .._ownership import check_name
from .._process import Finished

ROLES = ("config", "state", "workspace", "browser", "homebrew", "volume")
KINDS = {"bot": "Bot", "vm": "VM", "space": "Space"}
_GUEST_ROLE = re.compile(r"guest|disk-[a-z][a-z0-9-]{0,19}")
MANIFEST = "manifest.json"
MANIFEST_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Keys:
    """The secrets of one bot or VM; they never show in a repr."""

    access_key: str = dataclasses.field(repr=False)
    secret_key: str = dataclasses.field(repr=False)
    password: str = dataclasses.field(repr=False)

    def check(self, subject: str) -> Keys:
        for name in ("access_key", "secret_key", "password"):
            if not getattr(self, name).strip():
                raise FleetError(f"empty_{name}", f"{subject}: {name} is empty.",
                                 "Give one for all, or one of its own to this one.", subject=subject)
        return self


@dataclasses.dataclass(frozen=True)
class Store:
    """The bucket, and where the repository of a bot or VM lies in it."""

    endpoint: str
    bucket: str
    fleet: str
    region: str = "us-east-1"
    ca_cert: str | None = None
    kind: str = "bot"

    def check(self) -> Store:
        check_name("fleet", self.fleet)
        if not re.fullmatch(r"https?://[^/\s@?#]+/?", self.endpoint):
            raise bad_value("endpoint", self.endpoint, "Write http:// or https://, a host and perhaps a port.")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket):
            raise bad_value("bucket", self.bucket, "Use 3 to 63 of a-z, 0-9, '.' and '-'.")
        return self

    def subject(self, name: str) -> str:
        """How messages call it."""
        return f"{KINDS[self.kind]} {name}"

    def prefix(self, bot: str) -> str:
        return f"{self.fleet}/{self.kind}s/{bot}/"

    def url(self, bot: str) -> str:
        return f"s3:{self.endpoint.rstrip('/')}/{self.bucket}/{self.prefix(bot)}"


class Runner(t.Protocol):
    """Starts a program where the paths of a Source or Target are visible."""

    def run(self, argv: t.Sequence[str], env: t.Mapping[str, str], timeout: float) -> Finished: ...


@dataclasses.dataclass(frozen=True)
class Owner:
    user: str
    uid: int
    group: str
    gid: int


@dataclasses.dataclass(frozen=True)
class Database:
    """One SQLite file: where it belongs below its role's path, and which copy in the staging directory it is."""

    path: str
    copy: str
    sha256: str
    size: int
    uid: int
    gid: int
    mode: int


@dataclasses.dataclass(frozen=True)
class Part:
    """One role of a bot's data, as it was on the machine that made the snapshot."""

    role: str
    path: str
    owner: Owner
    mode: int
    databases: tuple[Database, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """manifest.json v1: says what each path of a snapshot means, so that any substrate can take it."""

    fleet: str
    bot: str
    host: str
    substrate: str
    bot_version: str
    created: str
    run: str
    parts: tuple[Part, ...]

    def to_json(self) -> str:
        return json.dumps({"version": MANIFEST_VERSION, **dataclasses.asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads a manifest as foreign data: every path in it is checked before anything is done with it."""
        try:
            raw = json.loads(text)
            version = raw.pop("version")
            if version != MANIFEST_VERSION:
                raise FleetError("manifest_version", f"The manifest has version {version!r}, known is "
                                                     f"{MANIFEST_VERSION}.", "Use a newer clawops.fleet.")
            parts = parts_of(raw.pop("parts"))
            manifest = cls(parts=parts, **{key: str(value) for key, value in raw.items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FleetError("manifest_damaged", f"The manifest can't be read: {error}.",
                             "Choose another snapshot.") from None
        return manifest

    def part(self, role: str) -> Part:
        for part in self.parts:
            if part.role == role:
                return part
        raise FleetError("role_missing", f"The snapshot of {self.bot} holds no {role}, only "
                                         f"{', '.join(part.role for part in self.parts)}.",
                         "Ask for those roles, or choose another snapshot.", bot=self.bot)


def parts_of(raw: t.Iterable[dict[str, t.Any]]) -> tuple[Part, ...]:
    """Parts out of plain values; every path in them is checked."""
    return tuple(map(_part, raw))


def _part(raw: dict[str, t.Any]) -> Part:
    databases = tuple(Database(**database) for database in raw.pop("databases"))
    part = Part(owner=Owner(**raw.pop("owner")), databases=databases, **raw)
    known = part.role in ROLES or _GUEST_ROLE.fullmatch(part.role)
    if not known or not is_plain_absolute(part.path):
        raise _unsafe(part.path)
    for database in databases:
        if not _is_plain_relative(database.path) or not re.fullmatch(r"sqlite/\d+/\d+", database.copy):
            raise _unsafe(database.path)
    return part


def is_plain_absolute(path: str) -> bool:
    return path.startswith("/") and not path.startswith("//") and path != "/" and posixpath.normpath(path) == path


def _is_plain_relative(path: str) -> bool:
    return not path.startswith("/") and posixpath.normpath(path) == path and path.split("/")[0] not in ("..", ".")


def _unsafe(path: str) -> FleetError:
    return FleetError("unsafe_snapshot", f"The manifest names the path {path!r}, which leads outside.",
                      "Somebody tampered with this repository: look at who has its password.")


def moment(stamp: str) -> datetime.datetime:
    """A time as restic writes it (nanoseconds, which older Pythons don't read)."""
    head, dot, tail = stamp.partition(".")
    offset = tail.lstrip("0123456789")
    fraction = f".{tail[:len(tail) - len(offset)]:0<6.6}" if dot else ""
    return datetime.datetime.fromisoformat((head + fraction + offset).replace("Z", "+00:00"))


def instant(parameter: str, text: str) -> datetime.datetime:
    """A point in time as people write it; without a zone nobody knows which one is meant."""
    way = "Write it with its zone, as in 2026-11-21T10:00:00+01:00 or 2026-11-21T09:00:00Z."
    try:
        found = moment(text.strip().replace(" ", "T", 1))
    except ValueError:
        raise bad_value(parameter, text, way) from None
    if found.tzinfo is None:
        raise bad_value(parameter, text, way)
    return found


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One snapshot as the repository lists it."""

    id: str
    time: str
    host: str
    tags: tuple[str, ...]
    paths: tuple[str, ...]
    size: int
    files: int
    #: When it was taken; what repairs a snapshot counts its files anew. 0 when that is not known.
    files_taken: int = 0

    @property
    def manifest(self) -> str:
        """The path of the manifest inside the snapshot."""
        ending = f"/staging/{next(filter(None, map(self.tag, KINDS)), '')}"
        staging = [path for path in self.paths if path.endswith(ending)]
        if len(staging) != 1:
            raise FleetError("manifest_damaged", f"Snapshot {self.id[:8]} has no manifest.", "Choose another snapshot.")
        return posixpath.join(staging[0], MANIFEST)

    @property
    def safety(self) -> bool:
        """Whether it was taken of what a restore replaced: nothing but its id chooses it."""
        return bool(self.tag("safety"))

    def tag(self, name: str) -> str:
        return next((tag.split("=", 1)[1] for tag in self.tags if tag.startswith(f"{name}=")), "")


@dataclasses.dataclass
class Staged:
    """A source made consistent: what restic has to read, and what it must leave out.

    unconfirmed is the run of an earlier attempt whose snapshot, if any, must not count.
    settled says that the fate of this run's snapshot is known; until then its traces stay. facts go into the result.
    safety says that it is what a restore is about to replace. fill is what is still to be done before anything is read;
    it returns what restic must leave out besides. confined says that others can change the paths meanwhile, and that
    restic, which reads them as root, must see nothing else.
    """

    manifest: Manifest
    directory: str
    paths: tuple[str, ...]
    exclude: tuple[str, ...]
    unconfirmed: str = ""
    settled: bool = False
    safety: bool = False
    facts: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    fill: t.Callable[[], t.Sequence[str]] | None = None
    confined: bool = False

    def filled(self) -> t.Sequence[str]:
        """Makes it consistent. Without that there is no snapshot."""
        try:
            return self.fill() if self.fill else ()
        except BaseException:
            self.settled = True
            raise


class Source(t.Protocol):
    """A bot's data where it can be read."""

    @property
    def bot(self) -> str: ...
    @property
    def runner(self) -> Runner: ...
    def observe(self) -> dict[str, t.Any]: ...
    def open(self) -> t.ContextManager[Staged]: ...


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a target remembers about its last restore."""

    snapshot: str
    places: dict[str, str]
    identities: dict[str, str]
    done: bool


@dataclasses.dataclass(frozen=True)
class Safety:
    """What becomes of data that are about to be replaced: who they belong to, on which host, and who takes them."""

    subject: str
    host: str
    take: t.Callable[[Staged], None]

    @contextlib.contextmanager
    def required(self) -> t.Iterator[None]:
        """Without their snapshot they stay where they are."""
        try:
            yield
        except (FleetError, OSError) as error:
            known = error if isinstance(error, FleetError) else FleetError("os_failed", f"{error}.")
            raise FleetError("safety_failed", f"{self.subject}: nothing was replaced, as there is no snapshot of what "
                                              f"is there: {known.message}",
                             f"{known.hint} Or go without it, by safety: false (restore_safety: false for playbooks)."
                             .strip(), cause=known.code) from None


class Target(t.Protocol):
    """A place that takes a bot's data: filled beside the live data, then switched over."""

    @property
    def bot(self) -> str: ...
    @property
    def runner(self) -> Runner: ...
    def record(self) -> Restored | None: ...
    def holds(self, snapshot: str) -> bool: ...
    def places(self) -> dict[str, str]: ...
    def occupied(self) -> list[str]: ...
    def room(self) -> dict[str, int]: ...
    def check(self, manifest: Manifest, size: int) -> None: ...
    def open(self, manifest: Manifest) -> t.ContextManager[list[Scratch]]: ...
    def switch(self, scratches: list[Scratch], manifest: Manifest, snapshot: str, staging: str,
               safety: Safety | None = None) -> list[str]: ...


@dataclasses.dataclass(frozen=True)
class Scratch:
    """An empty directory on the file system of some places, with the roles that are restored into it."""

    directory: str
    roles: tuple[str, ...]
