# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What firewall_probe is to ask, out of what a host is, has and allows."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import typing as t
import urllib.parse

from ..module_utils._firewall.canary import expected

METADATA = ("169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254")
Entry = t.Mapping[str, t.Any]


def _version(address: str) -> int:
    parsed = ipaddress.ip_address(address)
    return 4 if parsed.version == 4 or parsed.ipv4_mapped else 6


def _resolved(host: str) -> list[str]:
    """In the order of the resolver, without those that only the machine itself can use."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []
    usable = [address for address in dict.fromkeys(found) if not ipaddress.ip_address(address).is_loopback]
    return [address for address in usable if not ipaddress.ip_address(address).is_link_local]


def probe_addresses(host: str, facts: Entry) -> list[str]:
    """One address of each family: what the name stands for, else the address of the default route."""
    addresses = _resolved(host)
    for version in (4, 6):
        fact = (facts.get(f"default_ipv{version}") or {}).get("address")
        if fact:
            addresses.append(fact)
    return [found for version in (4, 6) for found in [a for a in addresses if _version(a) == version][:1]]


def _checks(addresses: t.Iterable[str], entries: t.Iterable[Entry], expect: str) -> list[dict[str, t.Any]]:
    return [{"name": entry.get("name") or "", "address": address, "port": int(entry["port"]),
             "protocol": entry.get("protocol") or "tcp", "expect": expect}
            for entry, address in itertools.product(entries, addresses)]


def _question(check: Entry) -> tuple[str, int, str]:
    return check["address"], check["port"], check["protocol"]


def probe_checks(targets: t.Iterable[Entry], addresses: list[str], controls: t.Sequence[Entry]) -> dict[str, t.Any]:
    """From outside: the controls on every address, and of the canary's ports those that really listen."""
    checks = _checks(addresses, controls, "open")
    asked = {_question(check) for check in checks}
    notes = [f"IPv{version}: not probed, no address of the host is known."
             for version in (4, 6) if version not in map(_version, addresses)]
    notes += _note("the answer depends on who connects", [target for target in targets if target["expect"] is None])
    known = [target for target in targets if target["expect"]]
    for address in addresses:
        family = f"ipv{_version(address)}"
        for target in known:
            check, = _checks([address], [{**target, "name": target["kind"]}], target["expect"])
            if target[family] and (check["expect"] == "closed" or _question(check) not in asked):
                checks.append(check)
        notes += _note(f"nothing answers on the host itself over {family.replace('ip', 'IP')}",
                       [target for target in known if not target[family]])
    return {"checks": checks, "notes": notes}


def _note(reason: str, targets: t.Sequence[Entry]) -> list[str]:
    ports = ", ".join(f"{target['port']}/{target['protocol']}" for target in targets)
    return [f"Not probed, because {reason}: {ports}."] if targets else []


def probe_allowed(allow: t.Iterable[Entry], endpoint: str = "") -> list[dict[str, t.Any]]:
    """The single addresses and TCP ports of what the guard allows: containers need them, so they have to answer."""
    wanted = [(str(entry.get("purpose") or ""), destination, port) for entry in allow
              if (entry.get("protocol") or "tcp") == "tcp"
              for destination in entry.get("destinations") or () for port in entry.get("ports") or ()]
    url = urllib.parse.urlsplit(endpoint)
    if url.hostname:
        wanted.insert(0, ("backup", url.hostname, url.port or {"http": 80}.get(url.scheme, 443)))
    return [{"name": name, "address": address, "port": int(port), "protocol": "tcp"}
            for name, destination, port in wanted if str(port).isdigit()
            for address in [_single(destination)] if address]


def _single(destination: str) -> str | None:
    """The address, if it is one."""
    try:
        network = ipaddress.ip_network(destination)
    except ValueError:
        return None
    return str(network[0]) if network.num_addresses == 1 else None


def probe_container_checks(targets: t.Iterable[Entry], addresses: list[str], controls: t.Sequence[Entry],
                           services: t.Sequence[Entry], ssh_port: int) -> dict[str, t.Any]:
    """From a container: what it needs answers; the host's own ports and the metadata service don't."""
    listening = [{"name": "SSH of the host", "port": ssh_port, "protocol": "tcp", "ipv4": True, "ipv6": True}]
    listening += [{**target, "name": "host"} for target in targets if target["kind"] == "host"]
    closed = [entry for entry in listening if expected(entry["port"], entry["protocol"], services) == "closed"]
    checks = [{**check, "expect": "open"} for check in controls]
    versions = {_version(check["address"]) for check in checks}
    for entry in closed:
        checks += _checks([a for a in addresses if entry[f"ipv{_version(a)}"]], [entry], "closed")
    checks += _checks(METADATA, [{"name": "metadata", "port": 80}], "closed")
    notes = [f"IPv{version}: not probed, nothing is named that has to answer."
             for version in (4, 6) if version not in versions]
    return {"checks": [check for check in checks if _version(check["address"]) in versions], "notes": notes}


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "probe_addresses": probe_addresses,
            "probe_allowed": probe_allowed,
            "probe_checks": probe_checks,
            "probe_container_checks": probe_container_checks,
        }
