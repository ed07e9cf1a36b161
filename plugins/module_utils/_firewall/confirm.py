# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A change of UFW on trial: in force, but not in UFW's files, until a new connection confirms it.

The files hold the state that comes back. So a timer that loads them goes back, and so does a reboot; what others
write into them meanwhile is not lost. Whoever wants to change the firewall next waits until the trial is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import ipaddress
import os
import re
import secrets
import shutil
import time
import typing as t

from .. import _files
from .._errors import FleetError
from .._plan import Plan
from .host import File, Host
from .rules import Version

DIRECTORY = "/run/clawops"
TRIAL = f"{DIRECTORY}/firewall-trial"
UNIT = "clawops-firewall-revert"
UFW_LOCK = "/run/ufw.lock"
RULES: dict[Version, str] = {4: "/etc/ufw/user.rules", 6: "/etc/ufw/user6.rules"}
LOADERS: dict[Version, tuple[str, ...]] = {4: ("iptables-restore", "--noflush"), 6: ("ip6tables-restore", "--noflush")}
LONGEST = 600

Changes = dict[str, tuple[File, File]]
"""Files by path, each as it was read and as it is to be."""


# -- the connection over which Ansible came ---------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Connection:
    """What sshd says about a connection: client address and port, server address and port."""

    text: str

    @property
    def client(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        address = ipaddress.ip_address(self.text.split()[0].partition("%")[0])
        return getattr(address, "ipv4_mapped", None) or address

    @property
    def zone(self) -> str:
        """The interface of a link-local client."""
        return self.text.split()[0].partition("%")[2]

    @property
    def port(self) -> int:
        return int(self.text.split()[3])


def ssh_connection(host: Host, pid: int | None = None) -> Connection | None:
    """Found in the environment of an ancestor, because sudo strips it; None when Ansible did not come by SSH."""
    pid = pid or os.getpid()
    with contextlib.suppress(OSError):
        while pid > 1:
            found = re.search(rb"(?:^|\0)SSH_CONNECTION=([^\0]+)", host.path(f"/proc/{pid}/environ").read_bytes())
            if found:
                return Connection(found[1].decode())
            parent = re.search(r"^PPid:\s+(\d+)$", host.path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            pid = int(parent[1]) if parent else 0
    return None


# -- one after the other ----------------------------------------------------------------------------------------------

def pending(host: Host) -> bool:
    """A change is on trial, or going back."""
    return any(host.path(f"/run/systemd/transient/{UNIT}.{kind}").exists() for kind in ("timer", "service"))


@contextlib.contextmanager
def turn(host: Host, patience: float = LONGEST + 60, pause: float = 0.5) -> t.Iterator[None]:
    """UFW for this run alone, and no change on trial."""
    deadline = time.monotonic() + patience
    while True:
        with host.locked(DIRECTORY):
            if not pending(host):
                yield
                return
        if time.monotonic() > deadline:
            raise FleetError("busy", "An earlier change of the firewall is on trial and does not come to an end.",
                             f"See 'systemctl status {UNIT}.timer {UNIT}.service' on the host.")
        time.sleep(pause)


def replace(host: Host, changes: Changes) -> None:
    """Writes the files under UFW's own lock, unless somebody else wrote one since it was read."""
    lock = host.path(UFW_LOCK)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        for path, (before, _after) in changes.items():
            if host.read(path) != before:
                raise FleetError("changed_meanwhile", f"{path} was changed by somebody else during this run.",
                                 "Nothing of this change was kept. Run it again.")
        for path, (_before, after) in changes.items():
            for unfinished in host.leftovers(path):
                host.path(unfinished).unlink()
            host.write(path, after)


# -- the trial --------------------------------------------------------------------------------------------------------

def _revert_script() -> str:
    """Loads UFW's files, each family in one transaction. Free of $ and %, which systemd would expand."""
    loads = [f"{{ grep -vFx COMMIT {RULES[version]}; cat policy.v{version}; }} | {' '.join(LOADERS[version])}"
             for version in RULES]
    return "\n".join([f"[ -d {TRIAL} ] || exit 0", f"exec 9< {DIRECTORY}", "flock 9",
                      f"cd {TRIAL} || exit 0", loads[0], f"[ ! -e /proc/sys/net/ipv6 ] || {loads[1]}",
                      f"rm -r {TRIAL}", f"rmdir --ignore-fail-on-non-empty {DIRECTORY}",
                      "echo 'No new connection confirmed the change of the firewall: the previous state is back.'"])


def start(host: Host, seconds: int, changes: Changes, policies: t.Mapping[Version, str],
          connection: Connection | None) -> str:
    """Arms the timer. policies is what UFW's user rules lack for the previous state. Returns the trial's id."""
    if not (host.has("systemd-run") and host.path("/run/systemd/system").exists()):
        raise FleetError("bad_value", "confirm_timeout: this host has no systemd that could take the change back.",
                         "Set it to 0 to change the firewall without a trial.", parameter="confirm_timeout")
    _discard(host)
    trial = secrets.token_hex(8)
    for version, policy in policies.items():
        host.write(f"{TRIAL}/policy.v{version}", File(0o600, policy))
    record = {"id": trial, "connection": connection and connection.text, "changes": changes}
    host.write(f"{TRIAL}/trial.json", File(0o600, _files.pretty(record)))
    host.run("systemd-run", "--quiet", "--collect", f"--unit={UNIT}", "--description=Take a change of UFW back",
             f"--on-active={seconds}s", "--timer-property=AccuracySec=1s", "--property=Restart=on-failure",
             "--property=RestartSec=5s", "sh", "-euc", _revert_script())
    return trial


def _discard(host: Host) -> None:
    shutil.rmtree(host.path(TRIAL), ignore_errors=True)


class Confirmation:
    """Makes the change of a trial permanent."""

    def __init__(self, host: Host, trial: str, connection: Connection | None, new_connection: bool) -> None:
        self.host = host
        self.trial = trial
        self.connection = connection
        self.new_connection = new_connection
        self.changes: Changes = {}

    def plan(self) -> Plan:
        record = _files.read_json(self.host.path(f"{TRIAL}/trial.json")) if pending(self.host) else None
        if not record or record["id"] != self.trial:
            raise FleetError("reverted", "The change of the firewall was not confirmed in time, and the host took it "
                                         "back.", "See whether new connections get in under the new policy.")
        begun = record["connection"]
        if self.new_connection and begun and (self.connection is None or self.connection.text == begun):
            raise FleetError("not_new", "This is the connection over which the firewall was changed; "
                                        "that it lives proves nothing.", "Reset the connection first.")
        self.changes = {path: (File(*before), File(*after)) for path, (before, after) in record["changes"].items()}
        plan = Plan()
        plan.add(f"{UNIT}.timer", "delete")
        for path, (before, after) in self.changes.items():
            plan.compare(path, after.shown(), before.shown())
        return plan

    def apply(self, _plan: Plan) -> dict[str, t.Any]:
        """Files first: if this dies in between, the timer loads the new ones."""
        replace(self.host, self.changes)
        _discard(self.host)
        self.host.run("systemctl", "stop", f"{UNIT}.timer")
        return self.facts()

    def facts(self) -> dict[str, t.Any]:
        return {"files": list(self.changes)}
