# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host with containers in the lab: what stands there, what is sent at it, and what arrived."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import typing as t

import yaml
from bed import dockerhost, lab, net
from managed import PLACE, ROOT, Managed

HERE = pathlib.Path(__file__).parent
POLICY = yaml.safe_load((HERE / "policy.yml").read_text())
ATTACKS = yaml.safe_load((HERE / "attacks.yml").read_text())
# name -> networks, published ports, what it listens on
CONTAINERS = {
    "web": (["bridge"], ["8080:80", "8081:80", "8082:80", "127.0.0.1:8090:8090", "8100-8103:8100-8103", "5300:53/udp",
                         "5301:53/udp"], "80,8090,8100-8103,9999"),
    "peer": (["bridge"], [], "80"),
    "other": (["lab-net"], ["127.0.0.1:8091:8081", "127.0.0.1:5391:5301/udp"], "80,8081"),
    "both": (["bridge", "lab-net"], [], "80"),
    "six": (["lab-six"], ["8086:80"], "80"),
    "seven": (["lab-six"], [], "80"),
    "odd": (["lab-odd"], [], "80"),
    "wide": (["lab-wide"], [], "80"),
}
NETWORKS = {"lab-net": ["--opt=com.docker.network.bridge.name=cb-lab"],
            "lab-six": ["--opt=com.docker.network.bridge.name=cs-lab", "--ipv6", "--subnet=fd13:c1a0:d0c::/64"],
            "lab-odd": ["--opt=com.docker.network.bridge.name=odd0"],
            "lab-wide": ["--opt=com.docker.network.bridge.name=cs-wide", "--ipv6", "--subnet=fd13:c1a0:1a2::/64"]}
NEW = ("opening", "answer", "accepted")


class World(Managed):
    """One isolated host. Its modules run on it directly; nothing here goes through the firewall but the payloads."""

    def __init__(self, host: str, scratch: pathlib.Path) -> None:
        super().__init__(host)
        self.scratch = scratch
        self.round = 0
        self.names: dict[str, str] = {}
        self.macs: dict[str, str] = {}

    # -- the bed ------------------------------------------------------------------------------------------------------

    def isolate(self) -> None:
        self.bed("isolate", self.host)

    def play(self, *arguments: str) -> str:
        """The playbook of the test, over SSH through the lab."""
        inventory = self.scratch / "hosts.yml"
        keys = dockerhost.ssh_folder()
        ssh = f"-o UserKnownHostsFile={keys / 'known_hosts'} -o StrictHostKeyChecking=yes"
        isolated = self.host in lab.isolated()
        if isolated:
            ssh += f" -o 'ProxyCommand={ROOT}/scripts/testbed relay %h %p'"
        inventory.write_text(yaml.safe_dump({"docker_hosts": {"hosts": {self.host: {
            "ansible_host": net.v4(self.host), "ansible_user": "root", "ansible_ssh_common_args": ssh,
            "ansible_ssh_private_key_file": str(keys / "id_ed25519"), "docker_host_source": "distribution",
            "ansible_python_interpreter": "/usr/bin/python3", "ansible_ssh_pipelining": True}}}}))
        # Its own place for shared connections: those from before the isolation lead nowhere.
        sockets = str(self.scratch / ("lab" if isolated else "bed"))
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets}
        argv = ["ansible-playbook", "-i", inventory, HERE / "site.yml", *arguments]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=300,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    @staticmethod
    def changes(output: str) -> int:
        return sum(int(count) for count in re.findall(r"changed=(\d+)", output))

    def reboot(self) -> None:
        """Comes back on the bed's network, so that nothing is sent before it is isolated again."""
        count = ["docker", "inspect", "--format", "{{.RestartCount}} {{.State.Running}}", self.container]
        before = subprocess.check_output(count)
        self.inside("touch /run/lab-before; systemctl reboot", check=False)
        for _second in range(120):
            time.sleep(1)
            up = "[ ! -e /run/lab-before ] && systemctl is-active -q docker && docker exec lab-web true && echo up"
            if subprocess.check_output(count) != before and "up" in self.inside(up, check=False):
                break
        else:
            raise AssertionError(f"{self.host} did not come back")
        self.isolate()
        self.serve()
        self.look()

    def clear(self) -> None:
        """Nothing of the test is left but the firewall, which the next site run makes the operator's again."""
        self.inside("docker ps -aq --filter name=lab- | xargs -r docker rm -f", check=False)
        self.inside(f"docker network rm {' '.join(NETWORKS)}", check=False)
        self.inside(f"systemctl stop lab-host lab-loopback; rm -rf {PLACE}", check=False)
        self.bed("rejoin", self.host)

    # -- what stands on the host --------------------------------------------------------------------------------------

    def furnish(self) -> None:
        """Programs of the test, the containers and listeners; from anew."""
        self.install()
        self.inside("docker ps -aq --filter name=lab- | xargs -r docker rm -f")
        self.inside("python3 -m tarfile --create /root/host-usr.tar /bin /lib /lib64")
        self.inside("docker image inspect host-usr >/dev/null 2>&1 || docker import /root/host-usr.tar host-usr")
        for name, options in NETWORKS.items():
            self.inside(f"docker network rm {name} 2>/dev/null || :; docker network create {' '.join(options)} {name}")
        for name, (networks, published, tcp) in CONTAINERS.items():
            self.inside(self.run(name, networks[0], published, tcp))
            for network in networks[1:]:
                self.inside(f"docker network connect {network} lab-{name}")
        self.serve()
        self.look()

    @staticmethod
    def run(name: str, network: str, published: t.Sequence[str], tcp: str) -> str:
        """The command that starts a container with a witness."""
        ports = " ".join(f"-p {port}" for port in published)
        return (f"docker run -d --restart unless-stopped --name lab-{name} --network {network} -v /usr:/usr:ro "
                f"-v {PLACE}:{PLACE} {ports} host-usr /usr/bin/python3 {PLACE}/witness.py "
                f"--journal {PLACE}/journal/{name}.jsonl --tcp {tcp} --udp 53,80,5301 --wires eth")

    def serve(self) -> None:
        """Services of the host: on all addresses, and on loopback only."""
        for name, options in (("host", "--tcp 7000,7001,7003 --udp 7000,7001"),
                              ("loopback", "--bind 127.0.0.1,::1 --tcp 7002 --udp 7002")):
            self.inside(f"systemctl stop lab-{name}; systemctl reset-failed lab-{name}", check=False)
            self.inside(f"systemd-run -q --unit lab-{name} python3 {PLACE}/witness.py "
                        f"--journal {PLACE}/journal/{name}.jsonl {options}")

    def look(self) -> None:
        """Addresses by the names that the attack list uses."""
        second = lab.addresses(lab.SECOND, net.LAST[self.host])
        self.names = {"host4": net.v4(self.host), "host6": net.v6(self.host), "resolver": self._resolver(),
                      "second4": second[0].partition("/")[0], "second6": second[1].partition("/")[0]}
        links = {link["ifname"]: link for link in json.loads(self.inside("ip -j address"))}
        self.macs = {"lan": links["eth0"]["address"], "lan2": links["eth1"]["address"]}
        self.names["link6"] = _address(links["eth0"], "fe80") + "%lan"
        self.names["gateway_link6"] = _address(links["cs-lab"], "fe80") + "%eth0"
        self.names |= {"gateway6": _address(links["cs-lab"], "fd13"), "gateway4": _address(links["docker0"], "172"),
                       "other_gateway4": _address(links["cb-lab"], ""),
                       "wide_gateway4": _address(links["cs-wide"], ""),
                       "wide_gateway6": _address(links["cs-wide"], "fd13")}
        for name in CONTAINERS:
            found = json.loads(self.inside(f"docker inspect lab-{name}"))[0]["NetworkSettings"]["Networks"]
            first = found[CONTAINERS[name][0][0]]
            self.names |= {f"{name}4": first["IPAddress"], f"{name}6": first["GlobalIPv6Address"]}
            self.macs[name] = first["MacAddress"]
        seven = json.loads(self.inside("docker exec lab-seven ip -j address show dev eth0"))[0]
        self.names["seven_link6"] = _address(seven, "fe80") + "%eth0"
        self.names["net6"] = "fd13:c1a0:d0c::99"

    def _resolver(self) -> str:
        found = re.search(r"^nameserver ([0-9.]+)", self.inside("cat /etc/resolv.conf"), re.MULTILINE)
        return found[1] if found else "8.8.8.8"

    # -- modules ------------------------------------------------------------------------------------------------------

    @staticmethod
    def policy(changed: bool = False) -> dict[str, dict[str, t.Any]]:
        """The modules that the roles call, with the arguments that the roles give them; or a little different."""
        one = [{"port": "7005", "comment": "one more"}] if changed else []
        allow = [{"port": "ssh", "comment": "SSH"}, *POLICY["host_firewall_allow"], *one]
        more = [{"interface": "cs-more", "allow": ["10.0.0.0/8"], "block": ["192.0.2.0/24"]}] if changed else []
        guard = {"host_services": POLICY["network_guard_host_services"] + one, "allow": POLICY["network_guard_allow"],
                 "reach": more + POLICY["network_guard_reach"]}
        return {"ufw_host": {"allow": allow, "confirm_timeout": 0},
                "ufw_docker_user": {"allow": [*one, *POLICY["host_firewall_published"]]}, "network_guard": guard}

    def apply(self, check: bool = False, changed: bool = False) -> dict[str, list[str]]:
        """All of it; what was changed (in check mode: would be), by module; only those with changes."""
        done = {name: self.module(name, check, **arguments) for name, arguments in self.policy(changed).items()}
        return {name: [f"{action['action']} {action['subject']}" for action in result["actions"]]
                for name, result in done.items() if result["actions"]}

    @contextlib.contextmanager
    def bare(self) -> t.Iterator[None]:
        """As if there were only Docker: our rules are taken out by hand, and UFW's are without effect in the block."""
        self.inside("""nft delete table inet clawops
            for tool in iptables ip6tables; do
                $tool -F CLAWOPS-USER; $tool -D DOCKER-USER -j CLAWOPS-USER; $tool -I INPUT 1 -j ACCEPT
            done
            ip6tables -I FORWARD 1 -j ACCEPT""")
        try:
            yield
        finally:
            self.inside("""ip6tables -D FORWARD -j ACCEPT
                for tool in iptables ip6tables; do $tool -D INPUT -j ACCEPT; done""")

    # -- attacks ------------------------------------------------------------------------------------------------------

    def attack(self, group: str, listed: t.Sequence[dict[str, t.Any]] = ()) -> dict[str, bool]:
        """Sends the whole list at once, or another one: which of them arrived."""
        self.round += 1
        listed = listed or ATTACKS[group]["controls"] + ATTACKS[group]["attacks"]
        payloads = {entry["name"]: self.payload(group, number, entry) for number, entry in enumerate(listed)}
        vantages = {entry["from"] for entry in listed}
        marks = self._ends()
        self.inside(f"python3 {PLACE}/attacker.py forget")
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(self._attacker(place, [
                payloads[entry["name"]] for entry in listed if _place(entry["from"]) == place]))
                for place in sorted({_place(vantage) for vantage in vantages})]
            for child in children:
                child.wait(timeout=120)
        time.sleep(0.5)
        seen = self.arrivals(marks)
        return {name: any(_proves(record, payload) for record in seen) for name, payload in payloads.items()}

    def payload(self, group: str, number: int, entry: dict[str, t.Any]) -> dict[str, t.Any]:
        """An entry of the list with all that the attacker needs to know."""
        payload = {key: value for key, value in entry.items() if key not in ("name", "from", "bare")}
        for key in ("to", "source", "by"):
            if key in entry:
                payload[key] = self.names.get(entry[key], entry[key])
        if "inner" in entry:
            payload["inner"] = {**entry["inner"], "to": self.names.get(entry["inner"]["to"], entry["inner"]["to"])}
        payload["mark"] = f"clawops-lab:{self.host}-{group}-{self.round}-{number};"
        payload.setdefault("sport", 20000 + self.round % 30 * 400 + number + (200 if group == "inside" else 0))
        payload.setdefault("port", 0)
        payload["interface"] = _interface(entry["from"])
        payload["mac"] = self.macs.get(payload.get("mac") or payload["interface"])
        if "source" not in payload and (entry.get("frame") or _place(entry["from"]) == "lab"):
            payload["source"] = self._source(entry["from"], payload["to"])
        if payload["to"].startswith("ff"):
            payload["mac"] = "33:33:00:00:00:01"
        if "inner" in payload:
            payload["inner"].update(source=payload["source"], frame=False)
        return payload

    def _source(self, vantage: str, target: str) -> str:
        last = {"neighbour": 77, "trusted": 78, "second": 77}.get(vantage)
        family = 6 if ":" in target else 4
        if last is None:
            return self.names[f"{vantage}{family}"]
        if target.startswith("fe80"):
            return "::"
        return lab.addresses(_interface(vantage), last)[family == 6].split("/")[0]

    def _attacker(self, place: str, payloads: list[dict[str, t.Any]]) -> t.Any:
        child = subprocess.Popen(self._argv(place, "send"), stdin=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 stdout=(self.scratch / f"{place}.json").open("wb"))
        assert child.stdin
        child.stdin.write(json.dumps(payloads).encode())
        child.stdin.close()
        return child

    def _argv(self, place: str, verb: str) -> list[str]:
        if place == "lab":
            return ["ip", "netns", "exec", lab.NAMESPACE, sys.executable, str(HERE / "attacker.py"), verb]
        return ["docker", "exec", "-i", self.container, "docker", "exec", "-i", f"lab-{place}", "/usr/bin/python3",
                f"{PLACE}/attacker.py", verb]

    # -- what arrived -------------------------------------------------------------------------------------------------

    def _ends(self) -> dict[str, int]:
        sizes = self.inside(f"cd {PLACE}/journal && wc -c *.jsonl").split()
        ends = {name: int(size) for size, name in zip(sizes[::2], sizes[1::2])}
        return {**ends, "lab": lab.journal().stat().st_size}

    def arrivals(self, since: dict[str, int]) -> list[dict[str, t.Any]]:
        """What all witnesses wrote down since then."""
        with lab.journal().open() as stream:
            stream.seek(since["lab"])
            # Other hosts may be in the lab.
            lines = [line for line in stream.read().splitlines() if f'-{self.host}", "from"' in line]
        for name, end in since.items():
            if name not in ("lab", "total"):
                lines += self.inside(f"tail -c +{end + 1} {PLACE}/journal/{name}").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    # -- the watcher --------------------------------------------------------------------------------------------------

    def watched(self, targets: t.Sequence[tuple[str, str, int]], vantage: str = "neighbour",
                ) -> contextlib.AbstractContextManager[dict[str, t.Any]]:
        """Tries all targets (protocol, address, port) every few milliseconds while the block runs; then its report."""
        return self._meanwhile("watch", targets, vantage)

    def held(self, targets: t.Sequence[tuple[str, str, int]]) -> contextlib.AbstractContextManager[dict[str, t.Any]]:
        """Talks over one connection to each target while the block runs."""
        return self._meanwhile("hold", targets, "neighbour")

    @contextlib.contextmanager
    def _meanwhile(self, verb: str, targets: t.Sequence[tuple[str, str, int]], vantage: str,
                   ) -> t.Iterator[dict[str, t.Any]]:
        report: dict[str, t.Any] = {}
        if verb == "watch":  # an opening packet that looks like one of before would be taken for an answer
            self.inside(f"python3 {PLACE}/attacker.py forget")
        told = [self._target(vantage, *target) for target in targets]
        argv = self._argv(_place(vantage), verb)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin
            assert child.stdout
            child.stdin.write(json.dumps({"targets": told, "interval": 0.005}).encode() + b"\n")
            child.stdin.flush()
            assert child.stdout.readline().strip() in (b"watching", b"holding")
            try:
                yield report
            finally:
                child.stdin.close()
                report.update(json.loads(child.stdout.read()))

    def _target(self, vantage: str, via: str, name: str, port: int) -> dict[str, t.Any]:
        address, interface = self.names.get(name, name), _interface(vantage)
        return {"name": f"{via} {name} {port}", "via": via, "to": address, "port": port, "mark": "clawops-lab:watch;",
                "interface": interface, "mac": self.macs.get(interface), "source": self._source(vantage, address)}


def _address(link: dict[str, t.Any], prefix: str) -> str:
    """An address of the interface, by what it begins with."""
    return str(next(info["local"] for info in link["addr_info"] if info["local"].startswith(prefix)))


def _interface(vantage: str) -> str:
    return {"neighbour": "lan", "trusted": "lan", "second": "lan2"}.get(vantage, "eth0")


def _place(vantage: str) -> str:
    return "lab" if _interface(vantage) != "eth0" else vantage


def _proves(record: dict[str, t.Any], payload: dict[str, t.Any]) -> bool:
    """Whether a record of a witness is about this payload. A connection has no mark before it is open."""
    if record.get("mark") == payload["mark"]:
        return True
    if payload["via"] != "tcp" or record.get("protocol") != 6 or record.get("kind") not in NEW:
        return False
    return record.get("port" if record["kind"] == "answer" else "sport") == payload["sport"]
