# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A guest as the inventory describes it, validated once."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import re
import typing as t
import urllib.parse

from .._errors import bad_value
from .._ownership import check_name
from .._quantity import parse_bytes
from . import names, seed

Values = t.Mapping[str, t.Any]
STATES = ("running", "stopped", "paused", "restarted", "absent")
DISK_MODES = ("overlay", "full")
FIRMWARES = ("bios", "uefi")
CPU_MODES = ("host-model", "host-passthrough", "maximum")
WAITS = ("none", "address", "ssh", "cloud_init")
_LEAST_MEMORY, _LEAST_DISK = 64 * 1024**2, 1024**2
_MOST_DISKS = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"https?://[^\s\0@]+")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: A disk's name is its serial number in the guest, which has room for 20 characters.
_DISK = re.compile(r"[a-z][a-z0-9-]{0,19}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,34}")
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_FEATURE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY = re.compile(r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\r\n\0]*)?")
_PCI = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")


@dataclasses.dataclass(frozen=True)
class Image:
    """What the root disk begins as: a file of the host, or a URL, which needs its SHA-256."""

    path: str | None = None
    url: str | None = None
    sha256: str | None = None

    @property
    def source(self) -> str:
        """The path or the URL."""
        return str(self.path or self.url)

    @property
    def shown(self) -> str:
        """For messages: without the query, which may carry a token."""
        return self.path or urllib.parse.urlsplit(str(self.url))._replace(query="", fragment="").geturl()


@dataclasses.dataclass(frozen=True)
class Disk:
    """An extra disk. size is bytes."""

    name: str
    size: int


@dataclasses.dataclass(frozen=True)
class Network:
    """One network card: on a network of libvirt or on a bridge of the host; by DHCP without an address (CIDR)."""

    network: str | None = names.NETWORK
    bridge: str | None = None
    address: str | None = None
    gateway: str | None = None
    nameservers: tuple[str, ...] = ()

    @property
    def ip(self) -> str | None:
        """The fixed address without the prefix."""
        return self.address.split("/")[0] if self.address else None


@dataclasses.dataclass(frozen=True)
class Share:
    """A directory of the host; mount is where the guest is to have it."""

    path: str
    tag: str
    mount: str
    read_only: bool = False


@dataclasses.dataclass(frozen=True)
class Cpu:
    """None is what suits the host."""

    mode: str | None = None
    disable: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class User:
    """Who logs in by SSH."""

    name: str = "clawops"
    authorized_keys: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Wait:
    """Until when the call waits after a start, and for how many seconds at most."""

    until: str = "cloud_init"
    timeout: int = 600


@dataclasses.dataclass(frozen=True)
class Guest:
    """The effective description. Sizes are bytes; user_data is secret."""

    name: str
    on: str | None = None
    state: str = "running"
    generation: int = 1
    image: Image = Image()
    memory: int = 2 * 1024**3
    memory_max: int = 2 * 1024**3
    cpus: int = 2
    cpus_max: int = 2
    disk: int = 10 * 1024**3
    disk_mode: str = "overlay"
    firmware: str = "bios"
    secure_boot: bool = False
    tpm: bool = False
    machine: str = "q35"
    cpu: Cpu = Cpu()
    networks: tuple[Network, ...] = (Network(),)
    disks: tuple[Disk, ...] = ()
    shares: tuple[Share, ...] = ()
    devices: tuple[str, ...] = ()
    autostart: bool = True
    user: User = User()
    user_data: dict[str, t.Any] = dataclasses.field(default_factory=dict, repr=False)
    wait: Wait = Wait()
    restart: bool = False

    @property
    def instance_id(self) -> str:
        return names.instance_id(self.name, self.generation)

    @property
    def macs(self) -> tuple[str, ...]:
        return tuple(names.mac(self.name, index) for index in range(len(self.networks)))

    @property
    def all_disks(self) -> tuple[Disk, ...]:
        """The root disk first."""
        return (Disk(names.ROOT, self.disk), *self.disks)

    def shown(self) -> dict[str, t.Any]:
        """JSON-able and without secrets: what vm_instance_info calls the effective spec."""
        values = _listed(dataclasses.asdict(self))
        for key in ("on", "state", "restart", "wait"):
            del values[key]
        if self.image.url:
            values["image"]["url"] = self.image.shown
        return {**values, "user_data": sorted(self.user_data)}


def _listed(value: t.Any) -> t.Any:
    """Lists instead of tuples, as JSON has them."""
    if isinstance(value, dict):
        return {key: _listed(one) for key, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value


_KEYS = {field.name for field in dataclasses.fields(Guest)}


def parse(values: Values) -> Guest:
    """Validates one description (keys without the prefix vm_). Raises FleetError at the first bad value."""
    name = check_name("vm name", values.get("name"))
    _check_keys("vm", values, _KEYS)
    given = {key: value for key, value in values.items() if value is not None}
    state = _one_of("vm_state", given.get("state", "running"), STATES)
    memory = _size("vm_memory", given.get("memory", "2Gi"), _LEAST_MEMORY)
    cpus = _count("vm_cpus", given.get("cpus", 2))
    guest = Guest(
        name=name, on=given.get("on") or None, state=state,
        generation=_count("vm_generation", given.get("generation", 1)),
        image=_image(given.get("image") or {}, state != "absent"),
        memory=memory, memory_max=_size("vm_memory_max", given.get("memory_max", memory), _LEAST_MEMORY),
        cpus=cpus, cpus_max=_count("vm_cpus_max", given.get("cpus_max", cpus)),
        disk=_size("vm_disk", given.get("disk", "10Gi"), _LEAST_DISK),
        disk_mode=_one_of("vm_disk_mode", given.get("disk_mode", "overlay"), DISK_MODES),
        firmware=_one_of("vm_firmware", given.get("firmware", "bios"), FIRMWARES),
        secure_boot=_flag("vm_secure_boot", given.get("secure_boot", False)),
        tpm=_flag("vm_tpm", given.get("tpm", False)),
        machine=_match("vm_machine", given.get("machine", "q35"), _WORD, "Give a machine type of QEMU such as q35."),
        cpu=_cpu(given.get("cpu") or {}),
        networks=tuple(_network(one) for one in _list("vm_networks", given.get("networks", [{}]), names.MOST_NETWORKS)),
        disks=tuple(_disk(one) for one in _list("vm_disks", given.get("disks", []), _MOST_DISKS)),
        shares=tuple(_share(one) for one in _list("vm_shares", given.get("shares", []))),
        devices=tuple(_device(one) for one in _list("vm_devices", given.get("devices", []))),
        autostart=_flag("vm_autostart", given.get("autostart", True)),
        user=_user(given.get("user") or {}),
        user_data=dict(_mapping("vm_user_data", given.get("user_data") or {}, secret=True)),
        wait=_wait(given.get("wait") or {}),
        restart=_flag("vm_restart", given.get("restart", False)),
    )
    _check_together(guest)
    seed.check(guest.user_data)
    return guest


def parse_all(guests: t.Iterable[Values]) -> list[Guest]:
    """Validates a whole list, names unique."""
    parsed = [parse(values) for values in guests]
    _check_once("vms", (guest.name for guest in parsed), "Name each guest once.")
    return parsed


def _check_together(guest: Guest) -> None:
    if guest.memory > guest.memory_max:
        raise bad_value("vm_memory_max", guest.memory_max, f"It is less than the memory of {guest.name}.")
    if guest.cpus > guest.cpus_max:
        raise bad_value("vm_cpus_max", guest.cpus_max, f"It is less than the processors of {guest.name}.")
    if guest.secure_boot and guest.firmware != "uefi":
        raise bad_value("vm_secure_boot", True, "It needs vm_firmware: uefi.")
    _check_once("vm_disks", (disk.name for disk in guest.disks), "Name each disk once.")
    _check_once("vm_shares", (share.tag for share in guest.shares), "Give each share a tag of its own.")
    _check_once("vm_devices", guest.devices, "Name each device once.")


def _check_once(parameter: str, values: t.Iterable[str], remedy: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise bad_value(parameter, value, remedy)
        seen.add(value)


def _check_keys(where: str, values: Values, known: t.Collection[str]) -> None:
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise bad_value(where, unknown[0], f"Use {', '.join(sorted(known))}.")


def _one_of(parameter: str, value: object, allowed: t.Sequence[str]) -> str:
    if value not in allowed:
        raise bad_value(parameter, value, f"Use one of {', '.join(allowed)}.")
    return str(value)


def _match(parameter: str, value: object, pattern: re.Pattern[str], remedy: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise bad_value(parameter, value, remedy)
    return value


def _flag(parameter: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise bad_value(parameter, value, "Use true or false.")
    return value


def _count(parameter: str, value: object) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[1-9]\d{0,5}", str(value)):
        raise bad_value(parameter, value, "Use a whole number, 1 or more.")
    return int(str(value))


def _size(parameter: str, value: object, least: int) -> int:
    """Bytes, whole KiB: what libvirt counts memory in, and more than a disk's sector."""
    size = parse_bytes(parameter, value) // 1024 * 1024
    if size < least:
        raise bad_value(parameter, value, f"Give {least // 1024**2}Mi or more.")
    return size


def _list(parameter: str, value: object, most: int = 64) -> list[t.Any]:
    if not isinstance(value, (list, tuple)) or len(value) > most:
        raise bad_value(parameter, value, f"Give a list, of {most} at most.")
    return list(value)


def _mapping(parameter: str, value: object, keys: t.Collection[str] | None = None, secret: bool = False) -> Values:
    if not isinstance(value, t.Mapping):
        raise bad_value(parameter, "(hidden)" if secret else value, "Write a mapping.")
    if keys is None:
        return value
    _check_keys(parameter, value, keys)
    return {key: one for key, one in value.items() if one is not None}


def _path(parameter: str, value: object) -> str:
    text = str(value)
    if not text.startswith("/") or ".." in text.split("/") or "\0" in text or text.strip("/") == "":
        raise bad_value(parameter, value, "Give an absolute path without '..'.")
    return str(pathlib.PurePosixPath(text))


def _image(value: object, needed: bool) -> Image:
    given = _mapping("vm_image", value, ("path", "url", "sha256"))
    path, url, sha256 = given.get("path"), given.get("url"), given.get("sha256")
    if not path and not url and not needed:
        return Image()
    if bool(path) == bool(url):
        raise bad_value("vm_image", dict(given), "Give a path on the VM host, or a url with its sha256.")
    if url:
        _match("vm_image.url", url, _URL, "Give an address that begins with https:// or http://, without credentials.")
    if sha256 or url:
        sha256 = _match("vm_image.sha256", str(sha256 or "").lower(), _SHA256, "Give 64 hexadecimal digits.")
    return Image(_path("vm_image.path", path) if path else None, url or None, sha256 or None)


def _cpu(value: object) -> Cpu:
    given = _mapping("vm_cpu", value, ("mode", "disable"))
    mode = _one_of("vm_cpu.mode", given["mode"], CPU_MODES) if "mode" in given else None
    if "disable" not in given:
        return Cpu(mode)
    remedy = "Give names of processor features such as cx16."
    return Cpu(mode, tuple(sorted({_match("vm_cpu.disable", one, _FEATURE, remedy)
                                   for one in _list("vm_cpu.disable", given["disable"])})))


def _network(value: object) -> Network:
    given = _mapping("vm_networks", value, ("network", "bridge", "address", "gateway", "nameservers"))
    network, bridge = given.get("network"), given.get("bridge")
    if network and bridge:
        raise bad_value("vm_networks", dict(given), "Give the network of libvirt or the bridge, not both.")
    if bridge:
        _match("vm_networks.bridge", bridge, _BRIDGE, "Give the name of a bridge of the VM host.")
    else:
        network = _match("vm_networks.network", network or names.NETWORK, _WORD, "Give the name of a network.")
    address = _address(given["address"]) if given.get("address") else None
    gateway = _ip("vm_networks.gateway", given["gateway"]) if given.get("gateway") else None
    if gateway and not address:
        raise bad_value("vm_networks.gateway", gateway, "It belongs to a fixed address.")
    if gateway and ipaddress.ip_address(gateway) not in ipaddress.ip_interface(t.cast(str, address)).network:
        raise bad_value("vm_networks.gateway", gateway, f"It is not in the network of {address}.")
    servers = tuple(_ip("vm_networks.nameservers", one)
                    for one in _list("vm_networks.nameservers", given.get("nameservers", [])))
    return Network(network or None, bridge or None, address, gateway, servers)


def _address(value: object) -> str:
    try:
        interface = ipaddress.ip_interface(str(value))
    except ValueError:
        interface = None
    if interface is None or "/" not in str(value):
        raise bad_value("vm_networks.address", value, "Give an address with its prefix, such as 192.0.2.7/24.")
    return str(interface)


def _ip(parameter: str, value: object) -> str:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise bad_value(parameter, value, "Give an address such as 192.0.2.1.") from None


def _disk(value: object) -> Disk:
    given = _mapping("vm_disks", value, ("name", "size"))
    name = _match("vm_disks.name", given.get("name"), _DISK, "Use 1 to 20 of a-z, 0-9 and '-', first a letter.")
    if name == names.ROOT:
        raise bad_value("vm_disks.name", name, "That is the root disk, whose size is vm_disk.")
    return Disk(name, _size(f"vm_disks.{name}.size", given.get("size"), _LEAST_DISK))


def _share(value: object) -> Share:
    given = _mapping("vm_shares", value, ("path", "tag", "read_only", "mount"))
    path = _path("vm_shares.path", given.get("path") or "")
    tag = _match("vm_shares.tag", given.get("tag") or path.rsplit("/", 1)[-1], _TAG,
                 "Give a tag of letters, digits, '-' and '_', 35 at most.")
    mount = _path("vm_shares.mount", given.get("mount") or f"/mnt/{tag}")
    return Share(path, tag, mount, _flag("vm_shares.read_only", given.get("read_only", False)))


def _device(value: object) -> str:
    match = _PCI.fullmatch(str(value).lower())
    if not match:
        raise bad_value("vm_devices", value, "Give addresses of PCI devices such as 0000:01:00.0.")
    return f"{match[1] or '0000'}:{match[2]}:{match[3]}.{match[4]}"


def _user(value: object) -> User:
    given = _mapping("vm_user", value, ("name", "authorized_keys"))
    name = _match("vm_user.name", given.get("name", "clawops"), _LOGIN, "Give the name of a user.")
    if name == "root":
        raise bad_value("vm_user.name", name, "Give another than root: it gets sudo.")
    keys = _list("vm_user.authorized_keys", given.get("authorized_keys", []))
    remedy = "Give public keys as they stand in authorized_keys, without options."
    return User(name, tuple(_match("vm_user.authorized_keys", str(key).strip(), _KEY, remedy) for key in keys))


def _wait(value: object) -> Wait:
    given = _mapping("vm_wait", value, ("until", "timeout"))
    return Wait(_one_of("vm_wait.until", given.get("until", "cloud_init"), WAITS),
                _count("vm_wait.timeout", given.get("timeout", 600)))
