# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Where a guest's parts are: names in libvirt and paths on its host."""

from __future__ import annotations

import hashlib
import pathlib
import uuid

STATE = pathlib.Path("/var/lib/clawops/vms")
IMAGES = pathlib.Path("/var/lib/clawops/images")
LOCKS = pathlib.Path("/run/clawops/vms")
CREDENTIALS = pathlib.Path("/etc/clawops/credentials")
#: XML namespace of what a domain says of its owner, and the prefix that it is written with.
NAMESPACE, PREFIX = "urn:clawops:fleet:1", "clawops"
NETWORK, BRIDGE, POOL = "clawops", "virbr-clawops", "clawops"
#: Target of the root disk; its name in results, backups and as the disk's serial number is ROOT.
ROOT_TARGET, ROOT = "vda", "root"
#: More than anybody needs, and few enough to try them all.
MOST_NETWORKS = 16


def folder(name: str) -> pathlib.Path:
    return STATE / name


def disk(name: str, disk_name: str = ROOT) -> pathlib.Path:
    """The root disk, or an extra one."""
    return folder(name) / (f"{ROOT}.qcow2" if disk_name == ROOT else f"disk-{disk_name}.qcow2")


def nvram(name: str) -> pathlib.Path:
    return folder(name) / "nvram.fd"


def seed(name: str) -> pathlib.Path:
    return folder(name) / "seed.iso"


def record(name: str) -> pathlib.Path:
    return folder(name) / "spec.json"


def serial_log(name: str) -> pathlib.Path:
    return folder(name) / "serial.log"


def mirror(name: str) -> pathlib.Path:
    """What backups of its disks keep beside them."""
    return folder(name) / "mirror"


def host_key(name: str) -> pathlib.Path:
    """The private SSH host key of the guest. The public one is in it."""
    return CREDENTIALS / f"vm-{name}-host-ed25519"


def lock(name: str) -> pathlib.Path:
    return LOCKS / f"{name}.lock"


def mac(name: str, index: int = 0) -> str:
    """That of the network with this index."""
    seen_by = f"{name}/{index}" if index else name
    tail = hashlib.sha256(seen_by.encode()).hexdigest()[:6]
    return ":".join(["52", "54", "00", tail[:2], tail[2:4], tail[4:]])


def instance_id(name: str, generation: int) -> str:
    """What cloud-init takes a guest for: another one is set up anew."""
    return f"{name}-{generation}"


def domain_uuid(fleet: str, name: str) -> str:
    """The same whenever and wherever the guest is made again: libvirt keeps a TPM by it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}:{fleet}:{name}"))
