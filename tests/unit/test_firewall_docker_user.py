# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy for published ports against a kernel that is played by iptables-save texts."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import docker_user as du
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.host import File, Host
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

UFW_SHIPPED = "#!/bin/sh\n# after.init: if executable, called by ufw-init.\nset -e\n\ncase \"$1\" in\nstart) ;;\nesac\n"
# As iptables-save 1.8.11 and Docker 26.1 write it.
VIRGIN = """\
*filter
:INPUT ACCEPT [0:0]
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
{allowed}-A CLAWOPS-USER -j DROP
-A DOCKER-USER -j CLAWOPS-USER
-A DOCKER-USER -s 203.0.113.9/32 -j DROP
COMMIT
"""
ALLOWED = ('-A CLAWOPS-USER -s 10.0.0.0/8 -p tcp -m conntrack --ctorigdstport 8000:8010 --ctdir ORIGINAL '
           '-m comment --comment "front door" -j RETURN\n')
ALLOW = [{"port": "8000-8010", "sources": ["10.0.0.0/8"], "comment": "front door"}]


def policy(**values):
    return du.parse_policy({"allow": [], "bridges": list(du.BRIDGES), "trusted_interfaces": [], **values})


class Kernel:
    """Answers iptables-save with fixed texts and records what was called."""

    def __init__(self, ipv4: str = GOOD.format(allowed=""), ipv6: str = GOOD.format(allowed="")) -> None:
        self.texts = {"iptables-save": ipv4, "ip6tables-save": ipv6}
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


def firewall(root, kernel, wanted=None, installed=True):
    return du.DockerUser(Host(kernel, lambda program: program if installed else None, root), wanted)


def install(root):
    """The files of the default policy, without the kernel's part."""
    one = firewall(root, Kernel(), policy())
    one.apply(one.plan())


def test_nothing_to_do_is_one_read_per_family(root):
    install(root)
    kernel = Kernel()
    plan = firewall(root, kernel, policy()).plan()
    assert not plan.changed
    assert kernel.calls == ["iptables-save -t filter", "ip6tables-save -t filter"]


def test_others_rules_below_ours_are_no_difference_and_allowed_ones_compare_by_meaning(root):
    kernel = Kernel(ipv4=GOOD.format(allowed=ALLOWED))
    one = firewall(root, kernel, policy(allow=ALLOW))
    assert not [change for change in one.plan().changes if "IPv" in change.subject]


def test_established_first_then_bridges_then_drop_and_never_accept():
    rules = du.render(policy(allow=[{"port": 443}], trusted_interfaces=["wg0"]), 6)
    assert rules[0] == "--ctstate ESTABLISHED,RELATED -j RETURN"
    assert rules[-3:] == ["-i wg0 -j RETURN", "-p tcp --ctorigdstport 443 --ctdir ORIGINAL -j RETURN", "-j DROP"]
    assert not [rule for rule in rules if "ACCEPT" in rule]


def test_boot_file_declares_only_our_chain():
    text = du.boot_file(du.render(policy(allow=ALLOW), 4))
    assert ALLOWED in text
    assert [line for line in text.splitlines() if line.startswith(":")] == [":CLAWOPS-USER - [0:0]"]


def test_a_comment_can_not_become_a_rule():
    text = du.boot_file(du.render(policy(allow=[{"port": 80, "comment": "x -j ACCEPT -m y"}]), 4))
    assert '--comment "x -j ACCEPT -m y" -j RETURN' in text


@pytest.mark.parametrize(("before", "after"), [
    ("-A DOCKER-USER -j CLAWOPS-USER\n", ""),
    ("-A FORWARD -j DOCKER-USER\n", ""),
    ("-A FORWARD -j DOCKER-USER\n", "-A FORWARD -j DOCKER\n-A FORWARD -j DOCKER-USER\n"),
    ("-A CLAWOPS-USER -j DROP\n", ""),
    ("-A CLAWOPS-USER -j DROP\n", "-A CLAWOPS-USER -i eth0 -j DROP\n"),
    ("-A CLAWOPS-USER -i docker0 -j RETURN\n", "-A CLAWOPS-USER ! -i docker0 -j RETURN\n"),
])
def test_each_damage_is_seen_and_repaired_by_the_script_alone(root, before, after):
    install(root)
    text = GOOD.format(allowed="")
    assert before in text
    kernel = Kernel(ipv6=text.replace(before, after))
    one = firewall(root, kernel, policy())
    plan = one.plan()
    assert [change.subject[-4:] for change in plan.changes] == ["IPv6"]
    one.apply(plan)
    assert kernel.calls[2:] == ["iptables-restore --noflush --test", "ip6tables-restore --noflush --test",
                                str(root / du.SCRIPT.lstrip("/"))]


def test_a_refused_test_leaves_no_file(root):
    def refusing(argv, stdin=None, env=None, timeout=None):
        return Finished(1, "", "line 3 failed") if "--test" in argv else Finished(0, VIRGIN, "")

    one = firewall(root, refusing, policy())
    with pytest.raises(FleetError, match="line 3 failed"):
        one.apply(one.plan())
    assert not (root / "etc/clawops/firewall/rules.v4").exists()
    assert (root / "etc/ufw/after.init").read_text() == UFW_SHIPPED


def test_absent_takes_out_what_present_made(root):
    before = {path: path.read_text() for path in root.rglob("*") if path.is_file()}
    install(root)
    kernel = Kernel()
    one = firewall(root, kernel)
    one.apply(one.plan())
    assert {path: path.read_text() for path in root.rglob("*") if path.is_file()} == before
    assert (root / "etc/ufw/after.init").stat().st_mode & 0o777 == 0o640
    assert not (root / "etc/clawops").exists()
    removal = "*filter\n-F CLAWOPS-USER\n-D DOCKER-USER -j CLAWOPS-USER\n-X CLAWOPS-USER\nCOMMIT\n"
    assert [text for text in kernel.inputs if text] == [removal, removal]
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


@pytest.mark.parametrize(("ipv6", "engine"), [(VIRGIN, "filtered"), (EMPTY, "proxy")])
def test_ipv6_engine(root, ipv6, engine):
    one = firewall(root, Kernel(VIRGIN, ipv6), policy())
    one.plan()
    assert one.facts()["ipv6_engine"] == engine


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
    changed = du.with_block(file)
    assert changed.mode & 0o100
    assert du.with_block(du.without_block(changed)) == changed
    back = du.without_block(changed)
    assert back is None if file is None else (back.mode, back.text.strip()) == (file.mode, file.text.strip())


def test_what_was_not_executable_stays_without_effect():
    assert "exit 0" in du.with_block(File(0o640, UFW_SHIPPED)).text.partition("# END")[0]
    assert "exit 0" not in du.with_block(File(0o750, UFW_SHIPPED)).text


def test_a_hook_in_another_language_is_left_alone():
    with pytest.raises(FleetError, match="not a shell script"):
        du.with_block(File(0o755, "#!/usr/bin/perl\n"))


def run_script(tmp_path, saved):
    """The restore script for real, with programs that print and take texts."""
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "rules.v4").write_text(du.boot_file(du.render(policy(), 4)))
    (tmp_path / "iptables-save").write_text(f"#!/bin/sh\ncat <<'END'\n{saved}END\n")
    (tmp_path / "iptables-restore").write_text(f"#!/bin/sh\necho \"$@\" >>{tmp_path}/calls\ncat >{tmp_path}/loaded\n")
    for program in ("iptables-save", "iptables-restore"):
        (tmp_path / program).chmod(0o755)
    script = du.SCRIPT_TEXT.replace(du.DIRECTORY, str(directory)).replace("/proc/sys/net/ipv6", "/nonexistent")
    subprocess.run(["sh", "-c", script], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (tmp_path / "calls").read_text() == "--noflush\n"
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
