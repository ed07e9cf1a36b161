# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What a guest asks of its host, checked before anything is written."""

from __future__ import annotations

import os
import pathlib
import typing as t

from .._errors import FleetError, bad_value
from . import disks, images
from .client import Host
from .spec import Guest

_BRIDGES = pathlib.Path("/sys/class/net")
_DEVICES = pathlib.Path("/sys/bus/pci/devices")
_READ_ONLY_SHARES = 11_000_000


class Shared(t.NamedTuple):
    """A directory of the host that a guest has."""

    guest: str
    path: str
    read_only: bool


def check(guest: Guest, host: Host, share_paths: t.Iterable[str], is_new: bool, others: t.Iterable[Shared] = ()
          ) -> None:
    """Raises FleetError for the first thing that this host has not. others is what any guest has of the host."""
    platform = host.platform
    if guest.machine not in platform.machines:
        known = sorted(name for name in platform.machines if "-" not in name)
        raise bad_value("vm_machine", guest.machine, f"This host knows {', '.join(known)} and their versions.")
    if not platform.kvm and guest.cpu.mode in ("host-model", "host-passthrough"):
        raise bad_value("vm_cpu.mode", guest.cpu.mode, "This host has no KVM: use maximum, or leave it out.")
    for network in guest.networks:
        if network.bridge:
            _check_bridge(network.bridge)
        else:
            _check_network(str(network.network), host)
    for share in guest.shares:
        _check_share(share.path, share_paths)
        _check_apart(Shared(guest.name, share.path, share.read_only), others)
        if share.read_only and platform.version < _READ_ONLY_SHARES:
            raise bad_value("vm_shares.read_only", True, "It takes libvirt 11.0 on the VM host.")
    for address in guest.devices:
        if not (_DEVICES / address).exists():
            raise bad_value("vm_devices", address, "The VM host has no such PCI device.")
    least = images.check(guest.image) if is_new else None
    if least:
        disks.fits("vm_disk", guest.disk, least)


def _check_bridge(name: str) -> None:
    if not (_BRIDGES / name / "bridge").is_dir():
        raise bad_value("vm_networks.bridge", name, "The VM host has no such bridge.")


def _check_network(name: str, host: Host) -> None:
    up = host.network_is_up(name)
    if up is None:
        raise bad_value("vm_networks.network", name, "libvirt has no such network: the role vm_host makes clawops.")
    if not up:
        raise FleetError("network_down", f"The network {name} of libvirt is not active.",
                         f"Start it with virsh net-start {name}, or apply the role vm_host.")


def _check_share(path: str, allowed: t.Iterable[str]) -> None:
    real = os.path.realpath(path)
    if not any(os.path.commonpath([real, os.path.realpath(one)]) == os.path.realpath(one) for one in allowed):
        raise bad_value("vm_shares.path", path, "It is below none of share_paths.")
    if not os.path.isdir(real):
        raise bad_value("vm_shares.path", path, "The VM host has no such directory.")


def _check_apart(share: Shared, others: t.Iterable[Shared]) -> None:
    """Whoever writes to a directory can put a link to anywhere in the place of one within it, for the next start."""
    here = os.path.realpath(share.path)
    for other in others:
        there = os.path.realpath(other.path)
        for outer, inner, around in ((there, here, other), (here, there, share)):
            if outer != inner and os.path.commonpath([outer, inner]) == outer and not around.read_only:
                raise bad_value("vm_shares.path", share.path,
                                f"{around.path}, which {around.guest} may write to, lies around {inner}. "
                                "Make the outer one read_only, or share directories beside each other.")
