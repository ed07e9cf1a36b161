# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Guests as sources and targets of backups: where libvirt and restic meet."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pathlib
import shutil
import typing as t
import uuid

from . import _files, _lock
from ._backup.host import HostRunner, identity, lock, staging
from ._backup.model import MANIFEST, Manifest, Owner, Part, Restored, Safety, Scratch, Staged
from ._errors import FleetError
from ._libvirt import names, restore
from ._libvirt.backup import GUEST, Copier, Moment
from ._libvirt.client import Host
from ._libvirt.mirror import check_room

SUBSTRATE = "vm_host"
_ROOT = Owner("root", 0, "root", 0)


def _locked(name: str, runner: HostRunner) -> t.ContextManager[None]:
    """One backup or restore of a guest at a time."""
    return lock(str(names.STATE.parent), f"vm-{name}", runner)


class GuestSource:
    """The disks of one guest, as they are at the moment of the snapshot."""

    def __init__(self, libvirt: Host, name: str, fleet: str, host: str, full: bool = False, timeout: float = 14400
                 ) -> None:
        self.bot, self.fleet, self.host, self.full = name, fleet, host, full
        self.copier, self.runner = Copier(libvirt, name, fleet, timeout), HostRunner()
        # Beside the folders of guests, whose names can't meet it.
        self.staging = str(names.STATE / ".backup" / "staging" / name)

    def observe(self) -> dict[str, t.Any]:
        return dict(self.copier.observe())

    @contextlib.contextmanager
    def open(self) -> t.Iterator[Staged]:
        with _locked(self.bot, self.runner), staging(self.staging, self._stage) as staged:
            yield staged

    def _stage(self, unconfirmed: str) -> Staged:
        with _lock.hold(names.lock(self.bot), f"VM {self.bot}"):
            moment = self.copier.copy(self.full)
        parts = self.copier.parts()
        manifest = Manifest(fleet=self.fleet, bot=self.bot, host=self.host, substrate=SUBSTRATE, bot_version="",
                            run=uuid.uuid4().hex,
                            parts=tuple(Part(path.name, str(path), _ROOT, 0o700) for path in parts),
                            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"))
        os.makedirs(self.staging, 0o700)
        _files.write(os.path.join(self.staging, MANIFEST), manifest.to_json(), 0o600)
        return Staged(manifest, self.staging, tuple(map(str, parts)), (), unconfirmed, facts=_facts(moment))


def _facts(moment: Moment) -> dict[str, t.Any]:
    disks = [{"name": copy.disk.name, "mode": copy.mode, "size": copy.size, "bytes_read": copy.read}
             for copy in moment.copies]
    return {"mode": moment.mode, "consistency": moment.consistency, "reason": moment.reason,
            "bytes_read": moment.read, "disks": disks}


class GuestTarget:
    """The folder of one guest that is shut off, or not there."""

    def __init__(self, libvirt: Host, name: str, fleet: str, keep_previous: bool = False) -> None:
        self.libvirt, self.bot, self.fleet, self.keep_previous = libvirt, name, fleet, keep_previous
        self.runner = HostRunner()
        self.folder = names.folder(name)
        self.scratch = names.STATE / f".restore-{name}"

    @property
    def _record(self) -> pathlib.Path:
        return names.STATE.parent / "restored" / f"vm-{self.bot}.json"

    def record(self) -> Restored | None:
        try:
            return Restored(**_files.read_json(self._record))
        except TypeError:
            return None

    def holds(self, snapshot: str) -> bool:
        """Whether the very disks that a restore of this snapshot made are in place, written to since or not."""
        return self.record() == Restored(snapshot, self.places(), self._identities(), True) and bool(self.occupied())

    def places(self) -> dict[str, str]:
        return {"disks": str(self.folder)}

    def occupied(self) -> list[str]:
        return restore.occupied(self.bot)

    def _identities(self) -> dict[str, str]:
        return {os.path.basename(path): identity(path) for path in self.occupied()}

    def _remember(self, snapshot: str, done: bool) -> None:
        restored = Restored(snapshot, self.places(), self._identities(), done)
        _files.write(self._record, _files.pretty(dataclasses.asdict(restored)), 0o600)

    def room(self) -> dict[str, int]:
        folder = next(folder for folder in (names.STATE, *names.STATE.parents) if folder.is_dir())
        return {str(folder.stat().st_dev): shutil.disk_usage(folder).free}

    def check(self, manifest: Manifest, size: int) -> None:
        manifest.part(GUEST)
        restore.check_stopped(self.libvirt, self.bot, self.fleet)
        check_room(names.STATE, size)

    @contextlib.contextmanager
    def open(self, manifest: Manifest) -> t.Iterator[list[Scratch]]:
        """An empty directory beside the guest's folder; it is gone at the end whatever happens."""
        with _locked(self.bot, self.runner), _lock.hold(names.lock(self.bot), f"VM {self.bot}"):
            names.STATE.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._clean()
            try:
                self.scratch.mkdir(0o700)
                yield [Scratch(str(self.scratch), tuple(part.role for part in manifest.parts))]
            finally:
                self._clean()

    def _clean(self) -> None:
        if os.path.lexists(self.scratch):
            shutil.rmtree(self.scratch)

    def switch(self, scratches: list[Scratch], manifest: Manifest, snapshot: str, staging: str,
               safety: Safety | None = None) -> list[str]:
        parts = {part.role: _plain(self.scratch, part) for part in manifest.parts}
        facts = restore.read_facts(parts[GUEST])
        new = self.scratch / "new"
        restore.assemble(self.bot, facts, parts, new)
        restore.check_stopped(self.libvirt, self.bot, self.fleet)
        self._remember(snapshot, done=False)
        restore.place_files(self.bot, parts[GUEST], new)
        os.sync()
        restore.forget_past(self.libvirt, self.bot)
        restore.exchange(new, self.folder)
        kept = self._keep(new) if self.keep_previous and new.exists() else []
        # A run that finds it done does not look here again.
        self._clean()
        self._remember(snapshot, done=True)
        return kept

    def _keep(self, previous: pathlib.Path) -> list[str]:
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        kept = self.folder.with_name(f"{self.bot}.before-restore-{stamp}")
        previous.rename(kept)
        return [str(kept)]


def _plain(scratch: pathlib.Path, part: Part) -> pathlib.Path:
    path = pathlib.Path(f"{scratch}{part.path}")
    if not path.is_dir() or os.path.realpath(path) != str(path):
        raise FleetError("unsafe_snapshot", f"The snapshot's {part.path} is no directory.", "Choose another snapshot.")
    return path
