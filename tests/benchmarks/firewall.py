# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""100 rules for published ports, against what UFW does."""

from __future__ import annotations

import json

from box import WORK, Box
from measure import Row, count, faster, pairs
from place import Broken, Task

RULES = 100
FIRST = 20000
PAIRS, LIVE_ROUNDS = 3, 9
RESTORE = "/usr/local/lib/clawops/firewall-restore"
READS = (["iptables-save"], ["ip6tables-save"], ["systemctl", "show"])

KEEP = f"""set -eu
cd /
tar -cf {WORK}/firewall.tar etc/ufw etc/clawops/firewall
iptables-save -t filter > {WORK}/filter.v4
ip6tables-save -t filter > {WORK}/filter.v6"""
PUT_BACK = f"""set -eu
tar -C / -xf {WORK}/firewall.tar
iptables-restore < {WORK}/filter.v4
ip6tables-restore < {WORK}/filter.v6"""

POLICY = {"allow": [{"port": str(FIRST + number), "comment": f"rule {number}"} for number in range(RULES)]}
OURS: Task = {"name": "All rules", "clawops.fleet.ufw_docker_user": POLICY}
PEER: Task = {"name": "One rule", "loop": list(range(RULES)),
              "community.general.ufw": {"rule": "allow", "route": True, "proto": "tcp",
                                        "to_port": f"{{{{ {FIRST} + item }}}}", "comment": "rule {{ item }}"}}
# How many of the rules the kernel has, in both families.
COUNT_OURS = "(iptables-save; ip6tables-save) | grep -c -- '-A CLAWOPS-USER .*--ctorigdstport 20' || :"
COUNT_PEER = "(iptables-save; ip6tables-save) | grep -c -- '-A ufw6\\?-user-forward .*--dport 20' || :"


def run(box: Box) -> list[Row]:
    # site proves its firewall with connections to these.
    box.up("minio", "model")
    box.verb("site", "--tags", "docker,firewall")
    box.shell(KEEP)
    box.later(box.shell, PUT_BACK)
    return [whole_playbooks(box), live(box), no_change(box)]


def whole_playbooks(box: Box) -> Row:
    community = box.community()

    def ours() -> float:
        box.shell(PUT_BACK)
        took = box.tasks(OURS).seconds
        check(box, COUNT_OURS)
        return took

    def peer() -> float:
        took = box.tasks(PEER, env=community).seconds
        check(box, COUNT_PEER)
        return took

    return faster(f"{RULES} rules, whole playbook; a loop of community.general.ufw", *pairs(PAIRS, ours, peer), 25)


def check(box: Box, command: str) -> None:
    found = int(box.shell(command))
    if found != 2 * RULES:
        raise Broken(f"{found} rules are there instead of {2 * RULES}: {command}")


def live(box: Box) -> Row:
    times = box.clock(LIVE_ROUNDS, {"ours": RESTORE, "peer": "ufw reload"}).times
    return faster(f"{RULES} rules made live; ufw reload", times["ours"], times["peer"], 20)


def no_change(box: Box) -> Row:
    module = box.module("clawops.fleet.ufw_docker_user", POLICY)
    trace = json.loads(box.shell(f"python3 {box.send('trace.py')} {module.run.split()[-1]}"))
    if trace["result"]["changed"]:
        raise Broken(f"The module changed something: {trace['result']['actions']}")
    only_reads = all(any(words[:len(read)] == read for read in READS) for words in trace["programs"])
    found = f"{', '.join(words[0] for words in trace['programs'])}; {len(trace['written'])} files written"
    return count("a run that changes nothing: what it starts and writes", found, "reads only",
                 only_reads and not trace["written"])
