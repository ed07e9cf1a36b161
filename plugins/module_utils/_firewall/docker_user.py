# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The policy for published ports: chain CLAWOPS-USER below DOCKER-USER, live and for the boot, in both IP families.

One model renders the boot files; the restore script loads exactly these files, now and after each start of
Docker and UFW. The two jumps are facts of their own: rules in a chain that nobody jumps to filter nothing.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing as t

from .._errors import FleetError, bad_value
from .._plan import Plan
from .host import File, Host
from .rules import Allow, Version, parse_allow, parse_interfaces

CHAIN, HOOK = "CLAWOPS-USER", "DOCKER-USER"
BRIDGES = ("docker0", "br-+", "cb-+", "cs-+")
ENGINE_CHAINS = ("DOCKER", "DOCKER-FORWARD")
TOOLS: dict[Version, str] = {4: "iptables", 6: "ip6tables"}

DIRECTORY = "/etc/clawops/firewall"
SCRIPT = "/usr/local/lib/clawops/firewall-restore"
DROP_IN = "/etc/systemd/system/docker.service.d/clawops-firewall.conf"
UFW_HOOK, UFW_DEFAULTS = "/etc/ufw/after.init", "/etc/default/ufw"
# The lock keeps a start of Docker or UFW from reading the files while a run is writing them.
RESTORE = f"/usr/bin/flock {DIRECTORY} {SCRIPT}"

_MATCH = {"--ctstate": "-m conntrack ", "--ctorigdstport": "-m conntrack ", "--comment": "-m comment "}
_OPTION_ORDER = ("-s", "-i", "-p", "--ctstate", "--ctorigdstport", "--ctdir", "--comment", "-j")


@dataclasses.dataclass(frozen=True)
class Policy:
    allow: tuple[Allow, ...]
    bridges: tuple[str, ...]
    trusted: tuple[str, ...]


def parse_policy(params: t.Mapping[str, t.Any]) -> Policy:
    return Policy(parse_allow("allow", params["allow"]), parse_interfaces("bridges", params["bridges"]),
                  parse_interfaces("trusted_interfaces", params["trusted_interfaces"]))


# -- the desired rules ------------------------------------------------------------------------------------------------

def render(policy: Policy, version: Version) -> list[str]:
    """The rules of the chain in order. RETURN leaves the packet to the engine's own rules; ACCEPT would skip them."""
    return ["--ctstate ESTABLISHED,RELATED -j RETURN",
            *(f"-i {name} -j RETURN" for name in (*policy.bridges, *policy.trusted)),
            *(_render_allow(allow, source) for allow in policy.allow for source in allow.sources_of(version)),
            "-j DROP"]


def _render_allow(allow: Allow, source: str | None) -> str:
    # DOCKER-USER comes after DNAT: only conntrack still knows the published port.
    parts = [f"-s {source}"] if source else []
    parts += [f"-p {allow.protocol}", f"--ctorigdstport {allow.port}", "--ctdir ORIGINAL"]
    if allow.comment:
        parts.append(f"--comment {shlex.quote(allow.comment)}")
    return " ".join([*parts, "-j RETURN"])


def boot_file(rules: t.Sequence[str]) -> str:
    """iptables-restore format. Only our chain is declared: declaring DOCKER-USER would empty it of others' rules."""
    lines = (f"-A {CHAIN} {_boot_line(rule)}" for rule in rules)
    return "\n".join(["# Written by clawops.fleet.ufw_docker_user; loaded by firewall-restore.", "*filter",
                      f":{CHAIN} - [0:0]", *lines, "COMMIT", ""])


def _boot_line(rule: str) -> str:
    words = shlex.split(rule)
    pairs = zip(words[::2], words[1::2])
    return " ".join(_MATCH.get(option, "") + (f'{option} "{value}"' if option == "--comment" else f"{option} {value}")
                    for option, value in pairs)


SCRIPT_TEXT = f"""\
#!/bin/sh
# Written by clawops.fleet.ufw_docker_user. Loads {CHAIN} and puts both jumps first, one transaction per IP family.
set -eu

# Prints what makes "$2" the first jump of chain "$1"; nothing when it is.
first_jump() {{
    rules=$(printf '%s\\n' "$saved" | grep "^-A $1 " || :)
    [ "$(printf '%s\\n' "$rules" | head -n 1)" != "-A $1 -j $2" ] || return 0
    printf '%s\\n' "$rules" | grep -Fx -e "-A $1 -j $2" | sed 's/^-A/-D/' || :
    echo "-I $1 1 -j $2"
}}

load() {{
    saved=$("$1-save" -t filter)
    {{
        grep -v '^COMMIT$' "{DIRECTORY}/$2"
        printf '%s\\n' "$saved" | grep -q '^:{HOOK} ' || echo ':{HOOK} - [0:0]'
        first_jump {HOOK} {CHAIN}
        first_jump FORWARD {HOOK}
        echo COMMIT
    }} | "$1-restore" --noflush
}}

load iptables rules.v4
[ ! -e /proc/sys/net/ipv6 ] || load ip6tables rules.v6
"""

DROP_IN_TEXT = f"""\
# Written by clawops.fleet.ufw_docker_user. Before: no port is open while containers start. After: Docker may have
# put its own jumps first. If the rules can't be loaded, Docker does not start.
[Unit]
After=ufw.service

[Service]
ExecStartPre={RESTORE}
ExecStartPost={RESTORE}
"""


# -- the block in ufw's after.init ------------------------------------------------------------------------------------

_BLOCK = re.compile(r"# BEGIN clawops\.fleet \(before: (?P<before>\w+)\)\n.*?# END clawops\.fleet\n", re.DOTALL)


def with_block(file: File | None) -> File:
    """Adds our block below the first line, so that an exit further down does not skip it."""
    mode, text = file or File(0o750, "#!/bin/sh\n")
    first, newline, rest = text.partition("\n")
    if not re.match(r"#!.*sh\b", first):
        raise FleetError("foreign_object", f"{UFW_HOOK} is not a shell script: {first!r}.",
                         f"Let it call '{RESTORE}' on start by itself, as a shell script.")
    asleep = file is not None and not mode & 0o111
    before = f"{mode:04o}" if file else "absent"
    block = [f"# BEGIN clawops.fleet (before: {before})", f'[ "$1" != start ] || {RESTORE}',
             *(["exit 0  # what follows was not executable before, and stays without effect"] if asleep else []),
             "# END clawops.fleet", ""]
    return File(mode | 0o110, first + (newline or "\n") + "\n".join(block) + rest)


def without_block(file: File | None) -> File | None:
    """The file as it was before with_block."""
    match = _BLOCK.search(file.text) if file else None
    if file is None or match is None:
        return file
    text = file.text[:match.start()] + file.text[match.end():]
    if match["before"] == "absent":
        return None if text == "#!/bin/sh\n" else File(file.mode, text)
    return File(int(match["before"], 8), text)


# -- the observed rules -----------------------------------------------------------------------------------------------

def parse_saved(text: str) -> dict[str, list[str]]:
    """The chains of one iptables-save output, each with its rules as written."""
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _append, chain, rule = line.split(" ", 2)
            chains[chain].append(rule)
    return chains


def canonical(rule: str) -> str:
    """One spelling per meaning: without -m, options and states in a fixed order."""
    options: list[tuple[str, list[str]]] = []
    negation = ""
    for word in shlex.split(rule):
        if word == "!":
            negation = "! "
        elif word.startswith("--") or (word.startswith("-") and len(word) == 2):
            options.append((negation + word, []))
            negation = ""
        elif options:
            options[-1][1].append(word)
    kept = [(name, _canonical_value(name, " ".join(values))) for name, values in options if name != "-m"]
    kept.sort(key=lambda option: _OPTION_ORDER.index(option[0]) if option[0] in _OPTION_ORDER else -1)
    return " ".join(f"{name} {value}".rstrip() for name, value in kept)


def _canonical_value(option: str, value: str) -> str:
    if option == "--ctstate":
        return ",".join(sorted(value.split(",")))
    return shlex.quote(value) if value else ""


@dataclasses.dataclass(frozen=True)
class Family:
    """One IP family as it stands in the kernel."""

    version: Version
    chains: dict[str, list[str]]

    @property
    def label(self) -> str:
        return f"IPv{self.version}"

    @property
    def engine(self) -> bool:
        """Docker filters this family by itself."""
        return any(chain in self.chains for chain in ENGINE_CHAINS)

    @property
    def rules(self) -> list[str] | None:
        found = self.chains.get(CHAIN)
        return None if found is None else [canonical(rule) for rule in found]

    def jump(self, chain: str, target: str) -> str | None:
        rules = self.chains.get(chain, [])
        if f"-j {target}" not in rules:
            return None
        return "first" if rules[0] == f"-j {target}" else "not first"

    @property
    def hook_is_ours(self) -> bool:
        """No engine made DOCKER-USER, and nobody else put a rule in: it goes when our chain goes."""
        return HOOK in self.chains and not self.engine and set(self.chains[HOOK]) <= {f"-j {CHAIN}", "-j RETURN"}


class DockerUser:
    """The policy of one host: plan() reads, apply() writes what is in the plan."""

    def __init__(self, host: Host, policy: Policy | None) -> None:
        self.host = host
        self.policy = policy
        self.families: list[Family] = []
        self.files: dict[str, File | None] = {}

    @property
    def versions(self) -> list[Version]:
        return [4, 6] if self.host.path("/proc/sys/net/ipv6").exists() else [4]

    def plan(self) -> Plan:
        plan = Plan()
        self._refuse_uplink_as_bridge()
        self.files = self._desired_files()
        for path, file in self.files.items():
            found = self.host.read(path)
            plan.compare(path, file and file.shown(), found and found.shown())
        if self.host.has("iptables-save"):
            self.families = [self._observe(version) for version in self.versions]
            for family in self.families:
                self._plan_family(plan, family)
        elif self.policy:
            plan.cannot_see("iptables is not installed yet")
        return plan

    def _observe(self, version: Version) -> Family:
        return Family(version, parse_saved(self.host.run(f"{TOOLS[version]}-save", "-t", "filter")))

    def _plan_family(self, plan: Plan, family: Family) -> None:
        desired = render(self.policy, family.version) if self.policy else None
        hook = family.jump("FORWARD", HOOK)
        # Where Docker stands behind DOCKER-USER, the way to it is Docker's and stays when our chain goes.
        hook_desired = "first" if self.policy else None if family.hook_is_ours else hook
        plan.compare(f"{CHAIN} {family.label}", desired, family.rules)
        plan.compare(f"{HOOK} -> {CHAIN} {family.label}", "first" if self.policy else None, family.jump(HOOK, CHAIN))
        plan.compare(f"FORWARD -> {HOOK} {family.label}", hook_desired, hook)

    def _desired_files(self) -> dict[str, File | None]:
        hook = without_block(self.host.read(UFW_HOOK))
        if self.policy is None:
            paths = (UFW_HOOK, DROP_IN, SCRIPT, self._rules_path(4), self._rules_path(6))
            return {path: hook if path == UFW_HOOK else None for path in paths}
        files: dict[str, File | None] = {
            self._rules_path(version): File(0o644, boot_file(render(self.policy, version))) for version in TOOLS}
        files[SCRIPT] = File(0o755, SCRIPT_TEXT)
        files[DROP_IN] = File(0o644, DROP_IN_TEXT)
        if self.host.path(UFW_DEFAULTS).exists():
            files[UFW_HOOK] = with_block(hook)
        return files

    @staticmethod
    def _rules_path(version: Version) -> str:
        return f"{DIRECTORY}/rules.v{version}"

    def _refuse_uplink_as_bridge(self) -> None:
        for pattern in self.policy.bridges if self.policy else ():
            for name in self._uplinks():
                if name == pattern or (pattern.endswith("+") and name.startswith(pattern[:-1])):
                    raise bad_value("bridges", pattern, f"{name} carries the default route and would count as "
                                                        "a Docker bridge. List only the bridges of containers.")

    def _uplinks(self) -> set[str]:
        v4, v6 = (self.host.read(path) for path in ("/proc/net/route", "/proc/net/ipv6_route"))
        rows4 = [row.split() for row in v4.text.splitlines()[1:]] if v4 else []
        rows6 = [row.split() for row in v6.text.splitlines()] if v6 else []
        return ({row[0] for row in rows4 if row[1] == row[7] == "0" * 8}
                | {row[9] for row in rows6 if row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo"})

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        with self.host.locked(DIRECTORY):
            if self.policy:
                self._install(plan)
            else:
                self._uninstall(plan)
        if plan.touches(DROP_IN) and self.host.path("/run/systemd/system").exists():
            self.host.run("systemctl", "daemon-reload")
        if self.policy is None:
            self._remove_directories()
        return self.facts()

    def _install(self, plan: Plan) -> None:
        for family in self.families:
            file = self.files[self._rules_path(family.version)]
            self.host.run(f"{TOOLS[family.version]}-restore", "--noflush", "--test", stdin=file.text if file else "")
        self._write_files(plan, lambda path: path.startswith(DIRECTORY) or path == SCRIPT)
        if any(plan.touches(subject) for family in self.families for subject in _live_subjects(family)):
            self.host.run(str(self.host.path(SCRIPT)))
        self._write_files(plan, lambda path: path in (DROP_IN, UFW_HOOK))

    def _uninstall(self, plan: Plan) -> None:
        self._write_files(plan, lambda path: path in (DROP_IN, UFW_HOOK))
        for family in self.families:
            lines = _removal(family)
            if lines:
                self.host.run(f"{TOOLS[family.version]}-restore", "--noflush",
                              stdin="\n".join(["*filter", *lines, "COMMIT", ""]))
        self._write_files(plan, lambda path: path not in (DROP_IN, UFW_HOOK))

    def _write_files(self, plan: Plan, chosen: t.Callable[[str], bool]) -> None:
        for path, file in self.files.items():
            if not (chosen(path) and plan.touches(path)):
                continue
            if file is None:
                self.host.remove(path)
            else:
                self.host.write(path, file)

    def _remove_directories(self) -> None:
        for path in (self.host.path(DIRECTORY), self.host.path(DIRECTORY).parent):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def facts(self) -> dict[str, t.Any]:
        rules = {f"ipv{version}": render(self.policy, version) if self.policy else [] for version in self.versions}
        return {"rules": rules, "ipv6_engine": self._ipv6_engine()}

    def _ipv6_engine(self) -> str:
        if 6 not in self.versions:
            return "disabled"
        ipv6 = next((family for family in self.families if family.version == 6), None)
        return "unknown" if ipv6 is None else "filtered" if ipv6.engine else "proxy"


def _live_subjects(family: Family) -> list[str]:
    return [f"{CHAIN} {family.label}", f"{HOOK} -> {CHAIN} {family.label}", f"FORWARD -> {HOOK} {family.label}"]


def _removal(family: Family) -> list[str]:
    """What one transaction takes out: our jumps and chain, and DOCKER-USER where only we made it."""
    chains = [HOOK] * family.hook_is_ours + [CHAIN] * (family.rules is not None)
    parents = ["FORWARD"] if family.hook_is_ours else [HOOK]
    jumps = [f"-D {parent} -j {chains[0]}" for parent in parents if chains
             for rule in family.chains.get(parent, []) if rule == f"-j {chains[0]}"]
    # Flushing comes first: iptables-nft can't delete a chain whose jump it removed by -D and -F at once.
    return [*(f"-F {chain}" for chain in chains), *jumps, *(f"-X {chain}" for chain in chains)]
