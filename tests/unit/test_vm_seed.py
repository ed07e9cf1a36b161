# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import json
import pathlib
import xml.etree.ElementTree as ET

import pytest
import yaml
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt import hostkeys, iso, seed, spec
from ansible_collections.clawops.fleet.plugins.module_utils._process import run

KEY = hostkeys.HostKey("-----BEGIN\nthe-private-key\n", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==")
LOGIN = "ssh-ed25519 AAAA operator"


def guest(**values) -> spec.Guest:
    return spec.parse({"name": "zap", "image": {"path": "/srv/debian.qcow2"}, **values})


def read(made: spec.Guest, name: str = "user-data") -> dict:
    return yaml.safe_load(seed.documents(made, KEY)[name])


def test_user_data():
    text = seed.documents(guest(), KEY)["user-data"]
    found = yaml.safe_load(text)
    assert text.startswith("#cloud-config\n") and text.count("\n") == 2
    assert found["ssh_keys"] == {"ed25519_private": KEY.private, "ed25519_public": KEY.public}
    assert found["ssh_deletekeys"] and found["ssh_genkeytypes"] == ["ed25519"] and not found["ssh_pwauth"]
    assert found["growpart"] == {"mode": "auto", "devices": ["/"]} and found["hostname"] == "zap"
    assert "mounts" not in found
    (user,) = read(guest(user={"name": "anna", "authorized_keys": [LOGIN]}))["users"]
    assert (user["name"], user["ssh_authorized_keys"], user["lock_passwd"]) == ("anna", [LOGIN], True)


def test_shares_are_mounted_without_being_needed():
    found = read(guest(shares=[{"path": "/srv/models", "tag": "models"},
                               {"path": "/srv/docs", "tag": "docs", "mount": "/docs", "read_only": True}]))
    assert found["mounts"] == [["models", "/mnt/models", "virtiofs", "defaults,nofail", "0", "0"],
                               ["docs", "/docs", "virtiofs", "ro,nofail", "0", "0"]]


def test_what_the_operator_adds():
    added = {"users": ["default", {"name": "berta"}], "growpart": {"mode": "off"}, "hostname": "other",
             "packages": ["curl"], "runcmd": [["true"]]}
    found = read(guest(user_data=added))
    assert [user if isinstance(user, str) else user["name"] for user in found["users"]] == [
        "clawops", "default", "berta"]
    assert found["growpart"] == {"mode": "off", "devices": ["/"]} and found["hostname"] == "other"
    assert found["packages"] == ["curl"] and found["runcmd"] == [["true"]]


@pytest.mark.parametrize("wrong", [{"ssh_keys": {"rsa_private": "secret"}}, {"users": {"secret": {}}}])
def test_what_the_operator_can_not_add(wrong):
    with pytest.raises(FleetError) as caught:
        seed.check(wrong)
    assert "secret" not in str(caught.value.result())
    seed.check({"users": [], "packages": []})


def test_every_text_is_yaml():
    odd = "\x7f\x85 \N{RIGHT-TO-LEFT MARK}\ufeff\uffff\N{PILE OF POO} \u2028 'quotes' \"too\"\ttab\nline: {{ x }} # no"
    assert read(guest(user_data={"odd": odd, odd: [odd], "number": 1, "yes": True, "nothing": None}))["odd"] == odd


def test_meta_data_and_serial_number_say_the_same():
    made = guest(generation=3)
    assert read(made, "meta-data") == {"instance-id": "zap-3", "local-hostname": "zap"}
    assert seed.serial(made) == "ds=nocloud;i=zap-3;h=zap"


def test_network_config():
    made = guest(networks=[
        {}, {"bridge": "br0", "address": "192.0.2.7/24", "gateway": "192.0.2.1", "nameservers": ["192.0.2.53"]},
        {"address": "2001:db8::7/64", "gateway": "2001:db8::1"}, {}])
    found = read(made, "network-config")
    macs = [{"macaddress": mac} for mac in made.macs]
    assert found == {"version": 2, "ethernets": {
        "lan0": {"match": macs[0], "set-name": "lan0", "dhcp4": True, "dhcp-identifier": "mac"},
        "lan1": {"match": macs[1], "set-name": "lan1", "dhcp4": False, "addresses": ["192.0.2.7/24"],
                 "routes": [{"to": "0.0.0.0/0", "via": "192.0.2.1"}],
                 "nameservers": {"addresses": ["192.0.2.53"]}, "optional": True},
        "lan2": {"match": macs[2], "set-name": "lan2", "dhcp4": False, "addresses": ["2001:db8::7/64"],
                 "routes": [{"to": "::/0", "via": "2001:db8::1"}], "optional": True},
        "lan3": {"match": macs[3], "set-name": "lan3", "dhcp4": True, "dhcp-identifier": "mac", "optional": True,
                 "dhcp4-overrides": {"route-metric": 400}}}}


def test_the_digest_is_that_of_the_content():
    first = seed.digest(guest(), KEY)
    assert first == seed.digest(guest(memory="4Gi"), KEY)
    others = [guest(generation=2), guest(user_data={"packages": []}), guest(networks=[{}, {}]),
              guest(user={"authorized_keys": [LOGIN]})]
    assert len({first, *(seed.digest(one, KEY) for one in others),
                seed.digest(guest(), hostkeys.HostKey("other", KEY.public))}) == 6


def test_build(tmp_path):
    out = tmp_path / "seed.iso"
    (tmp_path / ".seed.iso.part").write_text("of a run that was killed")
    assert seed.build(guest(), KEY, out)
    made = out.stat()
    assert made.st_mode & 0o777 == 0o600 and made.st_size % iso.SECTOR == 0
    assert not seed.build(guest(), KEY, out) and out.stat().st_ino == made.st_ino
    assert seed.build(guest(generation=2), KEY, out)
    assert [file.name for file in tmp_path.iterdir()] == ["seed.iso"]


def test_iso():
    raw = iso.image("cidata", {"user-data": b"u" * 5000, "meta-data": b"m"})
    volume = raw[16 * 2048:17 * 2048]
    assert volume[:7] == b"\1CD001\1" and volume[40:72] == b"cidata".ljust(32) and volume[881] == 1
    assert int.from_bytes(volume[80:84], "little") == len(raw) // 2048 == 25
    assert raw[21 * 2048:22 * 2048] == b"m".ljust(2048, b"\0") and raw[22 * 2048:22 * 2048 + 5000] == b"u" * 5000
    with pytest.raises(ValueError, match="too many"):
        iso.image("x", {f"file-with-a-long-name-{number}": b"" for number in range(50)})


class Domain:
    """A domain whose seed is in its running and its stored definition."""

    def __init__(self, path: pathlib.Path, active: bool = True) -> None:
        disks = "".join(f"<disk type='file'><source file='{file}'/><target dev='{dev}'/></disk>"
                        for file, dev in ((path.with_name("root.qcow2"), "vda"), (path, "sda")))
        text = f"<domain><devices>{disks}<disk type='file' device='cdrom'/></devices></domain>"
        self.shown = {shown: ET.fromstring(text) for shown in (0, 2)}  # noqa: S314
        self.active, self.calls = active, []

    def isActive(self):
        return int(self.active)

    def isPersistent(self):
        return 1

    def XMLDesc(self, flags):
        return ET.tostring(self.shown[flags], encoding="unicode")

    def detachDeviceFlags(self, xml, flags):
        target = ET.fromstring(xml).find("target").get("dev")  # noqa: S314
        self.calls.append((target, flags))
        devices = self.shown[{1: 0, 2: 2}[flags]].find("devices")
        for disk in devices.findall("disk"):
            if disk.find("target") is not None and disk.find("target").get("dev") == target:
                devices.remove(disk)


@pytest.mark.parametrize(("active", "calls"), [(True, [("sda", 1), ("sda", 2)]), (False, [("sda", 2)])])
def test_discard(tmp_path, active, calls):
    out = tmp_path / "seed.iso"
    out.write_bytes(b"x")
    domain = Domain(out, active)
    for _time in range(2):
        seed.discard(domain, out)
        assert domain.calls == calls and not out.exists()
    seed.discard(None, out)


def test_a_guest_that_does_not_let_go_of_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(seed, "_PATIENCE", 0.1)
    monkeypatch.setattr(seed, "_PAUSE", 0.01)
    out = tmp_path / "seed.iso"
    out.write_bytes(b"x")
    domain = Domain(out)
    domain.detachDeviceFlags = lambda xml, flags: None
    seed.discard(domain, out)
    assert not out.exists()


def test_a_host_key_is_made_once(tmp_path):
    folder = tmp_path / "credentials"
    assert hostkeys.find("zap", folder) is None
    made = hostkeys.ensure("zap", folder)
    assert hostkeys.ensure("zap", folder) == hostkeys.find("zap", folder) == made
    (file,) = folder.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("vm-zap-host-ed25519", 0o600)
    assert run(["ssh-keygen", "-y", "-f", str(file)]).out.split()[:2] == made.public.split()
    assert made.fingerprint in run(["ssh-keygen", "-l", "-f", str(file)]).out
    assert made.known_hosts(["zap", "192.0.2.7", "zap"]) == f"zap,192.0.2.7 {made.public}"
    assert "PRIVATE" not in repr(made)
    assert hostkeys.ensure("other", folder).public != made.public
    hostkeys.remove("zap", folder)
    hostkeys.remove("zap", folder)
    assert hostkeys.find("zap", folder) is None


@pytest.mark.parametrize("text", ["", "x\ny\nz", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH"])
def test_a_damaged_host_key(tmp_path, text):
    (tmp_path / "vm-zap-host-ed25519").write_text(text)
    with pytest.raises(FleetError, match="no ED25519 key"):
        hostkeys.ensure("zap", tmp_path)


@pytest.mark.parametrize("options", [["-t", "ecdsa", "-N", ""], ["-t", "ed25519", "-N", "a passphrase"]])
def test_another_kind_of_host_key(tmp_path, options):
    run(["ssh-keygen", "-q", *options, "-f", str(tmp_path / "vm-zap-host-ed25519")])
    with pytest.raises(FleetError, match="no ED25519 key"):
        hostkeys.find("zap", tmp_path)


def test_documents_are_json_too():
    assert json.loads(seed.documents(guest(), KEY)["network-config"])["version"] == 2
