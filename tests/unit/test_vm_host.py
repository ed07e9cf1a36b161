# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host offers to its guests, against a libvirt of a few lines."""

from __future__ import annotations

import contextlib
import json
import types
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt import hosting, networks, virtualization
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt.client import parse
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

ENTRY = {"name": "clawops", "bridge": "virbr-clawops", "address": "192.168.213.1/24", "forward": "nat"}
ROUTES = [{"dst": "default", "dev": "eth0"}, {"dst": "10.0.0.0/8", "dev": "eth0"}]
GUEST = "<domain><devices><interface type='network'><source network='clawops'/></interface></devices></domain>"


class Handle:
    """A network or a pool. While it runs, what it says is of the time of its start."""

    def __init__(self, xml: str) -> None:
        self.xml, self.live, self.starts = xml, None, False

    def name(self) -> str:
        return parse(self.xml).findtext("name")

    def XMLDesc(self, flags: int) -> str:
        return self.xml if flags or self.live is None else self.live

    def isActive(self) -> bool:
        return self.live is not None

    def autostart(self) -> bool:
        return self.starts

    def setAutostart(self, on: int) -> None:
        self.starts = bool(on)

    def create(self) -> None:
        assert self.live is None
        self.live = self.xml.replace("<forward mode=\"nat\" />",
                                     "<forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>")

    def destroy(self) -> None:
        assert self.live is not None
        self.live = None


class Libvirt:
    """The connection, and the Host around it."""

    def __init__(self) -> None:
        self.networks: list[Handle] = []
        self.pools: list[Handle] = []
        self.guests: list[str] = []
        self.platform = types.SimpleNamespace(kvm=True)

    @property
    def connection(self) -> Libvirt:
        return self

    @contextlib.contextmanager
    def doing(self, what: str) -> t.Iterator[None]:
        yield

    def listAllNetworks(self) -> list[Handle]:
        return self.networks

    def listAllStoragePools(self) -> list[Handle]:
        return self.pools

    def listAllDomains(self, flags: int) -> list[t.Any]:
        return [types.SimpleNamespace(name=lambda name=name: name, XMLDesc=lambda _flags: GUEST)
                for name in self.guests]

    def _define(self, there: list[Handle], xml: str) -> Handle:
        name = parse(xml).findtext("name")
        for handle in there:
            if handle.name() == name:
                handle.xml = xml
                return handle
        there.append(Handle(xml))
        return there[-1]

    def networkDefineXML(self, xml: str) -> Handle:
        return self._define(self.networks, xml)

    def storagePoolDefineXML(self, xml: str, flags: int) -> Handle:
        return self._define(self.pools, xml)


@pytest.fixture(autouse=True)
def _library(monkeypatch):
    constants = types.SimpleNamespace(VIR_NETWORK_XML_INACTIVE=1, VIR_CONNECT_LIST_DOMAINS_ACTIVE=1)
    monkeypatch.setattr(hosting, "library", lambda: constants)


def reconcile(libvirt, *, routes=None, check=False, pools=(), **changes):
    """(actions, facts) of one run."""
    def runner(_argv, **_options):
        return Finished(0, json.dumps(ROUTES if routes is None else routes), "")

    wanted = networks.parse_all([{**ENTRY, **changes}])
    offered = hosting.Hosting(libvirt, wanted, hosting.parse_pools(pools), runner)
    plan = offered.plan()
    facts = offered.apply(plan) if plan.changed and not check else offered.facts()
    return [(change.subject, change.action) for change in plan.changes], facts


def test_network_and_pool_are_made_once():
    libvirt = Libvirt()
    pools = [{"name": "clawops", "path": "/var/lib/clawops/images/"}]
    actions, facts = reconcile(libvirt, pools=pools)
    assert ("network clawops", "create") in actions
    assert ("pool clawops", "create") in actions
    assert facts["networks"][0]["active"]
    assert facts["networks"][0]["subnet"] == "192.168.213.0/24"
    assert facts["pools"] == [{"name": "clawops", "path": "/var/lib/clawops/images"}]
    assert libvirt.networks[0].starts
    assert reconcile(libvirt, pools=pools)[0] == []


def test_check_mode_says_the_same_and_writes_nothing():
    libvirt = Libvirt()
    foreseen = reconcile(libvirt, check=True)[0]
    assert libvirt.networks == []
    assert reconcile(libvirt)[0] == foreseen


@pytest.mark.parametrize("change", [
    {"domain": "guests.example.org"}, {"forward": "isolated"}, {"bridge": "virbr7"}, {"dhcp_first": "192.168.213.100"},
])
def test_each_change_is_seen_and_the_network_starts_anew(change):
    libvirt = Libvirt()
    reconcile(libvirt)
    actions, facts = reconcile(libvirt, **change)
    assert actions == [("network clawops", "update"), ("network clawops: state", "update")]
    assert not facts["restart_required"]
    assert reconcile(libvirt, **change)[0] == []


def test_guests_keep_their_network_until_they_are_gone():
    libvirt = Libvirt()
    reconcile(libvirt)
    libvirt.guests = ["zap"]
    actions, facts = reconcile(libvirt, domain="example.org")
    assert actions == [("network clawops", "update")]
    assert facts["restart_required"]
    assert facts["networks"][0]["users"] == ["zap"]
    assert reconcile(libvirt, domain="example.org")[0] == []
    libvirt.guests = []
    actions, facts = reconcile(libvirt, domain="example.org")
    assert actions == [("network clawops: state", "update")]
    assert not facts["restart_required"]


def test_what_is_not_ours_in_a_definition_stays():
    libvirt = Libvirt()
    reconcile(libvirt)
    before = libvirt.networks[0]
    before.xml = before.xml.replace("</network>", "<uuid>u</uuid><mac address='m'/><dns enable='yes'/></network>")
    assert reconcile(libvirt)[0] == []
    reconcile(libvirt, domain="example.org")
    tree = parse(libvirt.networks[0].xml)
    assert [tree.findtext("uuid"), tree.find("mac").get("address"), tree.find("dns").get("enable")] == ["u", "m", "yes"]
    assert len(tree.findall("ip")) == len(tree.findall("metadata/*")) == 1


def test_foreign_ones_are_refused():
    libvirt = Libvirt()
    libvirt.networks = [Handle("<network><name>clawops</name></network>")]
    with pytest.raises(FleetError, match="network clawops exists and is not managed"):
        reconcile(libvirt)
    libvirt = Libvirt()
    libvirt.pools = [Handle("<pool type='dir'><name>p</name><target><path>/srv</path></target></pool>")]
    with pytest.raises(FleetError, match=r"pool p \(dir /srv\) exists"):
        reconcile(libvirt, pools=[{"name": "p", "path": "/var/lib/clawops/images"}])


def test_a_network_that_the_host_has_a_route_to_is_refused():
    with pytest.raises(FleetError, match=r"192.168.213.0/24 meets this host's route 192.168.0.0/16 by eth0"):
        reconcile(Libvirt(), routes=[*ROUTES, {"dst": "192.168.0.0/16", "dev": "eth0"}])
    reconcile(Libvirt(), routes=[*ROUTES, {"dst": "192.168.213.0/24", "dev": "virbr-clawops"}])


@pytest.mark.parametrize(("change", "words"), [
    ({"address": "192.168.213.0/24"}, "host's own address"),
    ({"address": "192.168.213.1"}, "host's own address"),
    ({"address": "fd00::1/64"}, "host's own address"),
    ({"bridge": "virbr-much-too-long"}, "15 characters"),
    ({"dhcp_first": "192.168.212.9"}, "Both lie in 192.168.213.0/24"),
    ({"dhcp_first": "192.168.213.1"}, "not between them"),
    ({"dhcp_last": "last"}, "IPv4 addresses"),
])
def test_bad_values_are_named(change, words):
    with pytest.raises(FleetError) as caught:
        networks.parse_all([{**ENTRY, **change}])
    assert words in caught.value.hint


def test_two_networks_are_kept_apart():
    other = {**ENTRY, "name": "lab", "bridge": "virbr-lab"}
    with pytest.raises(FleetError) as caught:
        networks.parse_all([ENTRY, other])
    assert "meet those of clawops" in caught.value.hint
    assert len(networks.parse_all([ENTRY, {**other, "address": "192.168.214.1/24"}])) == 2


def test_a_relative_pool_is_refused():
    with pytest.raises(FleetError, match="pools"):
        hosting.parse_pools([{"name": "p", "path": "images"}])


def test_missing_libvirt_is_foreseen_in_check_mode_only():
    class Missing(Libvirt):
        @property
        def connection(self) -> Libvirt:
            raise FleetError("missing_library", "The Python package libvirt is missing.")

    wanted = networks.parse_all([ENTRY])
    with pytest.raises(FleetError):
        hosting.Hosting(Missing(), wanted, []).plan()
    offered = hosting.Hosting(Missing(), wanted, [], may_be_missing=True)
    assert not offered.plan().complete
    assert offered.facts()["virtualization"] is None


def test_why_there_is_no_kvm(tmp_path):
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse2\n")
    found = virtualization.facts(False, tmp_path)
    assert found["domain_type"] == "qemu"
    assert "shows no virtualization" in found["reason"]
    assert "emulated processor" in found["reason"]
    cpuinfo.write_text("flags\t\t: fpu svm sse2\n")
    assert "load kvm_intel or kvm_amd" in virtualization.why(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    assert "can't use it" in virtualization.why(tmp_path)
    parameters = tmp_path / "sys/module/kvm_amd/parameters"
    parameters.mkdir(parents=True)
    (parameters / "nested").write_text("1\n")
    assert virtualization.facts(True, tmp_path) == {"kvm": True, "nested": True, "domain_type": "kvm", "reason": ""}
