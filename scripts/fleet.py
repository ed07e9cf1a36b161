# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A terminal for the spaces, bots and guests of an inventory, wherever they run.

    fleet ls                              everything, with its state
    fleet sh NAME                         a shell in a space, a bot or a guest
    fleet exec [-t] NAME -- PROGRAM ...   its input, output and exit code are those of this program
    fleet cp [-r] FILE NAME:PATH          and the other way round; - is standard input or output
    fleet logs [-f] [-n LINES] NAME       of a guest: what it said on its serial line
    fleet stats NAME

-i names the inventory, as for every program of Ansible; without it ANSIBLE_INVENTORY and ansible.cfg count. Two things
of one name are told apart by --kind (space, bot or guest) and --on (host, guest or cluster). 125: this program itself
failed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import getpass
import json
import os
import pathlib
import posixpath
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import threading
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fleet_inventory import Inventory  # noqa: I001 the path above makes the next ones importable
from plugins.module_utils._errors import FleetError
from plugins.module_utils._openclaw.places import Places

FAILED = 125
PROGRAM = "clawops-space"
PATIENCE = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ControlPath=none"]
SECONDS, AT_ONCE = 30, 16
AS_ROOT = ["sh", "-c", '[ "$(id -u)" = 0 ] && exec "$@"; exec sudo -n -- "$@"', "sh"]
SHELL = ["sh", "-c", "command -v bash >/dev/null && exec bash -l; exec sh -l"]
PUT = ('if [ -d "$1" ]; then echo "$1 is a directory" >&2; exit 1; fi; '
       'cat >"$1.part" && chmod "$2" "$1.part" && mv -- "$1.part" "$1" || { rm -f -- "$1.part"; exit 1; }')
UNPACK = 'mkdir -p -- "$1" && exec tar -xf - -C "$1"'
USE = ('cd /sys/fs/cgroup; for f in memory.current memory/memory.usage_in_bytes cpu.stat cpuacct/cpuacct.usage '
       'pids.current pids/pids.current; do [ ! -r $f ] || { printf "%s: " "$f"; head -n 1 $f; }; done')
# Spaces, a line that divides, and the units of bots.
SURVEY = (f'if command -v {PROGRAM} >/dev/null; then {PROGRAM} list --json || exit; else echo "[]"; fi; echo --; '
          "systemctl list-units --all --plain --no-legend --no-pager openclaw.service 'openclaw@*.service'")
UNIT = re.compile(r"openclaw(?:@([a-z0-9-]+))?\.service\s+\S+\s+(\S+)\s+(\S+)")
STATES = {"active": "started", "inactive": "stopped", "running": "started", "exited": "stopped"}
NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,26}[a-z0-9])?")
NAMED = re.compile(rf"({NAME.pattern}):(.*)", re.DOTALL)
# A guest's ansible_host that the inventory plugin made.
OBSERVED_WAY = "clawops.fleet.vm_way"
GUESTS = "/var/lib/clawops/vms"
Descriptor = t.Optional[int]
#: Form and state by kind and name.
States = dict[tuple[str, str], tuple[str, str]]


class Way(t.Protocol):
    """Runs a program somewhere, and returns its exit code. None as a descriptor is none at all."""

    def run(self, argv: t.Sequence[str], tty: bool = False, stdin: Descriptor = 0, stdout: int = 1) -> int: ...


@dataclasses.dataclass(frozen=True)
class Command:
    """By a command of this machine: ssh, or nothing where a host is the machine itself."""

    before: t.Sequence[str]
    remote: bool = True
    root: bool = True

    def argv(self, argv: t.Sequence[str], tty: bool = False) -> list[str]:
        argv = [*(AS_ROOT if self.root else []), *argv]
        if not self.remote:
            return [*self.before, *argv]
        program, *options, host = self.before
        return [program, "-t" if tty else "-T", *options, "--", host, shlex.join(argv)]

    def run(self, argv: t.Sequence[str], tty: bool = False, stdin: Descriptor = 0, stdout: int = 1) -> int:
        given = subprocess.DEVNULL if stdin is None else stdin
        process = subprocess.Popen(self.argv(argv, tty), stdin=given, stdout=stdout)
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:
                continue  # the program has heard it, too


@dataclasses.dataclass(frozen=True)
class Inside:
    """In something on a host: the words that go before."""

    way: Way
    words: t.Sequence[str]
    tty_words: t.Sequence[str]

    def run(self, argv: t.Sequence[str], tty: bool = False, stdin: Descriptor = 0, stdout: int = 1) -> int:
        return self.way.run([*(self.tty_words if tty else self.words), *argv], tty, stdin, stdout)


@dataclasses.dataclass(frozen=True)
class Pod:
    """In the pod of a bot, through the API server."""

    cluster: t.Any
    namespace: str
    bot: str
    container = "openclaw"

    def name(self) -> str:
        from plugins.module_utils._ssh import tunnel

        found = tunnel.running_pod(self.cluster, self.namespace, self.bot)
        if found is None:
            raise FleetError("not_running", f"Bot {self.bot} has no running pod in {self.namespace}.", "Start it.")
        return found

    def run(self, argv: t.Sequence[str], tty: bool = False, stdin: Descriptor = 0, stdout: int = 1) -> int:
        from plugins.module_utils._kubernetes import terminal

        return terminal.attach(self.cluster, self.namespace, self.name(), argv, self.container, stdin, stdout, tty=tty)

    def logs(self, lines: int, follow: bool) -> int:
        if not follow:
            sys.stdout.write(self.cluster.logs(self.namespace, self.name(), self.container, lines))
            return 0
        for data in self.cluster.follow_logs(self.namespace, self.name(), self.container, lines):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return 0


@dataclasses.dataclass(frozen=True)
class Thing:
    """A space, a bot or a guest, where it is, and in which form: space, guest, container, host, gateway or desktop."""

    name: str
    kind: str
    where: str
    form: str
    state: str = ""


class Fleet:
    """The inventory, and ways to what is in it."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.clusters, self.guests = inventory.members("clusters"), inventory.members("vms")
        self.vm_hosts = inventory.members("vm_hosts")
        #: What VM hosts said of guests that have an address.
        self.observed: dict[str, dict[str, t.Any]] = {}
        self.hosts = [host for host in inventory.members("docker_hosts") if host not in self.clusters + self.guests]

    # -- what there is -------------------------------------------------------------------------------------------

    def declared(self) -> list[Thing]:
        """Bots, guests, and those spaces whose host is known without asking."""
        get, found = self.inventory.get, []
        for name in self.inventory.members("bots"):
            where = str(get(name, "bot_on") or "")
            form = (get(name, "bot_profile") or "gateway") if where in self.clusters else (
                get(name, "bot_runtime") or ("host" if where in self.guests else "container"))
            found += [Thing(name, "bot", where, form)] if where else []
        for kind, group, on in (("guest", "vms", "vm_on"), ("space", "spaces", "space_on")):
            found += [Thing(name, kind, str(get(name, on)), kind) for name in self.inventory.members(group)
                      if get(name, on)]
        return found

    def seen(self) -> tuple[list[Thing], list[str]]:
        """Everything that hosts and clusters say they have, and what went wrong. All are asked at once; then guests."""
        failed: list[str] = []
        answers = _at_once([*((host, self.survey) for host in self.hosts),
                            *((name, self.survey_cluster) for name in self.clusters),
                            *((host, self.survey_guests) for host in self.vm_hosts)], failed)
        running = [name for name in self.guests
                   if answers.get(self._host_of(name), {}).get(("guest", name), ("", ""))[1] == "running"]
        answers.update(_at_once([(name, self.survey) for name in running], failed))
        declared, found = self.declared(), []
        for where in dict.fromkeys([*self.hosts, *self.clusters, *self.vm_hosts, *self.guests]):
            here = {(thing.kind, thing.name): thing for thing in declared if thing.where == where}
            unheard = "unreachable" if where not in answers else "absent"
            states = {**dict.fromkeys(here, ("", unheard)), **answers.get(where, {})}
            for (kind, name), (form, state) in sorted(states.items()):
                known = here.get((kind, name))
                found.append(Thing(name, kind, where, known.form if known else form or kind, state))
        return found, failed

    def _ask(self, host: str, argv: t.Sequence[str], data: bytes = b"") -> str:
        """What a program on a host says, within bounds."""
        command = self.machine(host, PATIENCE).argv(argv)
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise FleetError("unreachable", f"no answer within {SECONDS} seconds") from None
        if done.returncode:
            said = (done.stderr.decode(errors="replace").strip() or f"it said {done.returncode}").splitlines()
            raise FleetError("unreachable", said[-1])
        return done.stdout.decode()

    def survey(self, host: str) -> States:
        """Form and state of each space and bot of a host."""
        spaces, divided, units = self._ask(host, ["sh", "-c", SURVEY]).rpartition("\n--\n")
        if not divided:
            raise FleetError("unreachable", "it said nothing")
        found = {("space", space["space"]): ("space", STATES.get(space["state"], space["state"]))
                 for space in json.loads(spaces)}
        for name, active, _sub in UNIT.findall(units):
            found["bot", name or "openclaw"] = ("", STATES.get(active, active))
        return found

    def guests_of(self, host: str) -> dict[str, dict[str, t.Any]]:
        """What a VM host knows of its guests. Of those that are said to be elsewhere it is not believed."""
        from plugins.plugin_utils import _guests

        argv, fleet = ["python3", "-c", _guests.LAUNCHER], self.inventory.get(host, "fleet_name")
        answer = json.loads(self._ask(host, argv, _guests.program(fleet)))
        if "msg" in answer:
            raise FleetError("unreachable", answer["msg"])
        return {one["name"]: one for one in answer["vms"] if NAME.fullmatch(one["name"])
                and (one["name"] not in self.guests or self._host_of(one["name"]) == host)}

    def _host_of(self, guest: str) -> str:
        return str(self.inventory.get(guest, "vm_on") or "")

    def survey_guests(self, host: str) -> States:
        """State of each guest of a VM host. The way to those that run is kept."""
        found = self.guests_of(host)
        self.observed.update({name: one for name, one in found.items() if one.get("address")})
        return {("guest", name): ("guest", one["state"]) for name, one in found.items()}

    def survey_cluster(self, name: str) -> States:
        from plugins.module_utils._kubernetes import facts

        bots = facts.read(self.cluster(name), self.namespaces(name).values(), self.inventory.get(name, "fleet_name"),
                          None)
        return {("bot", bot["name"]): (bot["profile"] or "gateway", "not ready" if bot["state"] == "started"
                                       and not bot["ready"] else bot["state"]) for bot in bots}

    def find(self, name: str, kind: str | None, where: str | None) -> Thing:
        def fitting(things: t.Iterable[Thing]) -> list[Thing]:
            return [thing for thing in things if thing.name == name and kind in (None, thing.kind)
                    and where in (None, thing.where)]

        found, failed = fitting(self.declared()), []
        placed = any(thing.kind == "space" for thing in found)
        if not found or (kind is None and name in self.inventory.members("spaces") and not placed):
            seen, failed = self.seen()
            found = [thing for thing in fitting(seen) if thing.state != "absent"] or found
        if not found:
            raise FleetError("not_found", f"There is no {kind or 'space, bot or guest'} {name}.",
                             "; ".join(failed) and f"Not asked: {'; '.join(failed)}.")
        if len(found) > 1:
            raise FleetError("ambiguous", f"{name} is " + ", and ".join(
                f"a {thing.kind} on {thing.where}" for thing in found) + ".", "Say which with --kind or --on.")
        return found[0]

    # -- ways ----------------------------------------------------------------------------------------------------

    def machine(self, host: str, options: t.Sequence[str] = ()) -> Command:
        if self.inventory.is_local(host):
            return Command([], remote=False)
        (program, *given), address = self.inventory.ssh(host, self._way(host))
        return Command([program, *options, *given, address])

    def _way(self, host: str) -> dict[str, t.Any]:
        """The variables that lead into a guest, unless the inventory itself says them."""
        own = str((self.inventory.hostvars.get(host) or {}).get("ansible_host") or "")
        if host not in self.guests or (own and OBSERVED_WAY not in own):
            return {}
        from plugins.filter.vms import vm_way

        on = self._host_of(host)
        seen = self.observed.get(host) or self.inventory.get(host, "fleet_observed") or {}
        if not seen.get("address"):
            seen = (self.guests_of(on) if on in self.vm_hosts else {}).get(host) or {}
        if not seen.get("address"):
            raise FleetError("not_running", f"{on or 'Nobody'} knows no address of the guest {host}.", "Start it.")
        guest = {key: self.inventory.get(host, key) for key in ("vm_on", "vm_user", "vm_networks")}
        try:
            return dict(vm_way({**guest, "inventory_hostname": host, "fleet_observed": seen},
                               {**self.inventory.connection(on), "inventory_hostname": on}))
        except Exception as error:
            raise FleetError("no_way", str(error)) from None

    def cluster(self, name: str) -> t.Any:
        from plugins.module_utils._ssh import tunnel

        get = self.inventory.get
        return tunnel.cluster_of(get(name, "cluster_kubeconfig"), get(name, "cluster_context"))

    def namespaces(self, name: str) -> dict[str, str]:
        return {"desktop": self.inventory.get(name, "cluster_namespace") or "claworc",
                "gateway": self.inventory.get(name, "cluster_gateway_namespace") or "claworc-gateway"}

    def pod(self, thing: Thing) -> Pod:
        return Pod(self.cluster(thing.where), self.namespaces(thing.where)[thing.form], thing.name)

    def into(self, thing: Thing) -> Way:
        """The way to run a program in it."""
        if thing.kind == "guest":
            return self.machine(thing.name)
        if thing.form == "gateway":
            return self.pod(thing)
        if thing.form == "desktop":
            return self._desktop(thing)
        places, words = Places(thing.name), self._space("exec", thing.name)
        if thing.form == "container":
            words = ["docker", "exec", "--interactive", places.container]
            return Inside(self.machine(thing.where), words, [*words[:2], "--tty", *words[2:]])
        if thing.form == "host":
            words = ["runuser", "--user", places.user, "--", "env", f"--chdir={places.home}", f"HOME={places.home}",
                     f"USER={places.user}", f"LOGNAME={places.user}"]
            return Inside(self.machine(thing.where), words, words)
        return Inside(self.machine(thing.where), [*words, "--"], [*words, "--tty", "--"])

    def on_host(self, thing: Thing, *words: str, tty: bool = False, **streams: t.Any) -> int:
        """The program for spaces, on the space's host."""
        verb, *more = words
        return self.machine(thing.where).run([*self._space(verb, thing.name), *more], tty, **streams)

    @staticmethod
    def _space(verb: str, name: str) -> list[str]:
        return [PROGRAM, "--actor", getpass.getuser(), verb, name]

    def _desktop(self, thing: Thing) -> Way:
        from plugins.lookup import bot_ssh

        keys = ("cluster_kubeconfig", "cluster_context", "cluster_namespace")
        hostvars = {thing.name: {"bot_on": thing.where},
                    thing.where: {key: self.inventory.get(thing.where, key) for key in keys}}
        try:
            found = bot_ssh.LookupModule().run([thing.name], {"hostvars": hostvars})[0]
        except Exception as error:
            raise FleetError("no_ssh", str(error)) from None
        return Command(["ssh", "-o", "LogLevel=ERROR", *shlex.split(found["common_args"]), "-o", "User=openclaw",
                        "-o", f"IdentityFile={found['private_key_file']}", f"{thing.name}.{thing.where}"], root=False)


def _at_once(asks: t.Sequence[tuple[str, t.Callable[[str], States]]], failed: list[str]) -> dict[str, States]:
    """The answers by place; who did not answer is in failed. A place may be asked by two."""
    answers: dict[str, States] = {}
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [(where, pool.submit(ask, where)) for where, ask in asks]
    for where, answer in asked:
        try:
            states = answer.result()
            answers.setdefault(where, {}).update(states)
        except FleetError as error:
            failed.append(f"{where}: {error.message}")
    return answers


# -- verbs -------------------------------------------------------------------------------------------------------------

def ls(fleet: Fleet, given: argparse.Namespace) -> int:
    found, failed = fleet.seen()
    rows = [("NAME", "KIND", "WHERE", "STATE")]
    rows += [(thing.name, thing.kind if thing.form in (thing.kind, "") else f"{thing.kind} ({thing.form})", thing.where,
              thing.state) for thing in found
             if given.kind in (None, thing.kind) and given.on in (None, thing.where)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for words in failed:
        print(f"fleet: {words}", file=sys.stderr)
    return 1 if failed else 0


def sh(fleet: Fleet, given: argparse.Namespace) -> int:
    thing, tty = named(fleet, given), sys.stdin.isatty()
    if thing.kind == "space":
        return fleet.on_host(thing, "sh", tty=tty)
    return fleet.into(thing).run(SHELL, tty)


def execute(fleet: Fleet, given: argparse.Namespace) -> int:
    argv = given.argv[1:] if given.argv[:1] == ["--"] else given.argv
    if not argv:
        raise FleetError("bad_value", "exec needs a program.", "Write: fleet exec NAME -- PROGRAM ...")
    return fleet.into(named(fleet, given)).run(argv, given.tty)


def logs(fleet: Fleet, given: argparse.Namespace) -> int:
    thing, lines = named(fleet, given), str(given.lines)
    follow = ["--follow"] if given.follow else []
    if thing.kind == "space":
        return fleet.on_host(thing, "logs", "--tail", lines, *follow)
    if thing.kind == "guest":
        follow = ["-F"] if given.follow else []
        return fleet.machine(thing.where).run(["tail", "-n", lines, *follow, f"{GUESTS}/{thing.name}/serial.log"])
    if thing.where in fleet.clusters:
        return fleet.pod(thing).logs(given.lines, given.follow)
    places = Places(thing.name)
    if thing.form == "container":
        return fleet.machine(thing.where).run(["docker", "logs", "--tail", lines, *follow, places.container])
    return fleet.machine(thing.where).run(
        ["journalctl", "--no-pager", "--unit", places.unit, "--lines", lines, *follow])


def stats(fleet: Fleet, given: argparse.Namespace) -> int:
    thing = named(fleet, given)
    places = Places(thing.name)
    if thing.kind == "space":
        return fleet.on_host(thing, "stats")
    if thing.kind == "guest":
        return fleet.machine(thing.where).run(["virsh", "--connect", "qemu:///system", "domstats", thing.name])
    if thing.where in fleet.clusters:
        return fleet.pod(thing).run(["sh", "-c", USE], stdin=None)
    argv = ["docker", "stats", "--no-stream", places.container] if thing.form == "container" else [
        "systemctl", "show", "--property=ActiveState,MemoryCurrent,MemoryMax,CPUUsageNSec,TasksCurrent", places.unit]
    return fleet.machine(thing.where).run(argv)


def named(fleet: Fleet, given: argparse.Namespace) -> Thing:
    return fleet.find(given.name, given.kind, given.on)


# -- cp ----------------------------------------------------------------------------------------------------------------

def cp(fleet: Fleet, given: argparse.Namespace) -> int:
    source, target = far(given.source), far(given.target)
    if (source is None) == (target is None):
        raise FleetError("bad_value", "One of the two is NAME:PATH, the other is a file here.",
                         "Put ./ before a file here that has a colon in its name.")
    name, path = t.cast("tuple[str, str]", source or target)
    thing = fleet.find(name, given.kind, given.on)
    if source:
        return (get_tree if given.recursive else get_file)(fleet, thing, path, given.target)
    near = pathlib.Path(given.source)
    if path.endswith("/") or not path:
        path = posixpath.join(path, near.resolve().name)
    if near.is_dir() != given.recursive:
        raise FleetError("bad_value", f"{near} is {'a' if near.is_dir() else 'no'} directory.",
                         "-r copies directories, and only those.")
    return (put_tree if given.recursive else put_file)(fleet, thing, path, given.source)


def far(word: str) -> tuple[str, str] | None:
    found = NAMED.fullmatch(word)
    return (found[1], found[2]) if found else None


def put_file(fleet: Fleet, thing: Thing, path: str, near: str) -> int:
    with open(0 if near == "-" else near, "rb", closefd=near != "-") as stream:
        mode = "644" if near == "-" else f"{os.fstat(stream.fileno()).st_mode & 0o777:o}"
        if thing.kind == "space":
            return fleet.on_host(thing, "put", path, "--mode", mode, stdin=stream.fileno())
        return fleet.into(thing).run(["sh", "-c", PUT, "sh", path, mode], stdin=stream.fileno())


def get_file(fleet: Fleet, thing: Thing, path: str, near: str) -> int:
    def fetch(stdout: int) -> int:
        if thing.kind == "space":
            return fleet.on_host(thing, "get", path, stdin=None, stdout=stdout)
        return fleet.into(thing).run(["cat", "--", path], stdin=None, stdout=stdout)

    if near == "-":
        return fetch(1)
    target = pathlib.Path(near)
    target = target / posixpath.basename(path) if target.is_dir() else target
    # What arrives in part never has the name of the whole.
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.") as stream:
        code = fetch(stream.fileno())
        if code == 0:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(stream.name, 0o666 & ~umask)
            os.rename(stream.name, target)
            open(stream.name, "x").close()  # for the name that is removed at the end
    return code


def put_tree(fleet: Fleet, thing: Thing, path: str, near: str) -> int:
    def pack(descriptor: int) -> None:
        with os.fdopen(descriptor, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|") as tar:
            for entry in sorted(pathlib.Path(near).iterdir()):
                tar.add(entry, entry.name, filter=nobodys)

    return beside(pack, lambda reads, _writes: fleet.into(thing).run(["sh", "-c", UNPACK, "sh", path], stdin=reads),
                  near_writes=True)


def get_tree(fleet: Fleet, thing: Thing, path: str, near: str) -> int:
    if not hasattr(tarfile, "data_filter"):
        raise FleetError("old_python", "This Python can't unpack what it does not trust.", "Use 3.12 or newer.")

    def unpack(descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as pipe, tarfile.open(fileobj=pipe, mode="r|") as tar:
            tar.extractall(near, filter="data")
            while pipe.read(65536):
                pass

    pathlib.Path(near).mkdir(exist_ok=True)
    return beside(unpack, lambda _reads, writes: fleet.into(thing).run(["tar", "-cf", "-", "-C", path, "."], stdin=None,
                                                                       stdout=writes), near_writes=False)


def nobodys(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Files belong to whoever unpacks them."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def beside(near: t.Callable[[int], None], there: t.Callable[[int, int], int], near_writes: bool) -> int:
    """Runs both at once with a pipe between them."""
    reads, writes = os.pipe()
    wrong: list[Exception] = []

    def work() -> None:
        try:
            near(writes if near_writes else reads)
        except (OSError, tarfile.TarError) as error:
            wrong.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        code = there(reads, writes)
    finally:
        os.close(reads if near_writes else writes)
    thread.join()
    if wrong and not code:
        raise FleetError("torn", f"Not everything was copied: {wrong[0]}.")
    return code


def parsed(argv: t.Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fleet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", action="append", default=[])
    parser.add_argument("--on", metavar="PLACE")
    parser.add_argument("--kind", choices=["space", "bot", "guest"])
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = {}
    for name, verb in {"ls": ls, "sh": sh, "exec": execute, "cp": cp, "logs": logs, "stats": stats}.items():
        made[name] = verbs.add_parser(name)
        made[name].set_defaults(run=verb)
        if name not in ("ls", "cp"):
            made[name].add_argument("name")
    made["exec"].add_argument("-t", "--tty", action="store_true")
    made["exec"].add_argument("argv", nargs=argparse.REMAINDER)
    made["cp"].add_argument("-r", "--recursive", action="store_true")
    made["cp"].add_argument("source")
    made["cp"].add_argument("target")
    made["logs"].add_argument("-f", "--follow", action="store_true")
    made["logs"].add_argument("-n", "--lines", type=int, default=100)
    return parser.parse_args(argv)


def main() -> int:
    given = parsed()
    try:
        return int(given.run(Fleet(Inventory.read(given.inventory)), given))
    except FleetError as error:
        print(f"fleet: {error.result()['msg']}", file=sys.stderr)
    except OSError as error:
        print(f"fleet: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
