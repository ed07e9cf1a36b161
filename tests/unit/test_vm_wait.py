# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import base64
import json
import re
import socket
import sys
import threading
import types

import fake_libvirt
import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt import agent, hostkeys, spec, wait
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB=="
KEY = hostkeys.HostKey("private", PUBLIC)
MAC, ADDRESS = "52:54:00:00:00:01", "192.0.2.7"
DONE = {"status.json": {"v1": {"stage": None, "init": {"errors": []}}}, "result.json": {"v1": {"errors": []}}}


class LibvirtError(Exception):
    def __init__(self, text: str = "internal error", code: int = 1) -> None:
        super().__init__(text)
        self.code = code

    def get_error_code(self):
        return self.code


class Domain:
    """A guest that goes on by one with every look at it; each attribute may be a function of the number of looks."""

    def __init__(self, **scripts) -> None:
        self.looks = 0
        self.scripts = {"state": (1, 1), "leases": [], "agent": None, "cloud_init": {}, "scan": PUBLIC, **scripts}
        self.frozen, self.ran = [], []

    def now(self, what):
        value = self.scripts[what]
        return value(self.looks) if callable(value) else value

    def name(self):
        return "zap"

    def state(self):
        self.looks += 1
        found = self.now("state")
        if isinstance(found, Exception):
            fake_libvirt.fail(found)
        return found

    def interfaceAddresses(self, source):
        assert source == 0
        return {"vnet0": {"hwaddr": MAC, "addrs": [{"addr": address} for address in self.now("leases")]},
                "vnet9": {"hwaddr": "52:54:00:99:99:99", "addrs": [{"addr": "192.0.2.99"}]}}

    def fsFreeze(self):
        self.frozen.append("freeze")
        return 2

    def fsThaw(self):
        self.frozen.append("thaw")

    def command(self, request):
        """What the guest agent does."""
        if self.now("agent") is None:
            raise LibvirtError("Guest agent is not responding: QEMU guest agent is not connected", 86)
        arguments = request.get("arguments", {})
        if request["execute"] == "guest-network-get-interfaces":
            return [{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1"}]},
                    {"name": "docker0", "hardware-address": "02:42:00:00:00:01",
                     "ip-addresses": [{"ip-address": "172.17.0.1"}]},
                    {"name": "lan0", "hardware-address": MAC.upper(),
                     "ip-addresses": [{"ip-address": address} for address in self.now("agent")]}]
        if request["execute"] == "guest-exec":
            self.ran.append([arguments["path"], *arguments["arg"]])
            return {"pid": len(self.ran)}
        if request["execute"] == "guest-exec-status":
            return self.exec_status(self.ran[arguments["pid"] - 1])
        return {}

    def exec_status(self, argv):
        if "/var/log/cloud-init.log" in argv[-1]:
            out = "2026 WARNING: \x1b[31mno route\r\n"
        elif "cloud-init" in argv[-1]:
            out = "".join(f"== {name}\n{json.dumps(text)}\n" for name, text in self.now("cloud_init").items())
        else:
            out = " ".join(argv)
        return {"exited": True, "exitcode": 0, "out-data": base64.b64encode(out.encode()).decode()}


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture(autouse=True)
def library(monkeypatch):
    fake = types.ModuleType("libvirt")
    fake.libvirtError, fake.VIR_ERR_NO_DOMAIN = LibvirtError, 42
    qemu = types.ModuleType("libvirt_qemu")
    qemu.qemuAgentCommand = lambda domain, text, timeout, flags: json.dumps(
        {"return": domain.command(json.loads(text))})
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", qemu)


@pytest.fixture
def touched(monkeypatch):
    """Who answers, as _touch tells it."""
    answers = {ADDRESS: True}
    monkeypatch.setattr(wait, "_touch", answers.get)
    return answers


def until(domain, what="cloud_init", timeout=20.0, find=None, clock=None, **target):
    clock = clock or Clock()

    def scan(argv, stdin=None, env=None, timeout=None):
        assert argv[0] == "ssh-keyscan" and timeout
        found = domain.now("scan")
        return Finished(0, f"# comment\n{argv[-1]} {found}\n" if found else "", "")

    wanted = wait.Target("zap", KEY, (MAC,), **target)
    return wait.until(find or (lambda: domain), wanted, what, timeout, scan, clock, clock.sleep)


def fails(code: str, *args, **options) -> FleetError:
    with pytest.raises(FleetError) as caught:
        until(*args, **options)
    assert caught.value.code == code, caught.value.message
    return caught.value


def test_looks_get_rarer_and_ask_only_what_is_missing(touched):
    clock, scans = Clock(), []
    domain = Domain(agent=[ADDRESS], scan=lambda looks: scans.append(looks) or PUBLIC,
                    cloud_init={"status.json": {"v1": {"stage": "init"}}})
    fails("guest_not_ready", domain, timeout=600.0, clock=clock)
    assert domain.looks < 250 and 600 <= clock.time < 605 and len(scans) == 1


def test_nothing_is_waited_for():
    assert until(None, "none") == wait.Reached()


def test_all_steps(touched):
    domain = Domain(leases=lambda looks: [ADDRESS] if looks > 2 else [], scan=lambda looks: PUBLIC if looks > 4 else "",
                    agent=lambda looks: [ADDRESS, "fe80::1", "2001:db8::7"] if looks > 3 else None,
                    cloud_init=lambda looks: DONE if looks > 6 else {})
    assert until(domain) == wait.Reached((ADDRESS, "2001:db8::7"), {"status": "done", "told_by": "agent"})
    assert domain.looks == 7
    domain.looks = 0
    assert until(domain, "ssh").cloud_init == {} and domain.looks == 5
    domain.looks = 0
    assert until(domain, "address").addresses == (ADDRESS,) and domain.looks == 3


def test_a_lease_alone_is_no_address(touched):
    touched.clear()
    error = fails("guest_not_ready", Domain(leases=[ADDRESS]), "address")
    assert f"guest: running, address: {ADDRESS} (nothing answers there)" in error.message
    assert "ssh" not in error.details["state"]


def test_a_guest_without_an_address(touched, tmp_path):
    serial = tmp_path / "serial.log"
    serial.write_bytes(b"old\n" + b"\x1bc\x1b[1mbooting\r\n\r\nno link\x07  \n")
    error = fails("guest_not_ready", Domain(), timeout=30.0, serial=str(serial), since=4)
    assert "did not reach cloud_init within 30 seconds" in error.message and "address: none" in error.message
    assert error.message.endswith("Its console ends with:\nbooting\nno link\n") and str(serial) in error.hint


def test_a_fixed_address_has_to_answer(touched):
    assert until(Domain(), "address", static=(ADDRESS,)).addresses == (ADDRESS,)
    touched[ADDRESS] = None
    fails("guest_not_ready", Domain(), "address", static=(ADDRESS,))
    assert until(Domain(agent=[ADDRESS]), "address", static=(ADDRESS,)).addresses == (ADDRESS,)


def test_the_address_with_the_pinned_key_comes_first(touched):
    touched["192.0.2.6"] = None
    assert until(Domain(agent=["192.0.2.6", ADDRESS]), "ssh").addresses == (ADDRESS, "192.0.2.6")


def test_another_host_key(touched):
    error = fails("host_key_mismatch", Domain(leases=[ADDRESS], scan=OTHER), "ssh", timeout=600.0)
    assert error.details == {"presented": hostkeys.HostKey("", OTHER).fingerprint, "pinned": KEY.fingerprint}
    clock = Clock()
    domain = Domain(leases=[ADDRESS], scan=lambda looks: OTHER if looks < 20 else PUBLIC)
    until(domain, "ssh", clock=clock, timeout=600.0)
    assert clock.time == 19 * 0.5


def test_a_scan_that_takes_too_long(touched):
    def slow(*_words, **_options):
        raise FleetError("timeout", "It took too long.")

    clock = Clock()
    with pytest.raises(FleetError, match="no ED25519 host key"):
        wait.until(lambda: Domain(leases=[ADDRESS]), wait.Target("zap", KEY, (MAC,)), "ssh", 9.0, slow, clock,
                   clock.sleep)


def test_no_ssh(touched):
    touched[ADDRESS] = False
    assert "ssh: no answer" in fails("guest_not_ready", Domain(leases=[ADDRESS]), "ssh").message
    touched[ADDRESS] = True
    assert "no ED25519 host key" in fails("guest_not_ready", Domain(leases=[ADDRESS], scan=""), "ssh").message


@pytest.mark.parametrize(("state", "says"), [
    ((5, 1), "has stopped: it was shut down"), ((5, 3), "has stopped: it crashed"), ((5, 99), "unknown reason"),
    ((6, 1), "has stopped: it crashed"), ((3, 5), "input/output error")])
def test_a_guest_that_stopped(touched, tmp_path, state, says):
    serial, clock = tmp_path / "serial.log", Clock()
    serial.write_text("the last words\n")
    error = fails("guest_stopped", Domain(state=lambda looks: state if looks > 3 else (1, 1)), clock=clock,
                  serial=str(serial))
    assert says in error.message and "the last words" in error.message and clock.time == 3 * 0.5


@pytest.mark.parametrize("words", ["Kernel panic - not syncing: VFS", "[    9.1] systemd[1]: Freezing execution.",
                                   "You are in emergency mode. After logging in"])
def test_a_guest_that_hangs(touched, tmp_path, words):
    serial = tmp_path / "serial.log"
    serial.write_text(f"{words}\n")
    assert words in fails("guest_dead", Domain(), serial=str(serial)).message
    serial.write_text(f"{words}\n" + "booting again\n" * 200)
    fails("guest_not_ready", Domain(), serial=str(serial))


def test_a_paused_guest_is_waited_for(touched):
    assert "guest: paused" in fails("guest_not_ready", Domain(state=(3, 1))).message


def test_cloud_init_that_fails(touched):
    failing = {"status.json": {"v1": {"stage": "modules-config", "datasource": None,
                                      "modules-config": {"errors": ["('locale', ProcessExecutionError())"]}}}}
    clock = Clock()
    domain = Domain(agent=[], cloud_init=lambda looks: failing if looks > 2 else {})
    error = fails("cloud_init_failed", domain, clock=clock)
    assert "('locale'" in error.message and "2026 WARNING: no route\n" in error.message and clock.time == 2 * 0.5
    assert error.details["errors"] == ["('locale', ProcessExecutionError())"]
    result = {"result.json": {"v1": {"errors": ["late"]}}}
    assert fails("cloud_init_failed", Domain(agent=[], cloud_init=result)).details["errors"] == ["late"]
    fails("guest_not_ready", Domain(agent=[], cloud_init=result), "ssh")


def test_cloud_init_that_is_switched_off(touched):
    fails("cloud_init_disabled", Domain(agent=[ADDRESS], cloud_init={"disabled": {}}))


def test_cloud_init_that_does_not_end(touched):
    domain = Domain(agent=[ADDRESS], cloud_init={"status.json": {"v1": {"stage": "modules-final"}}})
    assert "cloud-init: in stage modules-final" in fails("guest_not_ready", domain).message
    domain.scripts["cloud_init"] = {"status.json": ["half written"]}
    assert "cloud-init: begun" in fails("guest_not_ready", domain).message


def test_the_console_tells_the_end_without_an_agent(touched, tmp_path):
    serial = tmp_path / "serial.log"
    old = "Cloud-init v. 22.4.2 finished at Sat, 21 Nov 2026\n"
    serial.write_text(old + "booting\n")
    domain = Domain(leases=[ADDRESS])
    assert "no guest agent to ask" in fails("guest_not_ready", domain, serial=str(serial), since=len(old)).message
    serial.write_text(old)
    clock = Clock()
    assert until(domain, serial=str(serial), clock=clock).cloud_init == {"status": "done", "told_by": "console"}
    assert 15 <= clock.time < 16
    failing = {"result.json": {"v1": {"errors": ["late"]}}}
    late = {"leases": [ADDRESS], "agent": lambda looks: [ADDRESS] if looks > 4 else None, "cloud_init": failing}
    fails("cloud_init_failed", Domain(**late), serial=str(serial))


def test_an_agent_that_was_there_is_waited_for(touched, tmp_path):
    serial = tmp_path / "serial.log"
    serial.write_text("Cloud-init v. 22.4.2 finished at Sat, 21 Nov 2026\n")
    domain = Domain(leases=[ADDRESS], cloud_init={"status.json": {"v1": {"stage": "modules-final"}}},
                    agent=lambda looks: [ADDRESS] if looks < 3 else None)
    assert "in stage modules-final" in fails("guest_not_ready", domain, timeout=60.0, serial=str(serial)).message


def test_a_restart_of_libvirtd(touched):
    broken = Domain(state=LibvirtError("client socket is closed"))
    whole = Domain(agent=[ADDRESS], cloud_init=DONE)
    found = [broken, FleetError("libvirt_unreachable", "libvirt doesn't answer."), whole]

    def find():
        one = found.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    assert until(whole, find=find).addresses == (ADDRESS,) and not found


def test_a_libvirtd_that_stays_away(touched):
    def find():
        raise FleetError("libvirt_unreachable", "libvirt doesn't answer: connection refused.")

    assert "connection refused)" in fails("guest_not_ready", None, find=find).message

    def refuse():
        raise FleetError("no_emulator", "Something else.")

    fails("no_emulator", None, find=refuse)


def test_a_guest_that_is_removed(touched):
    fails("guest_gone", None)
    fails("guest_gone", Domain(state=LibvirtError("no domain", 42)))


def test_the_target_of_a_guest():
    guest = spec.parse({"name": "zap", "image": {"path": "/x"}, "networks": [{}, {"address": "192.0.2.7/24"}]})
    assert wait.Target.of(guest, KEY, 7) == wait.Target("zap", KEY, guest.macs, (ADDRESS,),
                                                        "/var/lib/clawops/vms/zap/serial.log", 7)


def test_addresses_for_facts():
    assert wait.addresses(Domain(leases=[ADDRESS, "169.254.1.1"]), [MAC]) == [ADDRESS]
    assert wait.addresses(Domain(leases=[ADDRESS], agent=["192.0.2.8"]), [MAC]) == ["192.0.2.8"]


@pytest.mark.parametrize("answer", [
    None, 7, ["x"], [{"hardware-address": 7}], [{"hardware-address": MAC, "ip-addresses": [{"ip-address": "-f/x"}]}],
    [{"hardware-address": MAC, "ip-addresses": 7}], [{"hardware-address": MAC, "ip-addresses": [{}]}]])
def test_a_guest_that_talks_nonsense(answer):
    domain = Domain(leases=[ADDRESS])
    domain.command = lambda request: answer
    assert wait.addresses(domain, [MAC]) == [ADDRESS]
    with pytest.raises(FleetError, match="makes no sense"):
        agent.run(domain, ["/bin/true"])


@pytest.mark.parametrize("text", ["", "== status.json\n", "== status.json\n7", '== status.json\n{"v1": []}',
                                  '== status.json\n{"v1": {"init": {"errors": 7}, "stage": 7}}',
                                  '== result.json\n{"v1": {"errors": {"a": 1}}}'])
def test_a_cloud_init_that_talks_nonsense(text):
    found = wait._parts(text)
    assert wait._errors(found) == [] and isinstance(wait._stage(found), str)


@pytest.mark.parametrize(("greeting", "expected"), [(b"SSH-2.0-x\r\n", True), (b"HTTP", False), (b"", False)])
def test_touch(greeting, expected):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            connection, _peer = server.accept()
            with connection:
                connection.sendall(greeting)

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        assert wait._touch("127.0.0.1", port) is expected
    assert wait._touch("127.0.0.1", port) is False


def test_touch_nobody(monkeypatch):
    def unreachable(*_words):
        raise OSError(113, "No route to host")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert wait._touch("192.0.2.1") is None


def test_agent():
    domain = Domain(agent=[])
    assert agent.answers(domain) and agent.run(domain, ["/bin/echo", "a"]) == Finished(0, "/bin/echo a", "")
    domain.exec_status = lambda _argv: {"exited": True, "signal": 9}
    assert agent.run(domain, ["x"]).rc == 137
    domain.exec_status = lambda _argv: {"exited": False}
    clock = Clock()
    with pytest.raises(FleetError, match="did not end within 5 seconds in zap"):
        agent.run(domain, ["x"], 5, clock, clock.sleep)
    domain.scripts["agent"] = None
    assert not agent.answers(domain)
    with pytest.raises(FleetError, match=re.escape("does not do guest-exec")):
        agent.run(domain, ["x"])


def test_frozen_always_thaws():
    domain = Domain()
    with pytest.raises(ValueError), agent.frozen(domain) as count:
        assert count == 2
        raise ValueError
    assert domain.frozen == ["freeze", "thaw"]
