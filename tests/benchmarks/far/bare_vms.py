# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The least that makes guests: qemu-img, then libvirt's define and start, with definitions learnt from guests there.

The verb `learn` writes them down in the folder `learnt`, with what else a start needs; `create` begins from that.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import subprocess
import time
import typing as t
import xml.etree.ElementTree as ET

import libvirt

HERE, STATE = pathlib.Path(__file__).parent, pathlib.Path("/var/lib/clawops/vms")
PAUSE = 0.2


def learn(connection: t.Any, names: list[str], learnt: pathlib.Path) -> None:
    shutil.rmtree(learnt, ignore_errors=True)
    learnt.mkdir()
    kept = {}
    for name in names:
        xml = connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        root = STATE / name / "root.qcow2"
        found = subprocess.run(["qemu-img", "info", "-U", "--output=json", root], check=True, capture_output=True)
        image = json.loads(found.stdout)
        kept[name] = {"xml": xml, "base": image["full-backing-filename"], "size": image["virtual-size"]}
        shutil.copytree(STATE / name, learnt / name, ignore=shutil.ignore_patterns("*.qcow2", "*.log*"))
    (learnt / "guests.json").write_text(json.dumps(kept))


def create(connection: t.Any, guests: dict[str, dict[str, t.Any]], learnt: pathlib.Path, start: bool) -> None:
    for name, guest in guests.items():
        shutil.copytree(learnt / name, STATE / name)
        root = STATE / name / "root.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", guest["base"], "-F", "qcow2", root,
                        str(guest["size"])], check=True)
        domain = connection.defineXML(guest["xml"])
        if start:
            domain.create()


def reach(connection: t.Any, name: str) -> None:
    """Until SSH answers."""
    domain = connection.lookupByName(name)
    found = ET.fromstring(domain.XMLDesc(0)).find("devices/interface/mac")  # noqa: S314 - libvirt's own
    mac, network = found.get("address"), connection.networkLookupByName("clawops")
    while True:
        for lease in network.DHCPLeases(mac):
            try:
                with socket.create_connection((lease["ipaddr"], 22), timeout=5) as peer:
                    if peer.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
        time.sleep(PAUSE)


def main() -> None:
    plan = json.loads((HERE / "args").read_bytes())
    learnt, connection = pathlib.Path(plan["learnt"]), libvirt.open("qemu:///system")
    if plan["verb"] == "learn":
        learn(connection, plan["names"], learnt)
    else:
        create(connection, json.loads((learnt / "guests.json").read_bytes()), learnt, plan["start"])
        for name in plan.get("reach", []):
            reach(connection, name)
    print(json.dumps({"changed": plan["verb"] != "learn"}))
