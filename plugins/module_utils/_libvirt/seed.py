# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What cloud-init finds at a guest's first boot: a NoCloud seed. Secret, and gone when that boot is over."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import pathlib
import re
import time
import typing as t
import xml.etree.ElementTree as ET

from .._errors import bad_value
from . import iso
from .hostkeys import KIND, HostKey

if t.TYPE_CHECKING:
    from .spec import Guest, Network

LABEL = "cidata"
_LIVE, _CONFIG, _INACTIVE = 1, 2, 2  # VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG, VIR_DOMAIN_XML_INACTIVE
_PATIENCE, _PAUSE = 10.0, 0.2
#: What JSON may have in a string and YAML may not, or takes for the end of a line.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_Values = dict[str, t.Any]


def check(user_data: t.Mapping[str, t.Any]) -> None:
    """Raises for what would undo what the guest is known by. Its values are secret, and not shown."""
    if "ssh_keys" in user_data:
        raise bad_value("vm_user_data", "ssh_keys", "The host key of a guest is made and pinned for it: leave it out.")
    if not isinstance(user_data.get("users", []), list):
        raise bad_value("vm_user_data", "users", "Give a list: it is added to vm_user.")


def serial(guest: Guest) -> str:
    """The serial number of its mainboard.

    It says at every boot which instance this is. Without it the boot after the removal of the seed may pass for the
    first one of another instance, which gets other host keys and another network.
    """
    return f"ds=nocloud;i={guest.instance_id};h={guest.name}"


def digest(guest: Guest, host_key: HostKey) -> str:
    """Of all that the seed says. The host key is in it: nobody can try values against it."""
    whole = hashlib.sha256()
    for name, text in sorted(documents(guest, host_key).items()):
        whole.update(f"{name}\0{len(text)}\0{text}".encode())
    return whole.hexdigest()


def documents(guest: Guest, host_key: HostKey) -> dict[str, str]:
    """The files of the seed."""
    user_data = _merged(_ours(guest, host_key), guest.user_data)
    return {
        "meta-data": _yaml({"instance-id": guest.instance_id, "local-hostname": guest.name}),
        "user-data": "#cloud-config\n" + _yaml(user_data),
        "network-config": _yaml(_network_config(guest)),
    }


def build(guest: Guest, host_key: HostKey, out: str | os.PathLike[str]) -> bool:
    """Writes the seed, for root alone (libvirt hands it to QEMU); False when it is there as it should be."""
    place = pathlib.Path(out)
    raw = iso.image(LABEL, {name: text.encode() for name, text in documents(guest, host_key).items()})
    with contextlib.suppress(FileNotFoundError):
        if place.read_bytes() == raw:
            return False
    beside = _beside(place)
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return True


def discard(domain: t.Any, path: str | os.PathLike[str]) -> None:
    """Takes the seed out of the guest and its definition, and removes it. Nothing happens the second time."""
    if domain is not None:
        if domain.isActive():
            _detach(domain, str(path), _LIVE, 0)
        if domain.isPersistent():
            _detach(domain, str(path), _CONFIG, _INACTIVE)
    for file in (pathlib.Path(path), _beside(pathlib.Path(path))):
        file.unlink(missing_ok=True)


def _beside(place: pathlib.Path) -> pathlib.Path:
    return place.with_name(f".{place.name}.part")


def _detach(domain: t.Any, path: str, affects: int, shows: int) -> None:
    drive = _drive(domain, path, shows)
    if drive is None:
        return
    domain.detachDeviceFlags(drive, affects)
    end = time.monotonic() + _PATIENCE
    # A guest lets go in its own time; what it holds on to is gone at its next start.
    while _drive(domain, path, shows) is not None and time.monotonic() < end:
        time.sleep(_PAUSE)


def _drive(domain: t.Any, path: str, shows: int) -> str | None:
    for disk in ET.fromstring(domain.XMLDesc(shows)).iterfind("devices/disk"):  # noqa: S314 - libvirt's own
        source = disk.find("source")
        if source is not None and source.get("file") == path:
            return ET.tostring(disk, encoding="unicode")
    return None


def _ours(guest: Guest, host_key: HostKey) -> _Values:
    user = {"name": guest.user.name, "shell": "/bin/bash", "lock_passwd": True, "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "ssh_authorized_keys": list(guest.user.authorized_keys)}
    shares = [[share.tag, share.mount, "virtiofs", f"{'ro' if share.read_only else 'defaults'},nofail", "0", "0"]
              for share in guest.shares]
    return {
        "hostname": guest.name, "manage_etc_hosts": "localhost",
        "users": [user], "ssh_pwauth": False, "disable_root": True,
        "ssh_deletekeys": True, "ssh_genkeytypes": [KIND.split("-")[1]],
        "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": host_key.public},
        "growpart": {"mode": "auto", "devices": ["/"]}, "resize_rootfs": True,
        **({"mounts": shares} if shares else {}),
    }


def _merged(ours: t.Any, theirs: t.Any) -> t.Any:
    """Mappings into one another, lists one after the other, and any other value of theirs in place of ours."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {**ours, **{key: _merged(ours[key], value) if key in ours else value for key, value in theirs.items()}}
    return [*ours, *theirs] if isinstance(ours, list) and isinstance(theirs, list) else theirs


def _network_config(guest: Guest) -> _Values:
    cards = {f"lan{index}": _card(index, mac, network)
             for index, (mac, network) in enumerate(zip(guest.macs, guest.networks))}
    return {"version": 2, "ethernets": cards}


def _card(index: int, mac: str, network: Network) -> _Values:
    """One network card, known by its address: names depend on the slot. A name of our own suits every distribution."""
    card: _Values = {"match": {"macaddress": mac}, "set-name": f"lan{index}", "dhcp4": not network.address}
    if network.address:
        card["addresses"] = [network.address]
    else:
        # The same address again after the guest was made anew.
        card["dhcp-identifier"] = "mac"
    if network.gateway:
        everywhere = "::/0" if ipaddress.ip_address(network.gateway).version == 6 else "0.0.0.0/0"
        card["routes"] = [{"to": everywhere, "via": network.gateway}]
    if network.nameservers:
        card["nameservers"] = {"addresses": list(network.nameservers)}
    if index:
        card["optional"] = True
        card.update({} if network.address else {"dhcp4-overrides": {"route-metric": 100 + 100 * index}})
    return card


def _yaml(value: t.Any) -> str:
    """JSON that is YAML, too."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
