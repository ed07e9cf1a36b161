# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Networks of guests: what is asked for, and what libvirt's definition of one says of the same."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t
import xml.etree.ElementTree as ET

from .._errors import FleetError, bad_value
from . import names
from .client import parse as parse_xml

FORWARDS = ("nat", "isolated")
#: A bridge's name, as the kernel has room for it.
_BRIDGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_OURS = f"{{{names.NAMESPACE}}}network"
#: The elements that the collection owns; all others of a definition stay as they are.
_OWNED = ("forward", "domain", "ip", "bridge")
#: The largest network for guests: libvirt's dnsmasq does not serve more.
_LARGEST = 16
_SMALLEST = 29

ET.register_namespace(names.PREFIX, names.NAMESPACE)


@dataclasses.dataclass(frozen=True)
class Network:
    """address is the host's own one in it, with the prefix length. dhcp is the first and the last address given out."""

    name: str
    bridge: str
    address: str
    dhcp: str
    forward: str = "nat"
    domain: str | None = None

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Interface(self.address).network

    def shown(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


def parse(values: t.Mapping[str, t.Any], parameter: str) -> Network:
    """One entry of the module's list."""
    for key, form in (("name", _NAME), ("bridge", _BRIDGE)):
        if not form.fullmatch(values[key]):
            raise bad_value(f"{parameter}.{key}", values[key],
                            "Use letters, digits, '_', '.' and '-'; a bridge's name has 15 characters at most.")
    own = _interface(values["address"], f"{parameter}.address")
    return Network(values["name"], values["bridge"], str(own), _dhcp(values, own, parameter), values["forward"],
                   values.get("domain"))


def parse_all(values: t.Sequence[t.Mapping[str, t.Any]]) -> list[Network]:
    found = [parse(one, f"networks[{index}]") for index, one in enumerate(values)]
    for index, one in enumerate(found):
        for other in found[:index]:
            if {one.name, one.bridge} & {other.name, other.bridge} or one.subnet.overlaps(other.subnet):
                raise bad_value(f"networks[{index}]", one.name, f"Name, bridge or subnet meet those of {other.name}.")
    return found


def _interface(text: str, parameter: str) -> ipaddress.IPv4Interface:
    remedy = "Write the host's own address in the network with the prefix length, such as 192.168.213.1/24."
    try:
        own = ipaddress.IPv4Interface(text)
    except ValueError:
        raise bad_value(parameter, text, remedy) from None
    net = own.network
    if own.ip in (net.network_address, net.broadcast_address) or not _LARGEST <= net.prefixlen <= _SMALLEST:
        raise bad_value(parameter, text, f"{remedy} It is not the network's first or last address, and the prefix "
                                         f"length is {_LARGEST} to {_SMALLEST}.")
    return own


def _dhcp(values: t.Mapping[str, t.Any], own: ipaddress.IPv4Interface, parameter: str) -> str:
    """The upper half of the network where nothing else is said: the lower half is for fixed addresses."""
    net = own.network
    first, last = list(net.subnets())[1][0], net[-2]
    try:
        first = ipaddress.IPv4Address(values.get("dhcp_first") or first)
        last = ipaddress.IPv4Address(values.get("dhcp_last") or last)
    except ValueError as error:
        raise bad_value(f"{parameter}.dhcp_first and dhcp_last", str(error), "Write IPv4 addresses.") from None
    if not (net.network_address < first <= last < net.broadcast_address) or first <= own.ip <= last:
        raise bad_value(f"{parameter}.dhcp_first and dhcp_last", f"{first} to {last}",
                        f"Both lie in {net}, in this order, and the host's own {own.ip} is not between them.")
    return f"{first}-{last}"


# -- libvirt's form ---------------------------------------------------------------------------------------------------


def is_ours(xml: str) -> bool:
    mark = parse_xml(xml).find(f"metadata/{_OURS}")
    return mark is not None and mark.get("managed") == "true"


def observed(xml: str) -> dict[str, t.Any]:
    """What a definition says of that which a Network says, with the same keys."""
    tree = parse_xml(xml)
    forward, bridge, domain = (tree.find(name) for name in ("forward", "bridge", "domain"))
    addresses = [address for address in tree.findall("ip") if address.get("family", "ipv4") == "ipv4"]
    ranges = [f"{one.get('start')}-{one.get('end')}" for address in addresses for one in address.iterfind("dhcp/range")]
    return {
        "name": tree.findtext("name"),
        "bridge": None if bridge is None else bridge.get("name"),
        "address": " ".join(map(_address, addresses)),
        "dhcp": " ".join(ranges),
        "forward": "isolated" if forward is None else forward.get("mode"),
        "domain": None if domain is None else domain.get("name"),
    }


def _address(element: ET.Element) -> str:
    prefix = element.get("prefix") or element.get("netmask") or "32"
    return str(ipaddress.IPv4Interface(f"{element.get('address')}/{prefix}"))


def definition(network: Network, existing: str | None = None) -> str:
    """The definition to hand to libvirt; in an existing one, only what is ours is replaced."""
    tree = parse_xml(existing) if existing else ET.Element("network")
    for child in [*tree]:
        if child.tag in ("name", *_OWNED):
            tree.remove(child)
    ET.SubElement(tree, "name").text = network.name
    _mark(tree)
    if network.forward == "nat":
        ET.SubElement(tree, "forward", mode="nat")
    ET.SubElement(tree, "bridge", name=network.bridge, stp="on", delay="0")
    if network.domain:
        ET.SubElement(tree, "domain", name=network.domain, localOnly="yes")
    own = ipaddress.IPv4Interface(network.address)
    served = ET.SubElement(tree, "ip", address=str(own.ip), prefix=str(own.network.prefixlen))
    first, _dash, last = network.dhcp.partition("-")
    ET.SubElement(ET.SubElement(served, "dhcp"), "range", start=first, end=last)
    return ET.tostring(tree, encoding="unicode")


def _mark(tree: ET.Element) -> None:
    metadata = tree.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(tree, "metadata")
    for old in metadata.findall(_OURS):
        metadata.remove(old)
    ET.SubElement(metadata, _OURS, managed="true")


def refuse_overlap(network: Network, routes: t.Iterable[t.Mapping[str, t.Any]], parameter: str) -> None:
    """routes: as `ip -json -4 route` prints them."""
    for route in routes:
        text = str(route.get("dst", "default"))
        try:
            other = ipaddress.IPv4Network(text, strict=False)
        except ValueError:  # the default route, or a type of route
            continue
        if route.get("dev") != network.bridge and other.prefixlen and other.overlaps(network.subnet):
            raise FleetError("subnet_taken", f"{parameter}: {network.subnet} meets this host's route {text} by "
                                             f"{route.get('dev', 'nothing')}.",
                             "Choose another private network for the guests.", subnet=str(network.subnet), route=text)
