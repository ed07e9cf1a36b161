# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The definition of a guest's domain: made, read back as what we own of it, and merged into what libvirt has.

What is compared is the same view of both definitions, so that nothing libvirt adds by itself is a difference. Devices
of ours bear an alias that says so; what has none is somebody else's and stays as it is.
"""

from __future__ import annotations

import copy
import json
import re
import typing as t
import xml.etree.ElementTree as ET

from .. import _ownership as ownership
from . import names, seed
from .client import Platform
from .spec import Cpu, Guest, Network, Share

View = dict[str, t.Any]
ALIAS = "ua-clawops-"
SEED = "seed"
AGENT = "org.qemu.guest_agent.0"
#: Root ports beyond those that the devices at the first definition take: for what is attached while it runs.
_SPARE_PORTS = 4
_UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1024, "KiB": 1024, "MB": 1000**2, "M": 1024**2, "MiB": 1024**2,
          "GB": 1000**3, "G": 1024**3, "GiB": 1024**3}
_FAMILY = re.compile(r"pc-(q35|i440fx)-.+")
_MARK = f"{{{names.NAMESPACE}}}guest"
#: What the parts of a view are written with, below the domain. All other parts are devices.
_TAGS: dict[str, tuple[str, ...]] = {
    "accelerator": (), "memory": ("memory", "currentMemory"), "memory_max": ("memory", "currentMemory"),
    "cpus": ("vcpu", "vcpus"), "cpus_max": ("vcpu", "vcpus"), "cpu": ("cpu",), "machine": ("os",),
    "firmware": ("os", "features"), "instance": ("os", "sysinfo"), "shared_memory": ("memoryBacking",),
}

ET.register_namespace(names.PREFIX, names.NAMESPACE)


# -- made ------------------------------------------------------------------------------------------------------------


def build(guest: Guest, fleet: str, platform: Platform, seeded: bool = False) -> ET.Element:
    """The whole definition, with the seed attached or not."""
    root = ET.Element("domain", type="kvm" if platform.kvm else "qemu")
    _add(root, "name", guest.name)
    _add(root, "uuid", names.domain_uuid(fleet, guest.name))
    _add(root, "memory", str(guest.memory_max // 1024), unit="KiB")
    _add(root, "currentMemory", str(guest.memory // 1024), unit="KiB")
    vcpu = _add(root, "vcpu", str(guest.cpus_max), placement="static")
    if guest.cpus != guest.cpus_max:
        vcpu.set("current", str(guest.cpus))
    _add_firmware(root, guest)
    _add_cpu(root, cpu_for(guest.cpu, platform.kvm))
    if guest.shares:
        backing = _add(root, "memoryBacking")
        _add(backing, "source", type="memfd")
        _add(backing, "access", mode="shared")
    _add(root, "clock", offset="utc")
    devices = _add(root, "devices")
    _add_fixed(devices, guest)
    for device in _named(guest, seeded):
        _settle(devices, device)
    if "q35" in guest.machine:
        _add(devices, "controller", type="pci", index="0", model="pcie-root")
        for port in range(_on_pci(devices) + _SPARE_PORTS):
            _add(devices, "controller", type="pci", index=str(port + 1), model="pcie-root-port")
    _sign(root, guest.name, fleet)
    return root


def cpu_for(cpu: Cpu, kvm: bool) -> Cpu:
    """What suits the host, where nothing is said. Without KVM, Linux 6.12 dies of the emulated cx16."""
    mode = cpu.mode or ("host-model" if kvm else "maximum")
    return Cpu(mode, cpu.disable if cpu.disable is not None else () if kvm else ("cx16",))


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _add_firmware(root: ET.Element, guest: Guest) -> None:
    system = _add(root, "os")
    _add(system, "type", "hvm", machine=guest.machine)
    features = _add(root, "features")
    _add(features, "acpi")
    _add(features, "apic")
    _add(system, "smbios", mode="sysinfo")
    information = _add(_add(root, "sysinfo", type="smbios"), "system")
    _add(information, "entry", seed.serial(guest), name="serial")
    if guest.firmware != "uefi":
        return
    system.set("firmware", "efi")
    firmware = _add(system, "firmware")
    secure = "yes" if guest.secure_boot else "no"
    _add(firmware, "feature", enabled=secure, name="secure-boot")
    if guest.secure_boot:
        _add(firmware, "feature", enabled="yes", name="enrolled-keys")
        _add(features, "smm", state="on")
    _add(system, "nvram", str(names.nvram(guest.name)))


def _add_cpu(root: ET.Element, cpu: Cpu) -> None:
    element = _add(root, "cpu", mode=str(cpu.mode))
    for feature in cpu.disable or ():
        _add(element, "feature", policy="disable", name=feature)


def _add_fixed(devices: ET.Element, guest: Guest) -> None:
    """What every guest has. The seed is on SCSI: kernels for clouds lack AHCI, and a SCSI disk can go at any time."""
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=str(names.serial_log(guest.name)), append="off")
    _add(serial, "target", port="0")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "target", type="virtio", name=AGENT)
    rng = _add(devices, "rng", model="virtio")
    _add(rng, "backend", "/dev/urandom", model="random")
    _add(devices, "memballoon", model="virtio")


def _named(guest: Guest, seeded: bool) -> t.Iterator[ET.Element]:
    for disk in guest.all_disks:
        yield _disk(guest.name, disk.name)
    if seeded:
        yield _seed(guest.name)
    for index, network in enumerate(guest.networks):
        yield _network(guest.name, index, network)
    for share in guest.shares:
        yield _share(share)
    for address in guest.devices:
        yield _pci(address)
    if guest.tpm:
        device = _device("tpm", "tpm", model="tpm-crb")
        _add(device, "backend", type="emulator", version="2.0")
        yield device


def _device(tag: str, alias: str, **attributes: str) -> ET.Element:
    device = ET.Element(tag, attributes)
    _add(device, "alias", name=f"{ALIAS}{alias}")
    return device


def _disk(name: str, disk_name: str) -> ET.Element:
    device = _device("disk", f"disk-{disk_name}", type="file", device="disk")
    _add(device, "driver", name="qemu", type="qcow2", discard="unmap")
    _add(device, "source", file=str(names.disk(name, disk_name)))
    _add(device, "target", dev=names.ROOT_TARGET if disk_name == names.ROOT else "", bus="virtio")
    _add(device, "serial", disk_name)
    if disk_name == names.ROOT:
        _add(device, "boot", order="1")
    return device


def _seed(name: str) -> ET.Element:
    device = _device("disk", SEED, type="file", device="disk")
    _add(device, "driver", name="qemu", type="raw")
    _add(device, "source", file=str(names.seed(name)))
    _add(device, "target", dev="sda", bus="scsi")
    _add(device, "readonly")
    return device


def _network(name: str, index: int, network: Network) -> ET.Element:
    device = _device("interface", f"net-{index}", type="bridge" if network.bridge else "network")
    _add(device, "mac", address=names.mac(name, index))
    if network.bridge:
        _add(device, "source", bridge=network.bridge)
    else:
        _add(device, "source", network=str(network.network))
    _add(device, "model", type="virtio")
    return device


def _share(share: Share) -> ET.Element:
    device = _device("filesystem", f"share-{share.tag}", type="mount", accessmode="passthrough")
    _add(device, "driver", type="virtiofs")
    _add(device, "source", dir=share.path)
    _add(device, "target", dir=share.tag)
    if share.read_only:
        _add(device, "readonly")
    return device


def _pci(address: str) -> ET.Element:
    domain, bus, slot, function = re.split("[:.]", address)
    device = _device("hostdev", f"pci-{domain}-{bus}-{slot}-{function}", mode="subsystem", type="pci", managed="yes")
    source = _add(device, "source")
    _add(source, "address", domain=f"0x{domain}", bus=f"0x{bus}", slot=f"0x{slot}", function=f"0x{function}")
    return device


def _on_pci(devices: ET.Element) -> int:
    """How many of the devices take a PCI slot of their own; one more for the controller of the agent's channel."""
    kinds = ("interface", "filesystem", "hostdev", "rng", "memballoon")
    return (1 + sum(len(devices.findall(kind)) for kind in kinds)
            + len(devices.findall("controller[@type='scsi']")) + len(devices.findall("disk/target[@bus='virtio']")))


def _sign(root: ET.Element, name: str, fleet: str) -> None:
    """Says whose it is. The processor as it was asked for is in it because a running domain no longer tells."""
    metadata = root.find("metadata")
    if metadata is None:
        metadata = _add(root, "metadata")
    for mark in metadata.findall(_MARK):
        metadata.remove(mark)
    seen = view(root)
    marks = {key.split("/")[1]: value for key, value in ownership.labels(fleet, "vm", name, seen).items()}
    ET.SubElement(metadata, _MARK, {**marks, "cpu": json.dumps(seen["cpu"])})


# -- read ------------------------------------------------------------------------------------------------------------


def text_of(root: ET.Element) -> str:
    return ET.tostring(root, encoding="unicode")


def marks_of(root: ET.Element) -> dict[str, str]:
    """Whose the domain is, as the labels that everything of ours carries."""
    mark = root.find(f"metadata/{_MARK}")
    if mark is None:
        return {}
    return {f"{ownership.PREFIX}/{key}": value for key, value in mark.attrib.items() if key != "cpu"}


def view(root: ET.Element, machine: str = "") -> View:
    """What we own of a definition. machine is the type that is wanted: as an alias it stands for its whole family."""
    most, now = _amount(root, "memory"), _amount(root, "currentMemory")
    vcpu = root.find("vcpu")
    cpus = int((vcpu.text or "1") if vcpu is not None else 1)
    seen: View = {
        "accelerator": root.get("type"),
        "memory": now or most, "memory_max": most,
        "cpus": int(vcpu.get("current", cpus)) if vcpu is not None else cpus, "cpus_max": cpus,
        "cpu": _cpu_view(root), "machine": _machine_view(root, machine), "firmware": _firmware_view(root),
        "instance": root.findtext("sysinfo/system/entry[@name='serial']"),
        "shared_memory": _attribute(root, "memoryBacking/access", "mode") == "shared",
    }
    seen.update({key: _device_view(device) for key, device in owned(root).items()})
    return seen


def owned(root: ET.Element) -> dict[str, ET.Element]:
    """The devices of ours by their names in a view."""
    found: dict[str, ET.Element] = {}
    for device in root.findall("devices/*"):
        key = _key(device)
        if key:
            found.setdefault(key, device)
    return found


def alias(key: str) -> str:
    """How libvirt calls the device of a view, the other way round."""
    kind, _blank, rest = key.partition(" ")
    words = {"network": "net", "device": "pci"}
    rest = re.sub("[:.]", "-", rest) if kind == "device" else rest
    return f"{ALIAS}{words.get(kind, kind)}" + (f"-{rest}" if rest else "")


def target(root: ET.Element, disk_name: str) -> str | None:
    """The target of a disk of ours."""
    device = owned(root).get(f"disk {disk_name}")
    return None if device is None else _attribute(device, "target", "dev")


def agent_is_connected(live: ET.Element) -> bool:
    channel = owned(live).get("agent channel")
    return channel is not None and _attribute(channel, "target", "state") == "connected"


def _key(device: ET.Element) -> str | None:
    name = _attribute(device, "alias", "name") or ""
    if name.startswith(ALIAS):
        kind, _dash, rest = name[len(ALIAS):].partition("-")
        if kind == "pci":
            domain, bus, slot, function = rest.split("-")
            return f"device {domain}:{bus}:{slot}.{function}"
        return f"{ {'net': 'network'}.get(kind, kind)} {rest}".strip()
    if device.tag == "channel":
        return "agent channel" if _attribute(device, "target", "name") == AGENT else None
    if device.tag == "serial":
        return "serial console" if _attribute(device, "target", "port") in (None, "0") else None
    if device.tag == "controller":
        return "SCSI controller" if (device.get("type"), device.get("index")) == ("scsi", "0") else None
    return "random numbers" if device.tag == "rng" else None


def _device_view(device: ET.Element) -> View:
    read: dict[str, t.Callable[[ET.Element], View]] = {
        "disk": lambda one: {"file": _attribute(one, "source", "file"), "format": _attribute(one, "driver", "type"),
                             "bus": _attribute(one, "target", "bus"), "read_only": one.find("readonly") is not None},
        "interface": lambda one: {"mac": _attribute(one, "mac", "address"), "model": _attribute(one, "model", "type"),
                                  str(one.get("type")): _attribute(one, "source", str(one.get("type")))},
        "filesystem": lambda one: {"path": _attribute(one, "source", "dir"), "tag": _attribute(one, "target", "dir"),
                                   "read_only": one.find("readonly") is not None},
        "hostdev": _pci_view,
        "tpm": lambda one: {"model": one.get("model"), "version": _attribute(one, "backend", "version")},
        "serial": lambda one: {"log": _attribute(one, "log", "file")},
        "channel": lambda one: {"name": _attribute(one, "target", "name")},
        "rng": lambda one: {"model": one.get("model"), "source": one.findtext("backend")},
        "controller": lambda one: {"model": one.get("model")},
    }
    return read[device.tag](device)


def _pci_view(device: ET.Element) -> View:
    address = device.find("source/address")
    part = {key: int(value, 16) for key, value in (address.attrib if address is not None else {}).items()
            if key in ("domain", "bus", "slot", "function")}
    return {"address": "{domain:04x}:{bus:02x}:{slot:02x}.{function:x}".format(**part) if len(part) == 4 else None}


def _attribute(element: ET.Element, path: str, name: str) -> str | None:
    found = element.find(path)
    return None if found is None else found.get(name)


def _amount(root: ET.Element, tag: str) -> int:
    element = root.find(tag)
    if element is None:
        return 0
    return int(element.text or 0) * _UNITS.get(element.get("unit", "KiB"), 1024)


def _cpu_view(root: ET.Element) -> View:
    cpu = root.find("cpu")
    mode = None if cpu is None else cpu.get("mode")
    asked = root.find(f"metadata/{_MARK}")
    if mode == "custom" and asked is not None:
        # A running domain shows the model that was made of what was asked for.
        return t.cast(View, json.loads(asked.get("cpu") or "{}"))
    disabled = cpu.findall("feature[@policy='disable']") if cpu is not None else []
    return {"mode": mode, "disable": sorted(str(feature.get("name")) for feature in disabled)}


def _machine_view(root: ET.Element, wanted: str) -> str | None:
    found = _attribute(root, "os/type", "machine")
    family = _FAMILY.fullmatch(found or "")
    kinds = {"q35": "q35", "i440fx": "pc"}
    return wanted if family and kinds[family[1]] == wanted else found


def _firmware_view(root: ET.Element) -> View:
    loader = root.find("os/loader")
    is_uefi = _attribute(root, ".//os", "firmware") == "efi" or (loader is not None and loader.get("type") == "pflash")
    if not is_uefi:
        return {"type": "bios"}
    feature = root.find("os/firmware/feature[@name='secure-boot']")
    secure = feature.get("enabled") if feature is not None else loader.get("secure") if loader is not None else None
    return {"type": "uefi", "secure_boot": secure == "yes", "nvram": (root.findtext("os/nvram") or "").strip()}


# -- merged ----------------------------------------------------------------------------------------------------------


def differences(wanted: View, found: View) -> dict[str, tuple[t.Any, t.Any]]:
    """Part of a view -> found, wanted; None is absent."""
    return {key: (found.get(key), wanted.get(key)) for key in (*wanted, *(key for key in found if key not in wanted))
            if wanted.get(key) != found.get(key)}


def merge(existing: ET.Element, wanted: ET.Element, keys: t.Collection[str], fleet: str) -> ET.Element:
    """What libvirt has, with these parts as they are wanted."""
    merged = copy.deepcopy(existing)
    merged.set("type", str(wanted.get("type")))
    machine = _attribute(existing, "os/type", "machine")
    for tag in sorted({tag for key in keys for tag in _TAGS.get(key, ())}):
        for element in merged.findall(tag):
            merged.remove(element)
        merged.extend(copy.deepcopy(element) for element in wanted.findall(tag))
    if "machine" in keys:
        _forget_places(merged)
    elif machine:
        # What an alias stood for when the guest was made: it keeps its hardware when QEMU is upgraded.
        t.cast(ET.Element, merged.find("os/type")).set("machine", machine)
    devices, ours, theirs = _devices(merged), owned(merged), owned(wanted)
    for key in (key for key in keys if key not in _TAGS):
        old, new = ours.get(key), theirs.get(key)
        if old is not None:
            devices.remove(old)
        if new is not None:
            device = copy.deepcopy(new)
            _inherit(old, device)
            _settle(devices, device)
    _sign(merged, str(merged.findtext("name")), fleet)
    return merged


def _devices(root: ET.Element) -> ET.Element:
    found = root.find("devices")
    return _add(root, "devices") if found is None else found


def _inherit(old: ET.Element | None, new: ET.Element) -> None:
    """A device that is replaced stays where it was: its name in the guest depends on it."""
    address = old.find("address") if old is not None else None
    if address is not None:
        new.append(copy.deepcopy(address))
    if new.tag == "disk" and new.findtext("serial") not in (None, names.ROOT):
        place = _attribute(old, "target", "dev") if old is not None else None
        t.cast(ET.Element, new.find("target")).set("dev", place or "")


def _settle(devices: ET.Element, device: ET.Element) -> None:
    """Adds it; a disk gets the first target that is free."""
    place = device.find("target")
    if device.tag == "disk" and place is not None and not place.get("dev"):
        taken = {_attribute(disk, "target", "dev") for disk in devices.findall("disk")}
        letters = "bcdefghijklmnopqrstuvwxyz"
        place.set("dev", next(f"vd{letter}" for letter in letters if f"vd{letter}" not in taken))
    devices.append(device)


def _forget_places(root: ET.Element) -> None:
    """Another kind of machine has other buses."""
    devices = _devices(root)
    for controller in devices.findall("controller[@type='pci']"):
        devices.remove(controller)
    for device in devices:
        for address in device.findall("address[@type='pci']"):
            device.remove(address)


def changed_device_xml(live: ET.Element, wanted: ET.Element, key: str) -> str:
    """A device as it is, with the source that is wanted: the only thing of one that changes while it is there."""
    device, new = copy.deepcopy(owned(live)[key]), owned(wanted)[key]
    for source in device.findall("source"):
        device.remove(source)
    device.set("type", str(new.get("type")))
    device.extend(copy.deepcopy(source) for source in new.findall("source"))
    return text_of(device)


def device_xml(root: ET.Element, key: str) -> str:
    """A device as it is attached to a running domain, which finds a place for it by itself."""
    device = copy.deepcopy(owned(root)[key])
    for address in device.findall("address"):
        device.remove(address)
    return text_of(device)
