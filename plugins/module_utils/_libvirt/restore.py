# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A guest's folder out of the parts of a snapshot: put together beside the one that is there, then exchanged for it."""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import shutil
import typing as t

from .. import _files
from .. import _ownership as ownership
from .._errors import FleetError
from .._process import Runner, run
from . import definition, disks, names, nbd
from .backup import belongings
from .client import Host, library, parse
from .decide import check_fleet
from .job import CHECKPOINT
from .mirror import SEGMENT, Mirror, digest
from .observe import Record

_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
_DISK = re.compile(r"[a-z][a-z0-9-]{0,19}")
_MOST = 1 << 50
Facts = dict[str, t.Any]


def occupied(name: str) -> list[str]:
    """The disks that are there."""
    return sorted(str(path) for path in names.folder(name).glob("*.qcow2"))


def check_stopped(host: Host, name: str, fleet: str) -> None:
    """Raises unless the guest is this fleet's and shut off, or not there at all."""
    record = Record(name).read()
    if record:
        check_fleet(f"The directory {names.folder(name)}", record.get("fleet"), fleet)
    domain = host.domain(name)
    if domain is None:
        return
    with host.doing(f"describe VM {name}"):
        marks, active = definition.marks_of(parse(domain.XMLDesc(0))), domain.isActive()
    ownership.guard(f"The domain {name}", marks, "vm", name)
    check_fleet(f"The domain {name}", marks.get(ownership.FLEET), fleet)
    if active:
        raise FleetError("vm_running", f"VM {name} is not shut off.", "Stop it first: vm_state: stopped.")


def read_facts(folder: pathlib.Path) -> Facts:
    """What a snapshot says of the guest, read as foreign data."""
    facts = _files.read_json(folder / "guest.json")
    try:
        sound = facts["version"] == 1 and all(
            _DISK.fullmatch(disk["name"]) and 0 < int(disk["size"]) < _MOST for disk in facts["disks"])
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise FleetError("manifest_damaged", "What the snapshot says of the guest can't be read.",
                         "Choose another snapshot, or use a newer clawops.fleet.")
    return t.cast(Facts, facts)


def assemble(name: str, facts: Facts, parts: t.Mapping[str, pathlib.Path], into: pathlib.Path, runner: Runner = run
             ) -> None:
    """A folder with the disks of a snapshot, each of them verified. The parts are used up on the way."""
    into.mkdir(0o711)
    into.chmod(0o711)
    for disk in facts["disks"]:
        part = parts.get(f"disk-{disk['name']}")
        if part is None or digest(part) != disk["sha256"]:
            raise FleetError("checksum", f"Disk {disk['name']} is not what the snapshot says.",
                             "Choose another snapshot, and run restic check.")
        path = into / names.disk(name, disk["name"]).name
        disks.create(path, int(disk["size"]), runner=runner)
        with nbd.served(path, writable=True) as export:
            for index, data in Mirror(part).segments():
                export.write(index * SEGMENT, data[:export.size - index * SEGMENT])
            export.flush()
    if facts.get("record") is not None:
        _files.write(into / names.record(name).name, _files.pretty(facts["record"]), 0o600)


def place_files(name: str, part: pathlib.Path, into: pathlib.Path) -> None:
    """The files that belong to the guest: those of its folder into the new one, the host key where it is looked for."""
    for kept, path in belongings(name).items():
        source = part / kept
        if source.is_file() and not source.is_symlink():
            target = into / path.name if path.parent == names.folder(name) else path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.part")
            beside.unlink(missing_ok=True)
            shutil.copyfile(source, beside)
            beside.chmod(0o600)
            beside.replace(target)


def forget_past(host: Host, name: str) -> None:
    """What libvirt keeps of the disks that go: checkpoints, and memory that a start would bring back."""
    domain = host.domain(name)
    if domain is None:
        return
    with host.doing(f"forget checkpoints of VM {name}"):
        for checkpoint in domain.listAllCheckpoints(0):
            if checkpoint.getName().startswith(CHECKPOINT):
                checkpoint.delete(library().VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
        if domain.hasManagedSaveImage(0):
            domain.managedSaveRemove(0)


def exchange(new: pathlib.Path, place: pathlib.Path) -> None:
    """Puts a folder in its place in one step; what was there is then where the new one was."""
    if not place.exists():
        new.rename(place)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_CURRENT_FOLDER, os.fsencode(new), _CURRENT_FOLDER, os.fsencode(place), _EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, f"{new} and {place} can't be exchanged: {os.strerror(code)}")
