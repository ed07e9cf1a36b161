# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy for published ports against a kernel that is played by iptables-save texts."""

from __future__ import annotations

import subprocess
import threading

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import docker_user as du
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import docker_user_files as files
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import docker_user_rules as rules
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import host as host_module
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.host import File, Host
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

UFW_SHIPPED = "#!/bin/sh\n# after.init: if executable, called by ufw-init.\nset -e\n\ncase \"$1\" in\nstart) ;;\nesac\n"
# As iptables-save 1.8.11 and Docker 26.1 write it.
VIRGIN = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -j RETURN
COMMIT
"""
EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
CLOSED = EMPTY.replace(":INPUT ACCEPT", ":INPUT DROP")
GOOD = """\
*filter
:FORWARD DROP [0:0]
:CLAWOPS-USER - [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A CLAWOPS-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A CLAWOPS-USER -i docker0 -j RETURN
-A CLAWOPS-USER -i br-+ -j RETURN
-A CLAWOPS-USER -i cb-+ -j RETURN
-A CLAWOPS-USER -i cs-+ -j RETURN
-A CLAWOPS-USER -i virbr+ -j RETURN
{allowed}-A CLAWOPS-USER -j DROP
-A DOCKER-USER -j CLAWOPS-USER
-A DOCKER-USER -s 203.0.113.9/32 -j DROP
COMMIT
"""
GOOD6 = GOOD.replace(":FORWARD DROP [0:0]\n", """\
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:CLAWOPS-PROXY - [0:0]
-A INPUT -j CLAWOPS-PROXY
-A INPUT -j ufw6-before-input
-A CLAWOPS-PROXY -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
""")
ALLOWED = ('-A CLAWOPS-USER -s 10.0.0.0/8 -p tcp -m conntrack --ctstate DNAT --ctorigdstport 8000:8010 '
           '--ctdir ORIGINAL -m comment --comment "front door" -j RETURN\n')
ALLOW = [{"port": "8000-8010", "sources": ["10.0.0.0/8"], "comment": "front door"}]


def policy(**values):
    return rules.parse_policy({"allow": [], "bridges": list(rules.BRIDGES), "trusted_interfaces": [], **values})


class Kernel:
    """Answers iptables-save with fixed texts and records what was called."""

    def __init__(self, ipv4: str = GOOD.format(allowed=""), ipv6: str = GOOD6.format(allowed=""),
                 **others: str) -> None:
        self.texts = {"iptables-save": ipv4, "ip6tables-save": ipv6,
                      **{program.replace("_", "-"): text for program, text in others.items()}}
        self.calls: list[str] = []
        self.inputs: list[str | None] = []

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        self.calls.append(" ".join(argv))
        self.inputs.append(stdin)
        return Finished(0, self.texts.get(argv[0], ""), "")


@pytest.fixture
def root(tmp_path):
    for directory in ("proc/sys/net/ipv6", "etc/ufw", "etc/default"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/default/ufw").touch()
    (tmp_path / "etc/ufw/after.init").write_text(UFW_SHIPPED)
    (tmp_path / "etc/ufw/after.init").chmod(0o640)
    return tmp_path


def firewall(root, kernel, wanted=None, installed=("iptables-save",), check_mode=False):
    has = {*kernel.texts, *installed} if installed else set()
    return du.DockerUser(Host(kernel, lambda program: program if program in has else None, root), wanted, check_mode)


def install(root):
    """The files of the default policy, without the kernel's part."""
    one = firewall(root, Kernel(), policy())
    one.apply(one.plan())


class Counting(Host):
    """Counts what a run reads and refuses what it would write."""

    def read(self, path):
        self.reads = [*getattr(self, "reads", []), path]
        return super().read(path)

    def write(self, path, file):
        raise AssertionError(path)

    remove = write


def test_a_run_that_changes_nothing_only_reads(root):
    install(root)
    (root / "run/systemd/system").mkdir(parents=True)
    kernel = Kernel(systemctl="no\n")
    host = Counting(kernel, lambda program: program if program == "iptables-save" else None, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    one = du.DockerUser(host, policy())
    with host.locked(files.DIRECTORY):
        assert not one.plan().changed
    assert kernel.calls == ["systemctl show --property=NeedDaemonReload --value docker.service",
                            "iptables-save -t filter", "ip6tables-save -t filter"]
    assert len(host.reads) == 13
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_others_rules_below_ours_are_no_difference_and_allowed_ones_compare_by_meaning(root):
    kernel = Kernel(ipv4=GOOD.format(allowed=ALLOWED))
    one = firewall(root, kernel, policy(allow=ALLOW))
    assert not [change for change in one.plan().changes if "IPv" in change.subject]


def test_established_first_then_bridges_then_drop_and_never_accept():
    chain = rules.render(policy(allow=[{"port": 443}], trusted_interfaces=["wg0"]), 6)["CLAWOPS-USER"]
    assert chain[0] == "--ctstate ESTABLISHED,RELATED -j RETURN"
    assert chain[-3:] == ["-i wg0 -j RETURN",
                          "-p tcp --ctstate DNAT --ctorigdstport 443 --ctdir ORIGINAL -j RETURN", "-j DROP"]
    assert not [rule for rule in chain if "ACCEPT" in rule]


def test_what_docker_proxy_serves_is_opened_in_input_and_nothing_else_is_decided_there():
    allow = [{"port": 443, "interface": "eth+"}, {"port": 80, "sources": ["10.0.0.0/8"]}]
    chain = rules.render(policy(allow=allow, trusted_interfaces=["wg0"]), 6)["CLAWOPS-PROXY"]
    assert chain == ["--ctstate ESTABLISHED,RELATED -j RETURN",
                     "-i eth+ -p tcp --ctorigdstport 443 --ctdir ORIGINAL -j ACCEPT"]
    assert "CLAWOPS-PROXY" not in rules.render(policy(), 4)


def test_an_interface_goes_with_a_source():
    allow = [{"port": 80, "interface": "eth1", "sources": ["10.0.0.0/8"], "protocol": "udp"}]
    chain = rules.render(policy(allow=allow), 4)["CLAWOPS-USER"]
    assert chain[-2] == "-s 10.0.0.0/8 -i eth1 -p udp --ctstate DNAT --ctorigdstport 80 --ctdir ORIGINAL -j RETURN"


def test_boot_file_declares_only_our_chains():
    text = rules.boot_file(rules.render(policy(allow=ALLOW), 4))
    assert ALLOWED in text
    text += rules.boot_file(rules.render(policy(), 6))
    assert [line for line in text.splitlines() if line.startswith(":")] == [
        ":CLAWOPS-USER - [0:0]", ":CLAWOPS-USER - [0:0]", ":CLAWOPS-PROXY - [0:0]"]


def test_a_comment_can_not_become_a_rule():
    text = rules.boot_file(rules.render(policy(allow=[{"port": 80, "comment": "x -j ACCEPT -m y"}]), 4))
    assert '--comment "x -j ACCEPT -m y" -j RETURN' in text


@pytest.mark.parametrize(("before", "after"), [
    ("-A DOCKER-USER -j CLAWOPS-USER\n", ""),
    ("-A FORWARD -j DOCKER-USER\n", ""),
    ("-A FORWARD -j DOCKER-USER\n", "-A FORWARD -j DOCKER\n-A FORWARD -j DOCKER-USER\n"),
    ("-A CLAWOPS-USER -j DROP\n", ""),
    ("-A CLAWOPS-USER -j DROP\n", "-A CLAWOPS-USER -i eth0 -j DROP\n"),
    ("-A CLAWOPS-USER -i docker0 -j RETURN\n", "-A CLAWOPS-USER ! -i docker0 -j RETURN\n"),
    ("-A INPUT -j CLAWOPS-PROXY\n", ""),
    ("-A INPUT -j CLAWOPS-PROXY\n-A INPUT -j ufw6-before-input\n",
     "-A INPUT -j ufw6-before-input\n-A INPUT -j CLAWOPS-PROXY\n"),
    ("-A CLAWOPS-PROXY -m conntrack", "-A CLAWOPS-PROXY -p tcp -j ACCEPT\n-A CLAWOPS-PROXY -m conntrack"),
])
def test_each_damage_is_seen_and_repaired_by_the_script_alone(root, before, after):
    install(root)
    text = GOOD6.format(allowed="")
    assert before in text
    kernel = Kernel(ipv6=text.replace(before, after))
    one = firewall(root, kernel, policy())
    plan = one.plan()
    assert [change.subject[-4:] for change in plan.changes] == ["IPv6"]
    one.apply(plan)
    assert kernel.calls[2:] == ["iptables-restore --noflush --test", "ip6tables-restore --noflush --test",
                                str(root / files.SCRIPT.lstrip("/"))]


def test_a_refused_test_leaves_no_file(root):
    class Refusing(Kernel):
        def __call__(self, argv, stdin=None, env=None, timeout=None):
            return Finished(1, "", "line 3 failed") if "--test" in argv else Finished(0, VIRGIN, "")

    one = firewall(root, Refusing(), policy())
    with pytest.raises(FleetError, match="line 3 failed"):
        one.apply(one.plan())
    assert not (root / "etc/clawops/firewall/rules.v4").exists()
    assert (root / "etc/ufw/after.init").read_text() == UFW_SHIPPED


def test_absent_takes_out_what_present_made(root):
    before = {path: path.read_text() for path in root.rglob("*") if path.is_file()}
    install(root)
    kernel = Kernel()
    one = firewall(root, kernel)
    with one.host.locked(files.DIRECTORY):
        one.apply(one.plan())
    assert {path: path.read_text() for path in root.rglob("*") if path.is_file()} == before
    assert (root / "etc/ufw/after.init").stat().st_mode & 0o777 == 0o640
    assert not (root / "etc/clawops").exists()
    assert [text for text in kernel.inputs if text] == [
        "*filter\n-F CLAWOPS-USER\n-D DOCKER-USER -j CLAWOPS-USER\n-X CLAWOPS-USER\nCOMMIT\n",
        "*filter\n-F CLAWOPS-USER\n-F CLAWOPS-PROXY\n-D DOCKER-USER -j CLAWOPS-USER\n-D INPUT -j CLAWOPS-PROXY\n"
        "-X CLAWOPS-USER\n-X CLAWOPS-PROXY\nCOMMIT\n"]
    assert not firewall(root, Kernel(VIRGIN, VIRGIN)).plan().changed


def test_absent_takes_out_a_hook_that_no_engine_made(root):
    install(root)
    only_ours = EMPTY.replace("COMMIT\n", ":CLAWOPS-USER - [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n"
                                          "-A DOCKER-USER -j CLAWOPS-USER\nCOMMIT\n")
    kernel = Kernel(VIRGIN, only_ours)
    one = firewall(root, kernel)
    plan = one.plan()
    assert plan.touches("FORWARD -> DOCKER-USER IPv6")
    one.apply(plan)
    assert kernel.inputs[-1] == ("*filter\n-F DOCKER-USER\n-F CLAWOPS-USER\n-D FORWARD -j DOCKER-USER\n"
                                 "-X DOCKER-USER\n-X CLAWOPS-USER\nCOMMIT\n")
    assert not firewall(root, Kernel(VIRGIN, EMPTY)).plan().changed


def test_without_iptables_the_plan_is_incomplete(root):
    one = firewall(root, Kernel(), policy(), installed=False)
    plan = one.plan()
    assert not plan.complete
    assert one.facts()["ipv6_engine"] == "unknown"


@pytest.mark.parametrize(("ipv4", "ipv6", "engine"), [(VIRGIN, VIRGIN, "filtered"), (VIRGIN, CLOSED, "proxy"),
                                                      (EMPTY, CLOSED, "none")])
def test_ipv6_engine(root, ipv4, ipv6, engine):
    one = firewall(root, Kernel(ipv4, ipv6), policy())
    one.plan()
    assert one.facts()["ipv6_engine"] == engine


def test_ipv6_that_lets_in_by_default_is_refused_beside_docker_and_told_without(root):
    with pytest.raises(FleetError) as caught:
        firewall(root, Kernel(VIRGIN, EMPTY), policy()).plan()
    assert caught.value.code == "open_input"
    checked = firewall(root, Kernel(VIRGIN, EMPTY), policy(), check_mode=True).plan()
    assert not checked.complete
    one = firewall(root, Kernel(EMPTY, EMPTY), policy())
    assert one.plan().complete and len(one.facts()["problems"]) == 1
    assert firewall(root, Kernel(VIRGIN, EMPTY)).plan().complete


@pytest.mark.parametrize("last", ["-j DROP", "-j REJECT --reject-with icmp6-port-unreachable"])
def test_a_last_rule_closes_input_as_well_as_a_policy(root, last):
    text = EMPTY.replace("COMMIT", f"-A INPUT -i lo -j ACCEPT\n-A INPUT {last}\nCOMMIT")
    assert firewall(root, Kernel(VIRGIN, text), policy()).plan().complete


@pytest.mark.parametrize(("values", "parameter"), [
    ({"trusted_interfaces": ["wg+", "wg0"]}, "trusted_interfaces"),
    ({"allow": [{"port": 80, "interface": "eth0"}, {"port": 81, "interface": "wg0"}]}, "allow[1].interface")])
def test_an_interface_that_is_not_there_is_refused(root, values, parameter):
    (root / "sys/class/net/eth0").mkdir(parents=True)
    with pytest.raises(FleetError) as caught:
        firewall(root, Kernel(), policy(**values)).plan()
    assert caught.value.code == "bad_value" and caught.value.message.startswith(f"{parameter}: 'wg0'")
    assert not firewall(root, Kernel(), policy(**values), check_mode=True).plan().complete
    (root / "sys/class/net/wg0").mkdir()
    assert firewall(root, Kernel(), policy(**values)).plan().complete


@pytest.mark.parametrize(("kernel", "tables", "code"), [
    (Kernel(EMPTY, CLOSED, iptables_legacy_save=VIRGIN), "filter\n", "two_worlds"),
    (Kernel(EMPTY, CLOSED, iptables_legacy_save=VIRGIN), "", None),  # asking for it would create it
    (Kernel(EMPTY, CLOSED, iptables_nft_save=VIRGIN), "filter\n", "two_worlds"),
    (Kernel(VIRGIN, CLOSED, iptables_legacy_save=VIRGIN), "filter\n", None),
    (Kernel(EMPTY, CLOSED, nft="table ip filter\ntable ip docker-bridges\n"), "", "unsupported_backend"),
    (Kernel(EMPTY, CLOSED, nft="table ip filter\n"), "", None),
    (Kernel(EMPTY, "# Table `filter' is incompatible, use 'nft' tool.\n"), "", "foreign_object"),
])
def test_docker_in_another_world_than_ours_is_refused(root, kernel, tables, code):
    (root / "proc/net").mkdir()
    (root / "proc/net/ip_tables_names").write_text(tables)
    try:
        assert firewall(root, kernel, policy()).plan().complete and code is None
    except FleetError as error:
        assert error.code == code
    else:
        assert firewall(root, kernel).plan().complete


@pytest.mark.parametrize(("text", "refused"), [('{"firewall-backend": "nftables"}', True), ("not JSON", False),
                                               ('{"firewall-backend": "iptables"}', False), ("[]", False)])
def test_the_engine_s_own_backend_is_read_from_its_configuration(root, text, refused):
    (root / "etc/docker").mkdir()
    (root / "etc/docker/daemon.json").write_text(text)
    try:
        firewall(root, Kernel(), policy()).plan()
    except FleetError as error:
        assert refused and error.code == "unsupported_backend"
    else:
        assert not refused


class Picky(Kernel):
    """A kernel tool that refuses texts with a mistake in them."""

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        if "mistake" in (stdin or ""):
            return Finished(2, "", "line 2 failed")
        return super().__call__(argv, stdin, env, timeout)


@pytest.mark.parametrize(("text", "problem"), [
    ("*filter\n-A x -j mistake\nCOMMIT\n", "is broken, and UFW will not start whole: line 2 failed"),
    ("*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n", "declares :DOCKER-USER"),
    ("*filter\n-A DOCKER-USER -j RETURN\nCOMMIT\n", None)])
def test_after_rules_of_others_are_judged_and_left_alone(root, text, problem):
    path = root / "etc/ufw/after6.rules"
    path.write_text(text)
    warnings = []
    host = Host(Picky(), lambda program: program if program == "iptables-save" else None, root)
    one = du.DockerUser(host, policy(), warn=warnings.append)
    one.apply(one.plan())
    found = one.facts()["problems"]
    assert warnings == found
    assert [problem in text for text in found] == ([True] if problem else [])
    assert path.read_text() == text


def test_after_rules_as_shipped_are_not_tested(root):
    text = "*filter\n-A x -j mistake\nCOMMIT\n"
    (root / "usr/share/ufw/iptables").mkdir(parents=True)
    for path in ("etc/ufw", "usr/share/ufw/iptables"):
        (root / path / "after.rules").write_text(text)
    one = firewall(root, Picky(), policy())
    one.plan()
    assert one.facts()["problems"] == []


def test_what_a_killed_run_left_is_finished(root):
    install(root)
    (root / "run/systemd/system").mkdir(parents=True)
    beside = root / "etc/clawops/firewall/.rules.v4.abcd1234"
    beside.write_bytes(b"\xc3")
    kernel = Kernel(systemctl="yes\n")
    one = firewall(root, kernel, policy())
    plan = one.plan()
    assert [change.subject for change in plan.changes] == ["/etc/clawops/firewall/.rules.v4.abcd1234", "docker.service"]
    one.apply(plan)
    assert not beside.exists()
    assert kernel.calls[-1] == "systemctl daemon-reload"


def test_rules_are_written_before_what_loads_them_and_the_starts_come_last(root, monkeypatch):
    written = []
    monkeypatch.setattr(Host, "write", lambda self, path, file: written.append(path))
    (root / "run/systemd/system").mkdir(parents=True)
    kernel = Kernel(VIRGIN, CLOSED, systemctl="no\n")
    one = firewall(root, kernel, policy())
    kernel_calls = kernel.calls
    one.apply(one.plan())
    assert written == ["/etc/clawops/firewall/rules.v4", "/etc/clawops/firewall/rules.v6", files.SCRIPT, files.DROP_IN,
                       files.UFW_HOOK]
    assert kernel_calls[-2:] == [str(root / files.SCRIPT.lstrip("/")), "systemctl daemon-reload"]


class Module:
    """The part of AnsibleModule that manage() needs."""

    def __init__(self, check_mode=False):
        self.check_mode = check_mode
        self.results = []

    def warn(self, warning):
        pass

    def exit_json(self, **result):
        self.results.append(result)

    def fail_json(self, msg, **result):
        self.results.append({"failed": True, **result})


def test_of_two_runs_the_second_looks_when_the_first_has_ended(root):
    host = Host(Kernel(), lambda program: program if program == "iptables-save" else None, root)
    module = Module()
    with host.locked(files.DIRECTORY):
        thread = threading.Thread(target=du.manage, args=(module, host, policy()))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not module.results
        install(root)
    thread.join(10)
    assert [result["changed"] for result in module.results] == [False]


def test_check_mode_takes_no_lock(root):
    du.manage(Module(check_mode=True), Host(Kernel(), lambda program: program, root), policy())
    assert not (root / "etc/clawops").exists()


def test_a_lock_that_nobody_frees_is_told(root, monkeypatch):
    monkeypatch.setattr(host_module, "LOCK_SECONDS", 0)
    host = Host(Kernel(), root=root)
    with host.locked("/etc/clawops/firewall"), pytest.raises(FleetError, match="Another run"), \
            host.locked("/etc/clawops/firewall"):
        pass


def test_the_lock_is_its_owner_s_alone_and_leaves_nothing_behind(root):
    host = Host(Kernel(), root=root)
    (root / "etc/clawops/firewall").mkdir(parents=True)
    with host.locked("/etc/clawops/firewall"):
        assert (root / "etc/clawops/firewall").stat().st_mode & 0o777 == 0o700
    assert not (root / "etc/clawops").exists()


def test_a_refused_run_leaves_nothing_behind(root):
    module = Module()
    host = Host(Kernel(VIRGIN, EMPTY), lambda program: program if program == "iptables-save" else None, root)
    du.manage(module, host, policy())
    assert module.results[0]["failure"]["code"] == "open_input"
    assert not (root / "etc/clawops").exists()


def test_a_host_without_ipv6(root):
    (root / "proc/sys/net/ipv6").rmdir()
    one = firewall(root, Kernel(), policy())
    assert not [change for change in one.plan().changes if "IPv6" in change.subject]
    assert one.facts()["ipv6_engine"] == "disabled"


def test_a_bridge_with_the_default_route_is_refused(root):
    (root / "proc/net").mkdir()
    (root / "proc/net/route").write_text("Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
                                         "br-lan 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n")
    with pytest.raises(FleetError) as caught:
        firewall(root, Kernel(), policy()).plan()
    assert caught.value.code == "bad_value" and "br-lan carries the default route" in caught.value.hint


@pytest.mark.parametrize("file", [None, File(0o640, UFW_SHIPPED), File(0o750, "#!/bin/bash\nexit 0\n"),
                                  File(0o755, "#!/bin/sh")])
def test_the_block_comes_and_goes(file):
    changed = files.with_block(file)
    assert changed.mode & 0o100
    assert files.with_block(files.without_block(changed)) == changed
    back = files.without_block(changed)
    assert back is None if file is None else (back.mode, back.text.strip()) == (file.mode, file.text.strip())


def test_what_was_not_executable_stays_without_effect():
    assert "exit 0" in files.with_block(File(0o640, UFW_SHIPPED)).text.partition("# END")[0]
    assert "exit 0" not in files.with_block(File(0o750, UFW_SHIPPED)).text


def test_a_hook_in_another_language_is_left_alone():
    with pytest.raises(FleetError, match="not a shell script"):
        files.with_block(File(0o755, "#!/usr/bin/perl\n"))


def run_script(tmp_path, saved, boot_file=True):
    """The restore script for real, with programs that print and take texts."""
    directory = tmp_path / "rules"
    directory.mkdir()
    if boot_file:
        (directory / "rules.v4").write_text(rules.boot_file(rules.render(policy(), 4)))
    (tmp_path / "iptables-save").write_text(f"#!/bin/sh\ncat <<'END'\n{saved}END\n")
    (tmp_path / "iptables-restore").write_text(f"#!/bin/sh\necho \"$@\" >>{tmp_path}/calls\ncat >{tmp_path}/loaded\n")
    for program in ("iptables-save", "iptables-restore"):
        (tmp_path / program).chmod(0o755)
    script = files.SCRIPT_TEXT.replace(files.DIRECTORY, str(directory)).replace("/proc/sys/net/ipv6", "/nonexistent")
    subprocess.run(["sh", "-c", script], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (tmp_path / "calls").read_text() == "--noflush --wait\n"
    return [line for line in (tmp_path / "loaded").read_text().splitlines() if "CLAWOPS-USER -" not in line][2:]


@pytest.mark.parametrize(("saved", "lines"), [
    (GOOD.format(allowed=""), ["COMMIT"]),
    (VIRGIN, ["-I DOCKER-USER 1 -j CLAWOPS-USER", "COMMIT"]),
    (EMPTY, [":DOCKER-USER - [0:0]", "-I DOCKER-USER 1 -j CLAWOPS-USER", "-I FORWARD 1 -j DOCKER-USER", "COMMIT"]),
    (GOOD.format(allowed="").replace("-A FORWARD", "-A FORWARD -j OTHER\n-A FORWARD"),
     ["-D FORWARD -j DOCKER-USER", "-I FORWARD 1 -j DOCKER-USER", "COMMIT"]),
], ids=["good", "virgin", "no-docker", "jump-not-first"])
def test_script_adds_what_is_missing_in_the_same_transaction(tmp_path, saved, lines):
    assert run_script(tmp_path, saved) == lines


def test_script_fails_without_its_boot_file(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        run_script(tmp_path, VIRGIN, boot_file=False)
    assert not (tmp_path / "calls").exists()
