# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A libvirt that keeps domains in memory, and adds to definitions what the real one adds."""

from __future__ import annotations

import copy
import pathlib
import struct
import types
import xml.etree.ElementTree as ET

INACTIVE, LIVE, CONFIG = 2, 1, 2
CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host><guest><arch name='x86_64'>
<machine canonical='pc-q35-10.0'>q35</machine><machine>pc-q35-10.0</machine><machine>pc-q35-9.2</machine>
<domain type='qemu'/>{kvm}</arch></guest></capabilities>"""


class LibvirtError(Exception):
    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code

    def get_error_code(self):
        return self.code

    def get_error_message(self):
        return str(self)


def fail(error: Exception) -> None:
    raise error


class Domain:
    def __init__(self, connection: Connection, xml: ET.Element) -> None:
        self.connection, self.inactive = connection, xml
        self.live: ET.Element | None = None
        self.code, self.auto, self.holds = 5, 0, set()

    def _did(self, what, *values):
        self.connection.calls.append((what, self.name(), *values))
        self.connection.fail_when_told(what)

    def name(self):
        return self.inactive.findtext("name")

    def XMLDesc(self, flags=0):
        self.connection.fail_when_told("XMLDesc")
        shown = self.inactive if flags & INACTIVE or self.live is None else self.live
        return ET.tostring(shown, encoding="unicode")

    def state(self):
        return [self.code, 1]

    def isActive(self):
        return int(self.live is not None)

    def isPersistent(self):
        return 1

    def autostart(self):
        return self.auto

    def setAutostart(self, value):
        self._did("autostart", value)
        self.auto = value

    def create(self):
        self._did("create")
        self.live = copy.deepcopy(self.inactive)
        cpu = self.live.find("cpu")
        if cpu.get("mode") == "host-model":
            cpu.set("mode", "custom")
        ET.SubElement(self.live.find("devices/disk/target"), "what-only-a-running-one-has")
        self.code = 1

    def destroy(self):
        self._did("destroy")
        self.live, self.code = None, 5

    def shutdown(self):
        self._did("shutdown")
        if "shutdown" not in self.holds:
            self.live, self.code = None, 5

    def suspend(self):
        self._did("suspend")
        self.code = 3

    def resume(self):
        self._did("resume")
        self.code = 1

    def undefineFlags(self, flags):
        self._did("undefine", flags)
        self.connection.domains.pop(self.name())

    def setMemoryFlags(self, size, flags):
        self._did("memory", size, flags)
        self.live.find("currentMemory").text = str(size)

    def setVcpusFlags(self, count, flags):
        if flags & 8:
            raise LibvirtError("Guest agent is not responding", 86)
        self._did("vcpus", count, flags)
        self.live.find("vcpu").set("current", str(count))

    def blockResize(self, path, size, flags):
        self._did("resize", pathlib.Path(path).name, size)
        write_disk(path, size)

    def _find(self, tree, name):
        return next(device for device in tree.find("devices") if _alias(device) == name)

    def attachDeviceFlags(self, xml, flags):
        device = _parse(xml)
        self._did("attach", _alias(device))
        assert flags == LIVE and device.find("address") is None
        self.live.find("devices").append(device)

    def updateDeviceFlags(self, xml, flags):
        device = _parse(xml)
        self._did("update", _alias(device))
        old = self._find(self.live, _alias(device))
        self.live.find("devices").remove(old)
        self.live.find("devices").append(device)

    def detachDeviceAlias(self, name, flags):
        self._did("detach", name)
        if name not in self.holds:
            self.live.find("devices").remove(self._find(self.live, name))

    def detachDeviceFlags(self, xml, flags):
        name = _alias(_parse(xml))
        self._did("detach", name)
        tree = self.live if flags == LIVE else self.inactive
        tree.find("devices").remove(self._find(tree, name))

    def interfaceAddresses(self, source):
        return {"vnet0": {"hwaddr": self.inactive.find("devices/interface/mac").get("address"),
                          "addrs": [{"addr": "192.168.213.130"}]}}


class Connection:
    """failures: a call's name to the errors that it raises, one after the other."""

    def __init__(self, kvm: bool = False) -> None:
        self.domains: dict[str, Domain] = {}
        self.networks = {"clawops": 1, "lan": 1, "down": 0}
        self.calls: list[tuple] = []
        self.failures: dict[str, list[Exception]] = {}
        self.kvm, self.version = kvm, 11003000

    def fail_when_told(self, what):
        if self.failures.get(what):
            raise self.failures[what].pop(0)

    def isAlive(self):
        return 1

    def close(self):
        return 0

    def getLibVersion(self):
        return self.version

    def getCapabilities(self):
        return CAPABILITIES.format(kvm="<domain type='kvm'/>" if self.kvm else "")

    def listAllDomains(self):
        return list(self.domains.values())

    def lookupByName(self, name):
        if name not in self.domains:
            raise LibvirtError(f"Domain not found: no domain with matching name '{name}'", 42)
        return self.domains[name]

    def networkLookupByName(self, name):
        if name not in self.networks:
            raise LibvirtError("Network not found", 43)
        return types.SimpleNamespace(isActive=lambda: self.networks[name])

    def defineXML(self, text):
        root = _parse(text)
        name = root.findtext("name")
        self.calls.append(("define", name))
        self.fail_when_told("define")
        _complete(root)
        if name in self.domains:
            self.domains[name].inactive = root
        else:
            self.domains[name] = Domain(self, root)
        return self.domains[name]

    def foreign(self, name):
        """A domain that somebody else has made."""
        self.domains[name] = Domain(self, _parse(
            f"<domain type='qemu'><name>{name}</name><os><type machine='pc-q35-10.0'>hvm</type></os>"
            "<cpu mode='maximum'/><devices/></domain>"))


def _parse(text):
    return ET.fromstring(text)  # noqa: S314 - our own


def _alias(device):
    alias = device.find("alias")
    return None if alias is None else alias.get("name")


def _complete(root: ET.Element) -> None:
    kind = root.find("os/type")
    if kind.get("machine") == "q35":
        kind.set("machine", "pc-q35-10.0")
    kind.set("arch", "x86_64")
    devices = root.find("devices")
    for number, device in enumerate(devices):
        if device.find("address") is None and device.tag in ("disk", "interface", "rng"):
            ET.SubElement(device, "address", type="pci", domain="0x0000", bus=f"0x{number:02x}", slot="0x00")
    if devices.find("input") is None:
        ET.SubElement(devices, "input", type="mouse", bus="ps2")
    if root.find("on_crash") is None:
        ET.SubElement(root, "on_crash").text = "destroy"


def write_disk(path, size: int) -> None:
    """As much of a qcow2 file as is read."""
    begin = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 0, 0, 16, size).ljust(80, b"\0")
    pathlib.Path(path).write_bytes(begin.ljust(512, b"\0"))


def module(connection: Connection) -> types.ModuleType:
    """What `import libvirt` gives."""
    fake = types.ModuleType("libvirt")
    codes = {"VIR_ERR_RPC": 39, "VIR_ERR_NO_CONNECT": 37, "VIR_ERR_INVALID_CONN": 6, "VIR_ERR_NO_DOMAIN": 42,
             "VIR_ERR_NO_NETWORK": 43}
    for name, value in {**codes, "libvirtError": LibvirtError}.items():
        setattr(fake, name, value)
    fake.registerErrorHandler = lambda handler, context: None

    def opened(uri):
        connection.fail_when_told("open")
        return connection

    fake.open = opened
    return fake
