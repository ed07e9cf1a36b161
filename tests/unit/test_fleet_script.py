# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The terminal for people: what it runs where, with programs that stand in for ssh and for those of a host."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import typing as t

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Notes what it is called with, and does it here. The host "dead" does not answer.
SSH = """#!/usr/bin/env python3
import json, os, sys
here, argv = os.path.dirname(os.path.abspath(__file__)), sys.argv[1:]
with open(here + "/ssh.log", "a") as log:
    log.write(json.dumps(argv) + "\\n")
if argv[-2] == "192.0.2.9":
    sys.exit("ssh: connect to host 192.0.2.9 port 22: Connection timed out")
os.environ["HOST"] = argv[-2]
os.execv("/bin/sh", ["sh", "-c", argv[-1]])
"""
SPACE = """#!/usr/bin/env python3
import json, os, pathlib, sys
argv, files = sys.argv[1:], pathlib.Path(os.environ["FILES"])
if argv == ["list", "--json"]:
    spaces = {"192.0.2.1": ["one", "both"], "192.0.2.2": ["made", "both"]}.get(os.environ["HOST"], [])
    sys.exit(print(json.dumps([{"space": name, "state": "running"} for name in spaces])))
assert argv[0] == "--actor", argv
verb, name, more = argv[2], argv[3], argv[4:]
if verb == "exec":
    more.remove("--")
    os.execvp(more[0], more)
if verb == "put":
    (files / more[0]).write_bytes(sys.stdin.buffer.read())
elif verb == "get":
    sys.stdout.buffer.write((files / more[0]).read_bytes())
else:
    sys.exit(print(json.dumps([os.environ["HOST"], *argv[2:]])))
"""
SYSTEMCTL = """#!/bin/sh
[ "$HOST" = 192.0.2.1 ] && echo "openclaw@alpha.service loaded active running OpenClaw bot alpha"
echo "openclaw.service loaded failed failed OpenClaw bot openclaw"
"""
ECHO = """#!/usr/bin/env python3
import json, os, sys
print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), sys.stdin.read())
sys.exit(7)
"""
INVENTORY = """all:
  vars:
    key: "{{ 'the ' ~ 'key' }}"
    ansible_user: admin
    ansible_ssh_private_key_file: /keys/{{ key }}
    ansible_ssh_common_args: -o 'ProxyCommand=nc "%h" %p' -o A={{ inventory_hostname }}
    ansible_password: planted
  children:
    docker_hosts:
      children:
        rack:
          hosts:
            alder: {ansible_host: 192.0.2.1}
            birch: {ansible_host: 192.0.2.2, ansible_port: 2222}
            dead: {ansible_host: 192.0.2.9}
    clusters:
      hosts:
        harbor: {cluster_kubeconfig: "/nonexistent/{{ key }}"}
    bots:
      hosts:
        alpha: {bot_on: alder, bot_runtime: host}
        bravo: {bot_on: "{{ 'birch' }}"}
        delta: {bot_on: harbor}
        desk: {bot_on: harbor, bot_profile: desktop}
        both: {bot_on: alder}
    spaces:
      hosts:
        one: {space_on: alder}
        made: {}
        both: {}
"""


# The whole program, but for one part that takes its time and gives the same each time.
QUICKLY = """import json, sys
sys.path.insert(0, sys.argv.pop(1))
import fleet
listed = json.loads(sys.argv.pop(1))
fleet.Inventory.read = classmethod(lambda cls, sources: cls(listed))
sys.exit(fleet.main())
"""


@functools.cache
def inventory() -> str:
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "hosts.yml").write_text(INVENTORY)
        argv = [str(pathlib.Path(sys.executable).with_name("ansible-inventory")), "--list", "-i", f"{folder}/hosts.yml"]
        return subprocess.run(argv, capture_output=True, check=True, text=True).stdout


def program(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Box:
    """A directory of programs, an inventory, and the terminal."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.files = folder, folder / "files"
        self.files.mkdir()
        for name, text in {"ssh": SSH, "clawops-space": SPACE, "systemctl": SYSTEMCTL, "docker": ECHO, "runuser": ECHO,
                           "journalctl": ECHO, "sudo": "#!/bin/sh\nshift 2; exec \"$@\"\n"}.items():
            program(folder / name, text)

    def run(self, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        env = {"PATH": f"{self.folder}:{os.environ['PATH']}", "HOME": str(self.folder), "FILES": str(self.files),
               "LANG": "C.UTF-8", "USER": "me", "LOGNAME": "me"}
        return subprocess.run([sys.executable, "-c", QUICKLY, str(ROOT / "scripts"), inventory(), *argv], input=stdin,
                              env=env, capture_output=True, check=False, cwd=self.folder)

    def ok(self, *argv: str, stdin: bytes = b"") -> str:
        done = self.run(*argv, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def ssh(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "ssh.log").read_text().splitlines()]


@pytest.fixture
def box(tmp_path: pathlib.Path) -> Box:
    return Box(tmp_path)


def test_ls_asks_every_host_at_once_and_reports_the_dead_one(box: Box) -> None:
    done = box.run("ls")
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert rows[0] == ["NAME", "KIND", "WHERE", "STATE"]
    assert ["alpha", "bot", "(host)", "alder", "started"] in rows and ["made", "space", "birch", "started"] in rows
    assert ["bravo", "bot", "(container)", "birch", "absent"] in rows and ["openclaw", "bot", "birch", "failed"] in rows
    assert ["delta", "bot", "(gateway)", "harbor", "unreachable"] in rows
    assert done.returncode == 1 and b"dead: ssh: connect to host" in done.stderr
    assert b"harbor: kubeconfig: '/nonexistent/the key'" in done.stderr
    assert b"planted" not in done.stdout + done.stderr + (box.folder / "ssh.log").read_bytes()


def test_the_inventory_is_the_one_that_ansible_would_read(box: Box) -> None:
    (box.folder / "hosts.yml").write_text("all: {children: {docker_hosts: {}, bots: {hosts: {a: {bot_on: x}}}}}")
    argv = [ROOT / "scripts/fleet", "stats", "b"]
    env = {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(box.folder)}
    for more in (["-i", "hosts.yml"], ["-i", "nowhere.yml"]):
        done = subprocess.run([argv[0], *more, *argv[1:]], env=env, capture_output=True, check=False, cwd=box.folder)
        assert done.returncode == 125 and b"There is no space, bot or guest b." in done.stderr


def test_ssh_is_called_as_ansible_would_call_it(box: Box) -> None:
    box.ok("exec", "one", "--", "true")
    argv = box.ssh()[0]
    given = dict(word.split("=", 1) for word in argv if "=" in word and " " not in word.split("=")[0])
    assert (given["User"], given["IdentityFile"], given["A"]) == ("admin", "/keys/the key", "alder")
    assert given["ProxyCommand"] == 'nc "%h" %p' and argv[0] == "-T" and argv[-3:-1] == ["--", "192.0.2.1"]
    box.ok("--on", "birch", "--kind", "space", "exec", "both", "true")
    assert "Port=2222" in box.ssh()[-1]


def test_words_input_and_exit_code_go_through_as_they_are(box: Box) -> None:
    words = ["a b", "c'd", 'e"f', "g\nh", "$HOME", "*", "", "--", "-x", "\\"]
    script = 'cat; printf "%s\\0" "$@"; exit 42'
    done = box.run("exec", "one", "--", "sh", "-c", script, "sh", *words, stdin=b"\0\xff\n")
    assert done.returncode == 42
    assert done.stdout == b"\0\xff\n" + b"".join(word.encode() + b"\0" for word in words)


@pytest.mark.parametrize("name, begin", [
    ("bravo", ["docker", "exec", "--interactive", "bot-bravo"]),
    ("alpha", ["runuser", "--user", "bot-alpha", "--", "env", "--chdir=/var/lib/clawops/bots/alpha"]),
])
def test_a_bot_is_entered_in_its_own_form(box: Box, name: str, begin: list[str]) -> None:
    done = box.run("exec", name, "--", "id", "a b", stdin=b"in")
    words, said = done.stdout.decode().rsplit(" ", 1)
    assert done.returncode == 7 and said.strip() == "in"
    assert json.loads(words)[:len(begin)] == begin and json.loads(words)[-2:] == ["id", "a b"]


def test_a_thing_is_found_where_it_is(box: Box) -> None:
    assert json.loads(box.ok("stats", "made")) == ["192.0.2.2", "stats", "made"]
    assert json.loads(box.ok("logs", "-n", "3", "-f", "one")) == ["192.0.2.1", "logs", "one", "--tail", "3", "--follow"]
    assert json.loads(box.ok("sh", "one")) == ["192.0.2.1", "sh", "one"]
    assert b'"docker", "stats", "--no-stream", "bot-bravo"' in box.run("stats", "bravo").stdout
    assert b'"--unit", "openclaw@alpha.service", "--lines", "100"' in box.run("logs", "alpha").stdout


@pytest.mark.parametrize("argv, word", [
    (["stats", "both"], "--kind or --on"), (["stats", "nobody"], "Not asked: dead: "), (["exec", "one"], "a program"),
    (["cp", "a", "b"], "NAME:PATH"), (["cp", "one:a", "made:b"], "NAME:PATH"), (["cp", "/", "one:a"], "-r copies"),
    (["cp", "/nonexistent", "one:a"], "nonexistent"),
])
def test_what_it_can_not_do_is_said_with_a_code_of_its_own(box: Box, argv: list[str], word: str) -> None:
    done = box.run(*argv)
    assert done.returncode == 125 and word in done.stderr.decode() and done.stdout == b""


def test_files_go_both_ways_byte_by_byte(box: Box) -> None:
    data = bytes(range(256)) * 1000
    near = box.folder / "near file"
    near.write_bytes(data)
    box.ok("cp", str(near), "one:far")
    assert (box.files / "far").read_bytes() == data
    box.ok("cp", "one:far", "back")
    assert (box.folder / "back").read_bytes() == data
    assert box.run("cp", "one:far", "-").stdout == data
    box.ok("cp", "-", "one:other", stdin=data)
    assert (box.files / "other").read_bytes() == data
    box.ok("cp", "near file", "one:")
    assert (box.files / "near file").read_bytes() == data


def test_what_did_not_arrive_whole_leaves_nothing(box: Box) -> None:
    (box.folder / "kept").write_text("old")
    assert box.run("cp", "one:missing", "kept").returncode == 1
    assert (box.folder / "kept").read_text() == "old" and not list(box.folder.glob(".kept.*"))


def test_directories_go_both_ways(box: Box) -> None:
    tree = box.folder / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a b").write_text("1")
    (tree / "sub/link").symlink_to("../a b")
    box.ok("cp", "-r", "tree", f"one:{box.files}/x y")
    box.ok("cp", "-r", f"one:{box.files}/x y", "again")
    assert (box.folder / "again/sub/link").read_text() == "1"
    assert "-r copies" in box.run("cp", "tree", "one:x").stderr.decode()


def test_a_directory_that_points_out_of_itself_is_not_unpacked(box: Box) -> None:
    evil = box.files / "evil"
    evil.mkdir()
    (evil / "out").symlink_to("/etc")
    done = box.run("cp", "-r", f"one:{evil}", "here")
    assert done.returncode == 125 and "Not everything was copied" in done.stderr.decode()
    assert list((box.folder / "here").iterdir()) == []


# -- bots of clusters --------------------------------------------------------------------------------------------------

@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> t.Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("fleet")


def listed(**hostvars: t.Any) -> dict[str, t.Any]:
    return {"_meta": {"hostvars": hostvars}, "clusters": {"hosts": ["harbor"]}, "bots": {"hosts": ["delta", "desk"]}}


def test_bots_of_clusters_are_entered_by_the_api_or_by_ssh(fleet: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fleet.Fleet(fleet.Inventory(listed(
        harbor={"cluster_kubeconfig": "/k", "cluster_gateway_namespace": "g"}, delta={"bot_on": "harbor"},
        desk={"bot_on": "harbor", "bot_profile": "desktop"})))
    bot_ssh = importlib.import_module("plugins.lookup.bot_ssh")
    tunnel = importlib.import_module("plugins.module_utils._ssh.tunnel")
    monkeypatch.setattr(tunnel, "cluster_of", lambda kubeconfig, context: (kubeconfig, context))
    monkeypatch.setattr(bot_ssh.LookupModule, "run", lambda _self, terms, variables: [
        {"common_args": "-o 'ProxyCommand=a b'", "private_key_file": f"/tmp/{terms[0]}",  # noqa: S108
         "known_hosts_file": variables["hostvars"]["harbor"]["cluster_kubeconfig"]}])
    pod = made.into(made.find("delta", None, None))
    assert (pod.cluster, pod.namespace, pod.bot) == (("/k", None), "g", "delta")
    argv = made.into(made.find("desk", "bot", "harbor")).argv(["cat", "a b"], tty=True)
    assert argv[:2] == ["ssh", "-t"] and argv[-3:] == ["--", "desk.harbor", "cat 'a b'"]
    assert "ProxyCommand=a b" in argv and "IdentityFile=/tmp/desk" in argv and "User=openclaw" in argv


def test_what_a_host_said_is_a_value_and_no_template(fleet: t.Any) -> None:
    said = {"__ansible_unsafe": "{{ 6 * 7 }}"}
    made = fleet.Inventory({"_meta": {"hostvars": {"attic": {
        "fleet_observed": {"image": said, "tags": [said]}, "told": said, "own": "{{ 6 * 7 }}",
        "shown": "{{ fleet_observed.image }} {{ told }}"}}}})
    assert made.get("attic", "told") == "{{ 6 * 7 }}" and str(made.get("attic", "own")) == "42"
    assert made.get("attic", "fleet_observed") == {"image": "{{ 6 * 7 }}", "tags": ["{{ 6 * 7 }}"]}
    assert made.get("attic", "shown") == "{{ 6 * 7 }} {{ 6 * 7 }}"


class Socket:
    """The far end of a command in a pod: what it says is given, what it hears is kept."""

    def __init__(self, *frames: bytes, until: bytes | None = None) -> None:
        self.frames, self.until, self.heard = list(frames), until, []
        self.told = threading.Event()

    def settimeout(self, _seconds: float | None) -> None:
        pass

    def send_binary(self, frame: bytes) -> None:
        self.heard.append(frame)
        if frame == self.until:
            self.told.set()

    def recv_data(self) -> tuple[int, bytes]:
        if self.until is not None:
            assert self.told.wait(5)
        return (2, self.frames.pop(0)) if self.frames else (8, b"")


class Cluster:
    """A cluster with one socket."""

    def __init__(self, socket: Socket) -> None:
        self.socket, self.asked = socket, []

    @contextlib.contextmanager
    def open_exec(self, *words: t.Any) -> t.Iterator[Socket]:
        self.asked.append(words)
        yield self.socket


def status(**more: t.Any) -> bytes:
    return b"\3" + json.dumps(more).encode()


def exit_code(code: int) -> bytes:
    return status(status="Failure", message="command terminated with non-zero exit code",
                  details={"causes": [{"reason": "ExitCode", "message": str(code)}]})


@pytest.mark.parametrize("frames, code, out, err", [
    ([b"\1a", b"", b"\2b", b"\1c", status(status="Success")], 0, b"ac", b"b"),
    ([b"\1a", exit_code(9)], 9, b"a", b""),
    ([status(status="Failure", message="no such program")], 1, b"", b"no such program\n"),
    ([b"\1a"], 1, b"a", b""),
])
def test_a_program_in_a_pod_ends_with_its_own_code(fleet: t.Any, tmp_path: pathlib.Path, frames: list[bytes], code: int,
                                                   out: bytes, err: bytes) -> None:
    terminal = importlib.import_module("plugins.module_utils._kubernetes.terminal")
    (tmp_path / "in").write_bytes(b"x" * 40000)
    cluster = Cluster(Socket(*frames, until=b"\xff\0"))
    with open(tmp_path / "in", "rb") as stdin, open(tmp_path / "out", "wb") as stdout, \
            open(tmp_path / "err", "wb") as stderr:
        assert terminal.attach(cluster, "n", "p", ["a", "b"], "c", stdin.fileno(), stdout.fileno(),
                               stderr.fileno()) == code
    assert ((tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes()) == (out, err)
    assert b"".join(frame[1:] for frame in cluster.socket.heard[:-1]) == b"x" * 40000
    assert cluster.asked[0][:5] == ("n", "p", ["a", "b"], ["stdout", "stderr", "stdin"], "c")


# -- guests, and bots in them ------------------------------------------------------------------------------------------

KEY = "ssh-ed25519 AAAAzap"
HOUSE = {"_meta": {"hostvars": {
    "oak": {"ansible_host": "192.0.2.3", "ansible_user": "admin", "fleet_name": "home", "ansible_password": "planted"},
    "zap": {"vm_on": "oak", "vm_user": {"name": "ann"}, "ansible_user": "admin"}, "zip": {"vm_on": "oak"},
    "zoo": {"vm_on": "oak", "ansible_host": "zoo.example.org"},
    "zulu": {"bot_on": "zap"}, "yankee": {"bot_on": "zip"}}},
    "vm_hosts": {"hosts": ["oak", "ash"]}, "vms": {"hosts": ["zap", "zip", "zoo"]},
    "bots": {"hosts": ["zulu", "yankee"]}}
THERE = [{"name": "zap", "state": "running", "address": "192.168.213.7", "host_key": {"public": KEY}},
         {"name": "zip", "state": "stopped", "address": None, "host_key": None},
         {"name": "theirs", "state": "running", "address": "192.168.213.8", "host_key": {"public": KEY}}]

# Another VM host tells of a guest that it does not have.
CLAIMED = [{"name": "zap", "state": "running", "address": "203.0.113.66", "host_key": {"public": f"{KEY}evil"}},
           {"name": "\x1b[2J", "state": "running", "address": None, "host_key": None}]


@pytest.fixture
def house(fleet: t.Any, monkeypatch: pytest.MonkeyPatch) -> t.Any:
    """A fleet whose VM host and guests answer."""
    made = fleet.Fleet(fleet.Inventory(HOUSE))
    made.asked = []

    def ask(host: str, argv: t.Sequence[str], data: bytes = b"") -> str:
        made.asked.append(host)
        if argv[0] == "python3":
            assert data.startswith(b"PK")
            return json.dumps({"vms": THERE if host == "oak" else CLAIMED})
        if host == "zoo":
            raise fleet.FleetError("unreachable", "timed out")
        return "[]\n--\nopenclaw@zulu.service loaded active running OpenClaw bot zulu\n"

    monkeypatch.setattr(made, "_ask", ask)
    return made


def test_guests_and_the_bots_in_them_are_seen(house: t.Any) -> None:
    found, failed = house.seen()
    assert {(one.name, one.kind, one.form, one.where, one.state) for one in found} == {
        ("zap", "guest", "guest", "oak", "running"), ("zip", "guest", "guest", "oak", "stopped"),
        ("zoo", "guest", "guest", "oak", "absent"), ("theirs", "guest", "guest", "oak", "running"),
        ("zulu", "bot", "host", "zap", "started"), ("yankee", "bot", "host", "zip", "unreachable")}
    assert failed == [] and sorted(house.asked) == ["ash", "oak", "zap"]
    assert house.machine("zap").argv([])[-2] == "192.168.213.7"


def test_a_guest_is_entered_through_its_vm_host_with_its_pinned_key(house: t.Any) -> None:
    argv = house.into(house.find("zap", None, None)).argv(["id", "a b"])
    assert argv[-3:-1] == ["--", "192.168.213.7"] and argv[-1].endswith("sh id 'a b'")
    assert f"KnownHostsCommand=/bin/echo zap {KEY}" in argv and "User=ann" in argv
    proxy = next(word for word in argv if word.startswith("ProxyCommand="))
    assert "-l admin" in proxy and proxy.endswith("192.0.2.3")
    assert not any("planted" in word for word in argv)
    assert house.machine("zoo").argv([])[-2] == "zoo.example.org"
    bot = house.into(house.find("zulu", None, None))
    assert bot.way.argv([])[-2] == "192.168.213.7" and bot.words[:3] == ["runuser", "--user", "bot-zulu"]


def test_what_a_guest_says_and_uses_is_asked_of_its_vm_host(
        house: t.Any, fleet: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(fleet.Command, "run", lambda self, argv, *_more: ran.append([self.before[-1], *argv]) or 0)
    for words in (["logs", "-f", "-n", "3", "zip"], ["stats", "zap"]):
        given = fleet.parsed(words)
        assert given.run(house, given) == 0
    assert ran == [["192.0.2.3", "tail", "-n", "3", "-F", "/var/lib/clawops/vms/zip/serial.log"],
                   ["192.0.2.3", "virsh", "--connect", "qemu:///system", "domstats", "zap"]]


def test_a_guest_without_an_address_is_named(house: t.Any, fleet: t.Any) -> None:
    with pytest.raises(fleet.FleetError, match="oak knows no address of the guest zip"):
        house.into(house.find("yankee", None, None))
