# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Waiting for a guest: an address, then SSH with the host key that is its own, then the end of cloud-init.

What can't come any more ends the wait at once: a guest that stopped or hangs, a cloud-init that failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import re
import socket
import time
import typing as t

from .._errors import FleetError
from .._process import Runner, run
from . import agent, names
from .client import Domain, library
from .hostkeys import KIND, HostKey

if t.TYPE_CHECKING:
    from .spec import Guest

STEPS = ("none", "address", "ssh", "cloud_init")
PORT = 22
#: Seconds between two looks: a small part of what the boot has taken by now, because every look costs the guest, too.
_SHORTEST, _LONGEST, _PART = 0.5, 5.0, 0.03
_TOUCH, _SCAN = 3.0, 20
#: An address may have been another guest's a moment ago.
_SETTLES = 30.0
#: How much later than cloud-init a guest agent may come.
_GRACE = 15.0
_TAIL, _MOST_ERRORS = 4096, 10
_LEASE = 0  # VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
_PAUSED, _OFF, _CRASHED = 3, 5, 6
_IO_ERROR = 5  # VIR_DOMAIN_PAUSED_IOERROR
_STATES = {1: "running", 2: "blocked", _PAUSED: "paused", 4: "shutting down", _OFF: "shut off", _CRASHED: "crashed",
           7: "suspended"}
_OFF_REASONS = {1: "it was shut down", 2: "it was destroyed", 3: "it crashed", 4: "it was migrated", 5: "it was saved",
                6: "it failed to start", 7: "it is a snapshot", 8: "its daemon ended it"}
#: What a console ends with when nothing comes after it any more.
_DEAD = ("Kernel panic - not syncing", "systemd[1]: Freezing execution", "You are in emergency mode")
_FINISHED = re.compile(r"Cloud-init v\. \S+ finished at")
_CONTROLS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[^\[])|[^\n\t -~]")
#: Files instead of `cloud-init status`: the same facts, which cost a guest that boots no second of its processor.
_STATUS = ["/bin/sh", "-c", "cd /run/cloud-init && for file in disabled status.json result.json; do "
           'if [ -e "$file" ]; then echo "== $file"; cat "$file"; echo; fi; done']
_LOG = ["/bin/sh", "-c", "grep -hE 'WARNING|ERROR|CRITICAL' /var/log/cloud-init.log | tail -n 8; "
        "grep -v ^ci-info /var/log/cloud-init-output.log | tail -n 15"]


@dataclasses.dataclass(frozen=True)
class Target:
    """The guest that is waited for. serial is its log; what stands before `since` is of an earlier start."""

    name: str
    host_key: HostKey
    macs: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    serial: str = ""
    since: int = 0

    @classmethod
    def of(cls, guest: Guest, host_key: HostKey, since: int = 0) -> Target:
        static = tuple(network.ip for network in guest.networks if network.ip)
        return cls(guest.name, host_key, guest.macs, static, str(names.serial_log(guest.name)), since)


@dataclasses.dataclass(frozen=True)
class Reached:
    """addresses: those that answered, or that the guest itself names. cloud_init: how it ended, and who said so."""

    addresses: tuple[str, ...] = ()
    cloud_init: dict[str, str] = dataclasses.field(default_factory=dict)


def until(find: t.Callable[[], Domain | None], target: Target, what: str, timeout: float, runner: Runner = run,
          clock: t.Callable[[], float] = time.monotonic, sleep: t.Callable[[float], None] = time.sleep) -> Reached:
    """Waits until a step is reached. find gives the domain (Host.domain), and is asked anew after a loss."""
    if what == "none":
        return Reached()
    watch, begun = _Watch(find, target, what, runner, clock), clock()
    while not watch.look():
        passed = clock() - begun
        if passed >= timeout:
            raise watch.too_late(timeout)
        sleep(min(max(_SHORTEST, passed * _PART), _LONGEST))
    return Reached(tuple(watch.addresses), watch.cloud_init)


def addresses(domain: Domain, macs: t.Collection[str]) -> list[str]:
    """What a running guest itself says, or else the leases of its networks. Raises libvirtError."""
    return _named(domain, macs) or _leased(domain, macs)


class _Watch:
    """What is known of the guest by now."""

    def __init__(self, find: t.Callable[[], Domain | None], target: Target, what: str, runner: Runner,
                 clock: t.Callable[[], float]) -> None:
        self.find, self.target, self.runner, self.clock = find, target, runner, clock
        self.step = STEPS.index(what)
        self.domain: t.Any = None
        self.addresses: list[str] = []
        self.trusted = False
        self.cloud_init: dict[str, str] = {}
        self.state = {"guest": "not seen", "address": "none", "ssh": "no answer", "cloud_init": "not seen"}
        self.stranger: tuple[float, str] | None = None
        self.has_agent = False
        self.finished: float | None = None

    def look(self) -> bool:
        """One look; True when everything that is waited for is there."""
        libvirt = library()
        try:
            self.domain = self.domain or self.find()
            if self.domain is None:
                raise self._gone()
            return self._look()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise self._gone() from None
            self._lose(str(error))
        except FleetError as error:
            if error.code != "libvirt_unreachable":
                raise
            self._lose(error.message)
        return False

    def _gone(self) -> FleetError:
        return FleetError("guest_gone", f"{self.target.name} was removed while it was waited for.")

    def _lose(self, why: str) -> None:
        """libvirtd may have been restarted: the next look goes through another connection."""
        self.state["guest"] = f"not seen, because libvirt does not answer ({why.rstrip('.')})"
        self.domain = None

    def too_late(self, timeout: float) -> FleetError:
        known = ", ".join(f"{key.replace('_', '-')}: {value}" for key, value in self._asked().items())
        return FleetError(
            "guest_not_ready", f"{self.target.name} did not reach {STEPS[self.step]} within {timeout:.0f} seconds. "
            f"Last seen: {known}.{self._last_words()}", self._advice(), state=self._asked())

    def _asked(self) -> dict[str, str]:
        return dict(list(self.state.items())[:self.step + 1])

    def _advice(self) -> str:
        if self.state["address"] == "none":
            return f"Does its network give addresses, and did it boot? Its console is in {self.target.serial}."
        return "Give it more time with vm_wait.timeout, or look into it."

    def _look(self) -> bool:
        """What was seen once is not asked for again."""
        self._check_alive()
        wants_ssh, wants_cloud_init = (self.step >= STEPS.index(step) for step in ("ssh", "cloud_init"))
        if wants_cloud_init and not self.cloud_init:
            self._look_at_cloud_init()
        if not self.trusted:
            self.trusted = self._find_addresses() and (not wants_ssh or self._ssh())
        return self.trusted and (not wants_cloud_init or bool(self.cloud_init))

    def _check_alive(self) -> None:
        state, reason = self.domain.state()
        self.state["guest"] = _STATES.get(state, "unknown")
        if state in (_OFF, _CRASHED):
            why = "it crashed" if state == _CRASHED else _OFF_REASONS.get(reason, "for an unknown reason")
            raise self._hopeless("guest_stopped", f"has stopped: {why}")
        if state == _PAUSED and reason == _IO_ERROR:
            raise self._hopeless("guest_stopped", "was paused by an input/output error; is the disk of its host full?")
        end = self._console()[-_TAIL // 2:]
        dead = next((words for words in _DEAD if words in end), None)
        if dead:
            raise self._hopeless("guest_dead", f'does not boot any further ("{dead}")')

    def _hopeless(self, code: str, what: str) -> FleetError:
        return FleetError(code, f"{self.target.name} {what}.{self._last_words()}",
                          f"Its console is in {self.target.serial}.", state=self._asked())

    def _find_addresses(self) -> bool:
        named = _named(self.domain, self.target.macs)
        known = named or [*self.target.static, *_leased(self.domain, self.target.macs)]
        # A lease may be an old one, and a fixed address is only a wish: somebody has to answer there.
        answering = named or [address for address in known if _touch(address) is not None]
        self.addresses = list(dict.fromkeys(answering))
        said = ", ".join(dict.fromkeys(known)) or "none"
        self.state["address"] = said if answering or not known else f"{said} (nothing answers there)"
        return bool(self.addresses)

    def _ssh(self) -> bool:
        for address in self.addresses:
            if not _touch(address):
                continue
            presented = self._presented(address)
            if presented == self.target.host_key.public:
                self.addresses.sort(key=lambda one: one != address)
                self.state["ssh"] = f"the pinned host key at {address}"
                return True
            self._note_stranger(address, presented)
        return False

    def _presented(self, address: str) -> str:
        argv = ["ssh-keyscan", "-T", str(_SCAN), "-t", KIND.split("-")[1], "-p", str(PORT), address]
        try:
            lines = [line.split() for line in self.runner(argv, timeout=2 * _SCAN).out.splitlines()]
        except FleetError as error:
            if error.code != "timeout":
                raise
            return ""
        return next((f"{line[1]} {line[2]}" for line in lines if len(line) >= 3 and line[1] == KIND), "")

    def _note_stranger(self, address: str, presented: str) -> None:
        if not presented:
            self.state["ssh"] = f"no ED25519 host key at {address} yet"
            return
        shown = HostKey("", presented).fingerprint
        self.state["ssh"] = f"the host key {shown} at {address}, pinned is {self.target.host_key.fingerprint}"
        if self.stranger is None or self.stranger[1] != shown:
            self.stranger = (self.clock(), shown)
        elif self.clock() - self.stranger[0] >= _SETTLES:
            raise FleetError("host_key_mismatch", f"{self.target.name} presents {self.state['ssh']}.",
                             "Something else has its address, or it was set up with another key: "
                             "a higher vm_generation gives it this one.", presented=shown,
                             pinned=self.target.host_key.fingerprint)

    def _look_at_cloud_init(self) -> None:
        try:
            found = _parts(agent.run(self.domain, _STATUS, timeout=30).out)
        except FleetError:
            self._look_at_console()
            return
        self.has_agent = True
        errors = _errors(found)[:_MOST_ERRORS]
        if errors:
            raise FleetError("cloud_init_failed", f"cloud-init failed in {self.target.name}: {'; '.join(errors)}."
                             f"{self._log()}", "Mend vm_user_data, and give the guest a higher vm_generation.",
                             errors=errors)
        if "result.json" in found:
            self.cloud_init = {"status": "done", "told_by": "agent"}
        elif "disabled" in found:
            raise FleetError("cloud_init_disabled", f"cloud-init does not run in {self.target.name}: it is switched "
                             "off in the image, or did not find its seed.", "Use a cloud image with cloud-init.")
        self.state["cloud_init"] = "done" if self.cloud_init else _stage(found)

    def _look_at_console(self) -> None:
        """Without an agent the console tells the end, but not how it was: it is heard only when no agent comes."""
        if self.has_agent:
            return
        finished = bool(_FINISHED.search(self._console()))
        self.state["cloud_init"] = f"{'' if finished else 'not '}finished, and no guest agent to ask"
        if finished:
            self.finished = self.finished or self.clock()
            if self.clock() - self.finished >= _GRACE:
                self.cloud_init = {"status": "done", "told_by": "console"}

    def _log(self) -> str:
        with contextlib.suppress(FleetError):
            text = _clean(agent.run(self.domain, _LOG, timeout=30).out).strip()[-_TAIL:]
            return f" The end of its log:\n{text}\n" if text else ""
        return ""

    def _console(self) -> str:
        """The end of what this start has written to the serial console."""
        try:
            with open(self.target.serial, "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                stream.seek(max(self.target.since, size - 64 * _TAIL))
                return _clean(stream.read().decode("utf-8", "replace"))
        except OSError:
            return ""

    def _last_words(self) -> str:
        lines = [line.rstrip() for line in self._console()[-_TAIL:].splitlines() if line.strip()][-12:]
        return " Its console ends with:\n" + "\n".join(lines) + "\n" if lines else " Its console is silent."


def _named(domain: Domain, macs: t.Collection[str]) -> list[str]:
    """The addresses of its network cards as the guest itself says; not those of bridges and containers within it."""
    with contextlib.suppress(FleetError):
        cards = agent.command(domain, "guest-network-get-interfaces")
        with agent.understanding(domain):
            return _usable(entry["ip-address"] for card in cards if card.get("hardware-address", "").lower() in macs
                           for entry in card.get("ip-addresses", []))
    return []


def _leased(domain: Domain, macs: t.Collection[str]) -> list[str]:
    cards = domain.interfaceAddresses(_LEASE).values()
    return _usable(entry["addr"] for card in cards if str(card.get("hwaddr", "")).lower() in macs
                   for entry in card["addrs"] or [])


def _usable(found: t.Iterable[str]) -> list[str]:
    """Once each, IPv4 first, without those that only one link knows."""
    seen = [ipaddress.ip_address(address) for address in dict.fromkeys(found)]
    kept = [one for one in seen if not (one.is_link_local or one.is_loopback or one.is_multicast or one.is_unspecified)]
    return [str(one) for one in sorted(kept, key=lambda one: one.version)]


def _touch(address: str, port: int = PORT) -> bool | None:
    """Whether SSH is there; None when nobody answers at all."""
    try:
        connection = socket.create_connection((address, port), _TOUCH)
    except OSError as error:
        return False if isinstance(error, ConnectionRefusedError) else None
    with connection, contextlib.suppress(OSError):
        return connection.recv(4) == b"SSH-"
    return False


def _parts(text: str) -> dict[str, t.Any]:
    """The files of _STATUS; what is not whole yet is empty."""
    found: dict[str, t.Any] = {}
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        name, _newline, body = part.partition("\n")
        found[name] = {}
        with contextlib.suppress(ValueError, LookupError, TypeError):
            found[name] = dict(json.loads(body)["v1"])
    return found


def _errors(found: t.Mapping[str, t.Any]) -> list[str]:
    stages = [*found.get("status.json", {}).values(), found.get("result.json")]
    told = [stage.get("errors") for stage in stages if isinstance(stage, dict)]
    return list(dict.fromkeys(_clean(str(error))[:500] for errors in told if isinstance(errors, list)
                              for error in errors))


def _stage(found: t.Mapping[str, t.Any]) -> str:
    stage = found.get("status.json", {}).get("stage")
    return f"in stage {_clean(str(stage))[:40]}" if stage else "begun" if found else "not begun"


def _clean(text: str) -> str:
    """Nothing in it can steer a terminal."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n"))
