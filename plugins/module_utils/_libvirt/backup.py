# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The disks of a guest as they were at one moment, in mirrors beside them; a guest that runs goes on running.

A backup job of libvirt shows that moment, and its checkpoint begins a bitmap of what changes from then on. The next
job reads only that. The mirrors and the checkpoint that they stand for are recorded together, once both are whole:
whatever is lost or doubtful, the next copy is a full one.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import time
import typing as t

from .. import _files
from .. import _ownership as ownership
from .._errors import FleetError
from .._process import Runner, run
from . import definition, names, nbd, qcow2
from .client import parse
from .decide import check_fleet
from .guard import Guard
from .job import Disk, Job, disks_of
from .mirror import SEGMENT, Mirror, check_room

GUEST = "guest"
#: How much may be written to a disk while it is copied, as part of its size; QEMU keeps what was there aside.
_ASIDE = 16
_PATIENCE = 60.0


@dataclasses.dataclass(frozen=True)
class Copy:
    """How one disk was copied: mode is full, incremental or unchanged."""

    disk: Disk
    mode: str
    size: int
    read: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Moment:
    """What was copied. consistency is frozen, crash or stopped; reason says why, where more would have been better."""

    copies: tuple[Copy, ...]
    consistency: str
    reason: str = ""

    @property
    def mode(self) -> str:
        """That of the disk which took the most."""
        modes = {copy.mode for copy in self.copies}
        return next(mode for mode in ("full", "incremental", "unchanged") if mode in modes)

    @property
    def read(self) -> int:
        return sum(copy.read for copy in self.copies)


@dataclasses.dataclass(frozen=True)
class State:
    """What the mirrors are: the state at a checkpoint of some disks, or of files that nobody has written since."""

    checkpoint: str = ""
    disks: tuple[str, ...] = ()
    files: dict[str, str] = dataclasses.field(default_factory=dict)


class Copier:
    """Copies the disks of one guest into its mirrors."""

    def __init__(self, host: t.Any, name: str, fleet: str, deadline: float = 14400, runner: Runner = run) -> None:
        self.host, self.name, self.fleet, self.deadline, self.runner = host, name, fleet, deadline, runner
        self.folder = names.mirror(name)

    def observe(self) -> dict[str, int]:
        """Size of each disk."""
        return {disk.name: disk.size() for disk in self._disks(self._domain())}

    def parts(self) -> list[pathlib.Path]:
        """The directories that make up a snapshot."""
        return sorted(path for path in self.folder.iterdir() if path.is_dir())

    def copy(self, full: bool = False) -> Moment:
        """Brings the mirrors to this moment."""
        domain = self._domain()
        disks = self._disks(domain)
        os.makedirs(self.folder, 0o700, exist_ok=True)
        with self.host.doing(f"back up VM {self.name}"):
            moment = self._live(domain, disks, full) if domain.isActive() else self._still(disks, full)
            if moment.consistency == "stopped" and domain.hasManagedSaveImage(0):
                moment = dataclasses.replace(moment, consistency="crash", reason="its memory was saved, not shut down")
            self._describe(domain, moment)
        return moment

    def _domain(self) -> t.Any:
        self.host.wait(_PATIENCE)
        domain = self.host.domain(self.name)
        if domain is None:
            raise FleetError("path_missing", f"There is no VM {self.name} on this host.", "Bring the guest up first.")
        return domain

    def _disks(self, domain: t.Any) -> list[Disk]:
        with self.host.doing(f"describe VM {self.name}"):
            root = parse(domain.XMLDesc(0))
        marks = definition.marks_of(root)
        ownership.guard(f"The domain {self.name}", marks, "vm", self.name)
        check_fleet(f"The domain {self.name}", marks.get(ownership.FLEET), self.fleet)
        found = disks_of(root)
        if not found:
            raise FleetError("no_disks", f"VM {self.name} has no disk of ours.", "Bring the guest up first.")
        return found

    # -- a guest that runs --------------------------------------------------------------------------------------------

    def _live(self, domain: t.Any, disks: list[Disk], full: bool) -> Moment:
        state = self._state()
        since = () if full else self._incremental(state, disks)
        anew = ", ".join(disk.name for disk in disks if disk.name not in since)
        reason = "asked for" if full else anew and f"no earlier copy of {anew} can be continued"
        job = Job(self.host, domain, self.name, disks, self.runner)
        with Guard(self.host.uri, self.name, job.socket, self.runner) as guard:
            job.recover(guard)
            if since:
                try:
                    job.begin(guard, state.checkpoint, since)
                except FleetError as error:
                    if error.code != "libvirt_refused":
                        raise
                    since, reason = (), f"what changed is not known: {error.message}"
            try:
                if not since:
                    self._forget()
                    job.prune("")
                    self._check_room(disks)
                    job.begin(guard, "", ())
                copies = tuple(self._copy_live(job, disk, disk.name in since) for disk in disks)
            finally:
                job.end(guard)
            self._remember(State(job.checkpoint, tuple(disk.name for disk in disks)), disks)
            job.prune(job.checkpoint)
        return Moment(copies, "crash" if job.unfrozen else "frozen", "; ".join(filter(None, (job.unfrozen, reason))))

    def _incremental(self, state: State, disks: list[Disk]) -> tuple[str, ...]:
        """The disks whose mirror can go on from where it is."""
        if not state.checkpoint:
            return ()
        return tuple(disk.name for disk in disks if disk.name in state.disks and self._mirror(disk).sound())

    def _copy_live(self, job: Job, disk: Disk, incremental: bool) -> Copy:
        bitmap = f"backup-{disk.target}" if incremental else None
        with nbd.opened(job.socket, disk.target, bitmap) as export:
            return self._fill(disk, export, "incremental" if incremental else "full")

    # -- a guest that does not ----------------------------------------------------------------------------------------

    def _still(self, disks: list[Disk], full: bool) -> Moment:
        state = self._state()
        stamps = {disk.name: _stamp(disk.path) for disk in disks}
        unchanged = [] if full else [disk.name for disk in disks if state.files.get(disk.name) == stamps[disk.name]
                                     and self._mirror(disk).sound()]
        self._forget()
        self._check_room([disk for disk in disks if disk.name not in unchanged])
        copies = []
        for disk in disks:
            if disk.name in unchanged:
                copies.append(Copy(disk, "unchanged", disk.size(), 0, self._mirror(disk).finish(disk.size())))
                continue
            with nbd.served(disk.path) as export:
                copies.append(self._fill(disk, export, "full"))
        self._remember(State(files=stamps), disks)
        return Moment(tuple(copies), "stopped")

    # -- mirrors ------------------------------------------------------------------------------------------------------

    def _fill(self, disk: Disk, export: nbd.Export, mode: str) -> Copy:
        mirror, end = self._mirror(disk), time.monotonic() + self.deadline
        os.makedirs(mirror.folder, 0o700, exist_ok=True)
        for index, pieces in _by_segment(export):
            filled = [(start, length, None if zero else export.read(index * SEGMENT + start, length))
                      for start, length, zero in pieces]
            mirror.update(index, filled, mode == "full")
            if time.monotonic() > end:
                raise FleetError("timeout", f"Copying {disk.path} took more than {self.deadline:.0f} seconds.",
                                 "Raise timeout.")
        return Copy(disk, mode, export.size, export.read_bytes, mirror.finish(export.size))

    def _mirror(self, disk: Disk) -> Mirror:
        return Mirror(self.folder / disk.part)

    def _check_room(self, disks: t.Sequence[Disk]) -> None:
        """For all that a full copy may take beyond what the mirrors have already."""
        needed = 0
        for disk in disks:
            size = disk.size()
            allocated = min(_allocated(disk.path), size)
            needed += max(0, allocated - self._mirror(disk).used()) + allocated // _ASIDE
        check_room(self.folder, needed)

    def _state(self) -> State:
        try:
            found = _files.read_json(self.folder / "state.json")
            return State(found["checkpoint"], tuple(found["disks"]), dict(found["files"]))
        except (TypeError, KeyError):
            return State()

    def _forget(self) -> None:
        (self.folder / "state.json").unlink(missing_ok=True)

    def _remember(self, state: State, disks: t.Sequence[Disk]) -> None:
        _files.write(self.folder / "state.json", _files.pretty(dataclasses.asdict(state)), 0o600)
        known = {disk.part for disk in disks} | {GUEST}
        for path in self.parts():
            if path.name not in known:
                shutil.rmtree(path)

    def _describe(self, domain: t.Any, moment: Moment) -> None:
        """What belongs to the guest besides its disks."""
        folder = self.folder / GUEST
        os.makedirs(folder, 0o700, exist_ok=True)
        disks = [{"name": copy.disk.name, "size": copy.size, "sha256": copy.sha256} for copy in moment.copies]
        facts = {"version": 1, "name": self.name, "consistency": moment.consistency, "disks": disks,
                 "record": _files.read_json(names.record(self.name))}
        _files.write(folder / "guest.json", _files.pretty(facts), 0o600)
        _files.write(folder / "domain.xml", domain.XMLDesc(_INACTIVE), 0o600)
        for kept, source in belongings(self.name).items():
            (folder / kept).unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, folder / kept)
                (folder / kept).chmod(0o600)


_INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE


def belongings(name: str) -> dict[str, pathlib.Path]:
    """Files of a guest besides its disks: what they are called in a snapshot, and where they are on its host."""
    return {"nvram.fd": names.nvram(name), "ssh_host_ed25519_key": names.host_key(name)}


def _by_segment(export: nbd.Export) -> t.Iterator[tuple[int, list[tuple[int, int, bool]]]]:
    """What has to be looked at, cut at the borders of segments: start within, length, zeros only."""
    current = -1
    pieces: list[tuple[int, int, bool]] = []
    for offset, length in export.dirty():
        for start, size, zero in export.pieces(offset, length):
            for index, within, part in _cut(start, size):
                if index != current and pieces:
                    yield current, pieces
                    pieces = []
                current = index
                pieces.append((within, part, zero))
    if pieces:
        yield current, pieces


def _cut(offset: int, length: int) -> t.Iterator[tuple[int, int, int]]:
    while length:
        index, within = divmod(offset, SEGMENT)
        part = min(length, SEGMENT - within)
        yield index, within, part
        offset, length = offset + part, length - part


def _allocated(path: pathlib.Path) -> int:
    """Bytes that an image and what it stands on take on the host."""
    total = path.stat().st_blocks * 512
    header = qcow2.read(path)
    if header and header.backing:
        total += _allocated(path.parent / header.backing)
    return total


def _stamp(path: pathlib.Path) -> str:
    """Differs once a file was written or replaced."""
    facts = path.stat()
    return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
