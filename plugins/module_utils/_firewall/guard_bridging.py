# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Packets between ports of the same bridge: the rules see them only where br_netfilter hands them over.

Tagged frames have a switch of their own. Without it, a container reaches its neighbour with a tag of VLAN 0, which
the receiver takes off.
"""

from __future__ import annotations

from .._plan import Plan
from .host import File, Host

MODULE = "br_netfilter"
DIRECTORY = "/proc/sys/net/bridge"
CALLS = {"ipv4": "bridge-nf-call-iptables", "ipv6": "bridge-nf-call-ip6tables"}
TAGGED = "bridge-nf-filter-vlan-tagged"
SWITCHES = (*CALLS.values(), TAGGED)
_HEAD = "# Written by clawops.fleet.network_guard.\n"


def files() -> dict[str, File]:
    """For the boot. udev sets the values again when the module is loaded later."""
    values = "".join(f"net.bridge.{switch}=1\n" for switch in SWITCHES)
    return {"/etc/modules-load.d/clawops-guard.conf": File(0o644, f"{_HEAD}{MODULE}\n"),
            "/etc/sysctl.d/60-clawops-guard.conf": File(0o644, f"{_HEAD}{values}")}


def observe(host: Host) -> dict[str, str]:
    """The switches that the kernel has now."""
    found = {switch: host.read(f"{DIRECTORY}/{switch}") for switch in SWITCHES}
    return {switch: file.text.strip() for switch, file in found.items() if file}


def plan(host: Host, changes: Plan, present: bool) -> None:
    """The switches of Docker's stay when the guard goes."""
    found = observe(host)
    if present and not found and host.has("modprobe") and host.succeeds("modprobe", "--dry-run", MODULE):
        changes.compare(MODULE, "loaded", None)
    for switch, value in found.items():
        changes.compare(_subject(switch), "1" if present else "0" if switch == TAGGED else value, value)


def apply(host: Host, changes: Plan, present: bool) -> None:
    if changes.touches(MODULE):
        host.run("modprobe", MODULE)
    for switch in observe(host):
        if changes.touches(MODULE) or changes.touches(_subject(switch)):
            host.path(f"{DIRECTORY}/{switch}").write_text("1\n" if present else "0\n", encoding="ascii")


def refused(host: Host) -> dict[str, bool]:
    """By family, whether the rules see what goes from port to port."""
    found = observe(host)
    return {family: found.get(switch) == found.get(TAGGED) == "1" for family, switch in CALLS.items()}


def _subject(switch: str) -> str:
    return f"net.bridge.{switch}"
