# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Spaces on hosts of the bed: the operator's side, what is around them, and a container without any protection."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import secrets
import subprocess
import sys
import threading
import time
import typing as t

import yaml
from bed import cache, dockerhost, net
from managed import HOSTS, ROOT, Managed

HERE = pathlib.Path(__file__).parent
ESCAPES = yaml.safe_load((HERE / "escapes.yml").read_text())
HELPERS = (HERE / "escapes.sh").read_text()
OUTSIDE = net.namespace("outside")
# Where clouds serve metadata; the hosts' routes to them lead to the neighbour.
METADATA = ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"]
NAMES = ["bench", "other", "scout", "vault", "napper"]
GIT_PORT = 3000
IMAGE = "clawops-sandbox:latest"
BARE, BARE_NET = "escape-bare", "fd13:c1a0:e5c:{number}::/64"


class Ground:
    """All hosts of the test. Secrets are new ones in each run, so that none is found that an earlier run left."""

    def __init__(self, scratch: pathlib.Path) -> None:
        self.scratch, self.hosts = scratch, {name: Managed(name) for name in HOSTS}
        self.secret, self.token = (f"planted-{kind}-{secrets.token_hex(12)}" for kind in ("secret", "token"))
        self.first, self.log = self.hosts[HOSTS[0]], scratch / "controller.jsonl"
        self.describe()

    def describe(self, **more: dict[str, object]) -> None:
        """Writes the inventory, with more or other variables of some spaces."""
        keys = dockerhost.ssh_folder()
        listed = {host: {"ansible_host": net.v4(host)} for host in HOSTS}
        # The two that meet in the test stay together; one goes where there is room.
        on = {name: {"space_on": HOSTS[0 if name in ("bench", "other") else -1]} for name in NAMES if name != "napper"}
        spaces = {name: {**on.get(name, {}), **more.get(name, {})} for name in NAMES}
        (self.scratch / "hosts.yml").write_text(yaml.safe_dump({
            "all": {"vars": {
                "ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3",
                "ansible_ssh_pipelining": True,
                "ansible_ssh_private_key_file": str(keys / "id_ed25519"), "fleet_name": "box",
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={keys / 'known_hosts'} -o StrictHostKeyChecking=yes",
                "docker_host_source": "distribution", "extra_ca_certificates": [str(_authority())],
                "planted_secret": self.secret, "planted_token": self.token}},
            "docker_hosts": {"hosts": listed}, "spaces": {"hosts": spaces}}))

    def play(self, book: str, *options: str, check: bool = True, **variables: object) -> str:
        """A playbook of the collection, or a file."""
        argv = ["ansible-playbook", *self.inventories(), book, *options, "--extra-vars", json.dumps(variables)]
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_PATTERN_MISMATCH": "error",
               "ANSIBLE_CALLBACKS_ENABLED": "clawops.fleet.audit", "CLAWOPS_AUDIT_LOG": str(self.log)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=900,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0 or not check, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def inventories(self, *more: str) -> list[str]:
        """Options that name them; more are files of the scratch folder."""
        paths = [HERE / "spaces.yml", *(self.scratch / f"{name}.yml" for name in ("hosts", *more))]
        return [f"--inventory={path}" for path in paths]

    def spaces(self, *options: str, **variables: object) -> str:
        return self.play("clawops.fleet.spaces", *options, **variables)

    @staticmethod
    def changes(output: str) -> list[str]:
        """The tasks that changed something, or would."""
        tasks = re.findall(r"^TASK \[(.*?)\] \*+\n(.*?)(?=^(?:TASK|PLAY) |\Z)", output, re.MULTILINE | re.DOTALL)
        assert tasks
        return [name for name, said in tasks if re.search("^changed: ", said, re.MULTILINE)]

    # -- hosts and spaces ---------------------------------------------------------------------------------------------

    def host_of(self, space: str) -> Managed:
        found = [host for host in self.hosts.values() if host.inside(f"docker ps -aqf name=^clawdspace-{space}$")]
        assert len(found) == 1, (space, found)
        return found[0]

    def run(self, space: str, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        """A script in a space, by the program of its host."""
        argv = ["clawops-space", "exec", *options, space, "--", "bash", "-c", script]
        return _ended(["docker", "exec", "-i", self.host_of(space).container, *argv])

    def state(self, space: str) -> dict[str, t.Any]:
        return t.cast("list[dict[str, t.Any]]",
                      json.loads(self.host_of(space).inside(f"docker inspect clawdspace-{space}")))[0]

    def events(self, space: str) -> list[dict[str, t.Any]]:
        """What the audit log of its host says about a space, in order."""
        said = self.host_of(space).inside(f"clawops-space audit --space {space} --limit 1000 --json")
        return [json.loads(line) for line in said.splitlines()] if not said.startswith("[") else json.loads(said)

    # -- around them --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def neighbour(self) -> t.Iterator[None]:
        """A server with repositories, and one that answers for the neighbour and all metadata services."""
        repositories = self.scratch / "repositories"
        _make_repository(repositories / "project.git", self.scratch / "seed")
        for address in METADATA:
            _outside("ip", "address", "replace", address, "dev", "lo")
        journal = self.scratch / "neighbour.jsonl"
        bound = ",".join([*METADATA, net.v4("outside"), net.v6("outside")])
        inside = ["ip", "netns", "exec", OUTSIDE, sys.executable]
        witness = subprocess.Popen([*inside, ROOT / "scripts/bed/witness.py", "--journal", journal, "--bind", bound,
                                    "--tcp", "80", "--udp", "80"])
        git = subprocess.Popen([*inside, HERE / "git_server.py", net.v4("outside"), str(GIT_PORT), repositories,
                                *_certificate(self.scratch)],
                               stdin=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        assert git.stdin
        git.stdin.write(f"{self.token}\n")
        git.stdin.close()
        try:
            yield
        finally:
            for child in (witness, git):
                child.terminate()
                child.wait()
            for address in METADATA:
                _outside("ip", "address", "delete", address, "dev", "lo")

    def pushed(self) -> list[str]:
        """What the repository has, the newest first."""
        return _git("-C", str(self.scratch / "repositories/project.git"), "log", "--format=%s", "main").splitlines()

    @contextlib.contextmanager
    def bare(self, host: Managed) -> t.Iterator[t.Callable[[str], subprocess.CompletedProcess[str]]]:
        """Two containers of the spaces' image that nothing holds back, on a bridge that nobody guards."""
        subnet = BARE_NET.format(number=net.LAST[host.host])
        route = ["ip", "-6", "route", "replace", subnet, "via", net.v6(host.host)]
        host.inside(f"""docker rm -f {BARE} {BARE}-other >/dev/null 2>&1 || :
            docker network rm {BARE} >/dev/null 2>&1 || :
            docker network create --ipv6 --subnet {subnet} --opt com.docker.network.bridge.name=escape0 {BARE}
            for way in -i -o; do
                for tables in iptables ip6tables; do $tables -I FORWARD 1 $way escape0 -j ACCEPT; done
            done
            docker run -d --name {BARE} --network {BARE} --user 0 --privileged --pid host --shm-size 1g \\
                -v /run/docker.sock:/run/docker.sock --entrypoint sleep {IMAGE} infinity >/dev/null
            docker run -d --name {BARE}-other --network {BARE} --entrypoint python3 {IMAGE} \\
                -m http.server --directory /usr 8000 >/dev/null""")
        _outside(*route)
        try:
            yield lambda script: _ended(["docker", "exec", "-i", host.container, "docker", "exec", "-i", BARE,
                                         "bash", "-c", script])
        finally:
            _outside("ip", "-6", "route", "delete", subnet)
            host.inside(f"""docker rm -f {BARE} {BARE}-other; docker network rm {BARE}
                for way in -i -o; do
                    for tables in iptables ip6tables; do $tables -D FORWARD $way escape0 -j ACCEPT; done
                done""", check=False)

    def prelude(self, host: Managed, own: str, other: str) -> str:
        """What the scripts of escapes.yml know, in a container beside another one."""
        mine, theirs = (next(iter(json.loads(host.inside(f"docker inspect {name}"))[0]["NetworkSettings"]["Networks"]
                                  .values())) for name in (own, other))
        known = {"GATEWAY": mine["Gateway"], "HOST4": net.v4(host.host), "HOST6": net.v6(host.host),
                 "OTHER": theirs["IPAddress"], "OTHER_GATEWAY": theirs["Gateway"]}
        return HELPERS + "".join(f"{name}={value}\n" for name, value in known.items())

    @contextlib.contextmanager
    def answering(self, host: Managed) -> t.Iterator[None]:
        """While the block runs, programs of the host and its engine answer, never later than in some seconds."""
        stop, gaps = threading.Event(), [0.0]

        def ask() -> None:
            while not stop.wait(0.2):
                began = time.monotonic()
                host.inside("docker ps --quiet")
                gaps.append(time.monotonic() - began)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            stop.set()
            asking.join()
        assert len(gaps) > 1
        assert max(gaps) < 8, gaps
        host.inside("docker version >/dev/null && systemctl is-active --quiet docker")

    @contextlib.contextmanager
    def spied(self, host: Managed, words: t.Sequence[str]) -> t.Iterator[set[tuple[str, str]]]:
        """While the block runs, all processes of a host are looked through for words; in the end, where they stood."""
        seen: set[tuple[str, str]] = set()
        host.inside("cat >/run/spy.py", (HERE / "spy.py").read_bytes())
        argv = ["docker", "exec", "-i", host.container, "python3", "/run/spy.py"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as spy:
            assert spy.stdin
            assert spy.stdout
            spy.stdin.write(json.dumps(list(words)) + "\n")
            spy.stdin.flush()
            assert spy.stdout.readline() == "looking\n"
            try:
                yield seen
            finally:
                spy.stdin.close()
                seen.update((part, word) for part, word in json.loads(spy.stdout.read()))

    def clear(self) -> None:
        """No space and no volume is left."""
        for host in self.hosts.values():
            host.inside("""docker ps -aqf label=clawops.fleet/space | xargs -r docker rm -f
                docker ps -aqf name=clawdspace- | xargs -r docker rm -f
                docker network ls -qf name=clawdspace- | xargs -r docker network rm
                docker volume ls -qf name=clawdspace-vol- | xargs -r docker volume rm
                rm -rf /var/lib/clawops/spaces /run/clawops/spaces /var/log/clawops/audit.jsonl*""", check=False)


def _ended(argv: t.Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def _outside(*argv: str) -> None:
    subprocess.run(["ip", "netns", "exec", OUTSIDE, *argv], check=False, capture_output=True)


def _git(*argv: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_NAME": "Ann",
           "GIT_AUTHOR_EMAIL": "ann@example.org", "GIT_COMMITTER_NAME": "Ann", "GIT_COMMITTER_EMAIL": "ann@example.org"}
    return subprocess.run(["git", *argv], env=env, check=True, capture_output=True, text=True).stdout


def _openssl(*options: object) -> None:
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*new, *map(str, options)], check=True, capture_output=True)


def _authority() -> pathlib.Path:
    """Always the same one, because it is in the image of the spaces."""
    home = cache.folder("git")
    if not (home / "ca.crt").exists():
        _openssl("-days", 3650, "-subj", "/CN=clawops.fleet test bed git CA", "-keyout", home / "ca.key", "-addext",
                 "keyUsage=critical,keyCertSign,cRLSign", "-out", home / "ca.crt")
    return home / "ca.crt"


def _certificate(scratch: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    made, key, authority = scratch / "git.crt", scratch / "git.key", _authority()
    _openssl("-days", 30, "-subj", "/CN=git", "-addext", f"subjectAltName=IP:{net.v4('outside')}", "-addext",
             "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth", "-CA", authority,
             "-CAkey", authority.with_suffix(".key"), "-keyout", key, "-out", made)
    return made, key


def _make_repository(bare: pathlib.Path, seed: pathlib.Path) -> None:
    _git("init", "--quiet", "--initial-branch=main", str(seed))
    (seed / "README").write_text("The project.\n")
    _git("-C", str(seed), "add", "README")
    _git("-C", str(seed), "commit", "--quiet", "--message=Begin")
    _git("clone", "--quiet", "--bare", str(seed), str(bare))
    _git("-C", str(bare), "config", "http.receivepack", "true")
