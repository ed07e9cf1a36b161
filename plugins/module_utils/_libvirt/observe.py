# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What there is of a guest on its host: its domain, its record, its disks."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import time
import typing as t
import xml.etree.ElementTree as ET

from .. import _files
from .._errors import FleetError
from . import agent, definition, hostkeys, names, qcow2
from .client import Domain, Host, parse
from .hostkeys import HostKey

Json = dict[str, t.Any]
_INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE
_STATES = {1: "running", 2: "running", 3: "paused", 4: "running", 7: "paused"}
_STARTING = (3, 11)  # VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_STARTING_UP
_ATTEMPTS, _PAUSE = 100, 0.1
_DISK = re.compile(r"disk-([a-z][a-z0-9-]*)\.qcow2")
_BOOTED = ["/usr/bin/test", "-e", "/var/lib/cloud/instance/boot-finished"]


class Record:
    """spec.json: whose guest it is, what its disk was made of, and how far its installation has come."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def path(self) -> pathlib.Path:
        return names.record(self.name)

    def read(self) -> Json:
        """Empty where there is none."""
        found = _files.read_json(self.path)
        return found if isinstance(found, dict) else {}

    def write(self, **values: t.Any) -> None:
        """Adds these to what stands in it."""
        for folder in (names.STATE, names.folder(self.name)):
            # QEMU runs as another user, and has to pass through.
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
        for leftover in self.path.parent.glob(f".{self.path.name}.*"):
            # Of a run that was killed.
            leftover.unlink(missing_ok=True)
        _files.write(self.path, _files.pretty({**self.read(), "name": self.name, **values}), 0o600)


@dataclasses.dataclass
class Parts:
    """One guest as it is. inactive and live are its definitions; disks are sizes in bytes by name."""

    domain: Domain | None = None
    state: str = "absent"
    inactive: ET.Element | None = None
    live: ET.Element | None = None
    autostart: bool = False
    record: Json = dataclasses.field(default_factory=dict)
    disks: dict[str, int] = dataclasses.field(default_factory=dict)
    seed: bool = False
    nvram: bool = False
    host_key: HostKey | None = None
    booted: bool = False

    @property
    def active(self) -> bool:
        return self.live is not None


def one(host: Host, name: str) -> Parts:
    """A guest as it is now."""
    parts = Parts(record=Record(name).read(), disks=_disks(name), seed=names.seed(name).exists(),
                  nvram=names.nvram(name).exists())
    with contextlib.suppress(OSError, FleetError):
        # One that can't be read is like none, until somebody needs it.
        parts.host_key = hostkeys.find(name)
    parts.domain = host.domain(name)
    if parts.domain is None:
        return parts
    try:
        with host.doing(f"describe the domain {name}"):
            _describe(parts, parts.domain)
    except FleetError as error:
        if error.code != "not_found":
            raise
        # Gone since it was found.
        return dataclasses.replace(parts, domain=None, state="absent", inactive=None, live=None)
    if parts.live is not None and parts.record and not parts.record.get("first_boot_over"):
        parts.booted = _is_booted(parts.domain, parts.live)
    return parts


def is_paused(code: int) -> bool:
    return _STATES.get(code) == "paused"


def _describe(parts: Parts, domain: Domain) -> None:
    code = _state(domain)
    parts.inactive = parse(domain.XMLDesc(_INACTIVE))
    if domain.isActive():
        parts.live = parse(domain.XMLDesc(0))
    parts.state = _STATES.get(code, "stopped") if parts.active else "stopped"
    parts.autostart = bool(domain.autostart())


def _state(domain: Domain) -> int:
    """libvirt ends what a client that died has begun: a start takes it through a pause."""
    for _attempt in range(_ATTEMPTS):
        code, reason = domain.state()[:2]
        if (code, reason) != _STARTING:
            break
        time.sleep(_PAUSE)
    return int(code)


def _is_booted(domain: Domain, live: ET.Element) -> bool:
    """Whether cloud-init has said its last word, as far as the guest agent can tell."""
    with contextlib.suppress(FleetError):
        return definition.agent_is_connected(live) and agent.run(domain, _BOOTED, timeout=5).rc == 0
    return False


def _disks(name: str) -> dict[str, int]:
    """Sizes by name of the disks of this guest that are files."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for file in sorted(os.listdir(names.folder(name))):
            match = _DISK.fullmatch(file)
            disk = names.ROOT if file == f"{names.ROOT}.qcow2" else match[1] if match else None
            header = qcow2.read(names.folder(name) / file) if disk else None
            if disk and header:
                found[disk] = header.virtual_size
    return found


def recorded() -> list[str]:
    """Guests that have a record here, those without a domain, too."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry for entry in os.listdir(names.STATE) if names.record(entry).is_file())
    return []


def owned(host: Host) -> dict[str, dict[str, str]]:
    """Marks of the domains that are ours, by name."""
    found = {}
    for domain in host.domains():
        with contextlib.suppress(FleetError), host.doing("describe a domain"):
            marks = definition.marks_of(parse(domain.XMLDesc(_INACTIVE)))
            if marks:
                found[str(domain.name())] = marks
    return found
