# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The disks of a running guest as they were at one moment, over NBD, by a backup job of libvirt's."""

from __future__ import annotations

import dataclasses
import pathlib
import time
import typing as t
import uuid
import xml.etree.ElementTree as ET

from .._errors import FleetError
from .._process import Runner
from . import definition, names, qcow2
from .client import parse
from .guard import Guard

CHECKPOINT = "clawops-"
LIBVIRT = pathlib.Path("/var/lib/libvirt/qemu")
_PATIENCE = 60.0


@dataclasses.dataclass(frozen=True)
class Disk:
    """A disk of a guest that is ours; part is its name in mirrors and snapshots."""

    name: str
    target: str
    path: pathlib.Path

    @property
    def part(self) -> str:
        return f"disk-{self.name}"

    def size(self) -> int:
        header = qcow2.read(self.path)
        if header is None:
            raise FleetError("path_missing", f"The disk {self.path} is not there.", "Bring the guest up first.")
        return header.virtual_size


def disks_of(root: ET.Element) -> list[Disk]:
    """The disks of a domain that are ours and hold data: not the seed, nothing that somebody else attached."""
    found = []
    for key, element in definition.owned(root).items():
        kind, _blank, name = key.partition(" ")
        source, target = element.find("source"), element.find("target")
        file = None if source is None else source.get("file")
        if kind == "disk" and file and target is not None:
            found.append(Disk(name, target.get("dev", ""), pathlib.Path(file)))
    return found


class Job:
    """The backup job of one running guest."""

    def __init__(self, host: t.Any, domain: t.Any, name: str, disks: t.Sequence[Disk], runner: Runner) -> None:
        self.host, self.domain, self.name, self.disks, self.runner = host, domain, name, disks, runner
        self.checkpoint = self.unfrozen = ""
        self.socket = str(_private_folder(domain) / "clawops-backup.sock")

    def recover(self, guard: Guard) -> None:
        """Ends what a killed run left; refuses when somebody else is at work."""
        if guard.froze():
            self._thaw(guard)
        found = self._running()
        if found and self.socket not in found:
            raise FleetError("busy", f"Another program is taking a backup of VM {self.name}.", "Wait for it to end.")
        self.end(guard)

    def begin(self, guard: Guard, since: str, incremental: t.Sequence[str]) -> None:
        """Stops the guest's file systems for the moment that the copy shows."""
        name = f"{CHECKPOINT}{uuid.uuid4().hex[:12]}"
        backup, checkpoint = self._definitions(name, since, incremental)
        pathlib.Path(self.socket).unlink(missing_ok=True)
        began = time.monotonic()
        self.unfrozen = self._freeze(guard)
        try:
            with self.host.doing(f"begin the backup of VM {self.name}"):
                self.domain.backupBegin(backup, checkpoint, 0)
            if not self.unfrozen and time.monotonic() - began > guard.patience:
                self.unfrozen = "the file systems did not stay frozen"
        finally:
            self._thaw(guard)
        self.checkpoint = name

    def end(self, guard: Guard) -> None:
        """Ends our job, if it runs; the scratch files go with it."""
        if self.socket in self._running():
            with self.host.doing(f"end the backup of VM {self.name}"):
                self.domain.abortJob()
            end = time.monotonic() + _PATIENCE
            while self.socket in self._running():
                if time.monotonic() > end:
                    raise FleetError("job_stuck", f"The backup job of VM {self.name} does not end.",
                                     f"See virsh domjobinfo {self.name}.")
                time.sleep(0.1)
        for disk in self.disks:
            self._scratch(disk).unlink(missing_ok=True)

    def prune(self, keep: str) -> None:
        """Removes our checkpoints but one; of a damaged one only what libvirt knows about it can go."""
        with self.host.doing(f"remove checkpoints of VM {self.name}"):
            for checkpoint in self.domain.listAllCheckpoints(0):
                if checkpoint.getName().startswith(CHECKPOINT) and checkpoint.getName() != keep:
                    _delete(checkpoint)

    def _running(self) -> str:
        """What libvirt says about the backup that is running, or nothing."""
        import libvirt

        try:
            return str(self.domain.backupGetXMLDesc(0))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
                return ""
            raise

    def _definitions(self, name: str, since: str, incremental: t.Sequence[str]) -> tuple[str, str]:
        backup = ET.Element("domainbackup", mode="pull")
        ET.SubElement(backup, "server", transport="unix", socket=self.socket)
        copied = ET.SubElement(backup, "disks")
        checkpoint = ET.Element("domaincheckpoint")
        ET.SubElement(checkpoint, "name").text = name
        marked = ET.SubElement(checkpoint, "disks")
        ours = {disk.target: disk for disk in self.disks}
        for target in _targets(self._live()):
            disk = ours.get(target)
            if disk is None:
                ET.SubElement(copied, "disk", name=target, backup="no")
                ET.SubElement(marked, "disk", name=target, checkpoint="no")
                continue
            how = {"backupmode": "incremental", "incremental": since} if disk.name in incremental else {
                "backupmode": "full"}
            one = ET.SubElement(copied, "disk", {"name": target, "backup": "yes", "type": "file", "exportname": target,
                                                 **how})
            ET.SubElement(one, "driver", type="qcow2")
            ET.SubElement(one, "scratch", file=str(self._scratch(disk)))
            ET.SubElement(marked, "disk", name=target, checkpoint="bitmap")
        return ET.tostring(backup, "unicode"), ET.tostring(checkpoint, "unicode")

    def _live(self) -> ET.Element:
        return parse(self.domain.XMLDesc(0))

    def _scratch(self, disk: Disk) -> pathlib.Path:
        return names.folder(self.name) / f"backup-{disk.target}.scratch"

    def _freeze(self, guard: Guard) -> str:
        """Why the file systems are not frozen; nothing when they are."""
        import libvirt

        if self.domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            return "the guest is paused"
        if not definition.agent_is_connected(self._live()):
            return "the guest agent does not run"
        guard.freezing(True)
        try:
            self.domain.agentSetResponseTimeout(int(guard.patience / 2), 0)
            self.domain.fsFreeze()
        except libvirt.libvirtError as error:
            self._thaw(guard)
            return f"the guest agent can't freeze: {error}"
        return ""

    def _thaw(self, guard: Guard) -> None:
        import libvirt

        if not guard.froze():
            return
        for attempt in range(3):
            try:
                self.domain.fsThaw()
                break
            except libvirt.libvirtError as error:
                if not self.domain.isActive() or not definition.agent_is_connected(self._live()):
                    break
                if attempt == 2:
                    raise FleetError("still_frozen", f"The file systems of VM {self.name} can't be thawed: {error}.",
                                     f"Run virsh domfsthaw {self.name}, or restart the guest.") from None
        guard.freezing(False)


def _delete(checkpoint: t.Any) -> None:
    import libvirt

    try:
        checkpoint.delete(0)
    except libvirt.libvirtError:
        checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)


def _targets(root: ET.Element) -> list[str]:
    return [target.get("dev", "") for target in root.iterfind("devices/disk/target")]


def _private_folder(domain: t.Any) -> pathlib.Path:
    """Where QEMU may make a socket, also under AppArmor: libvirt's own directory for this run of the domain."""
    found = sorted(LIBVIRT.glob(f"domain-{domain.ID()}-*"))
    if not found:
        raise FleetError("no_folder", f"libvirt has no directory {LIBVIRT}/domain-{domain.ID()}-*.",
                         "Is this the host of the VM? Its libvirt must be a local one.")
    return found[0]
