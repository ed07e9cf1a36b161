# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Bots as systemd services of one host: observe, plan, apply."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import pwd
import secrets
import shutil
import tempfile
import typing as t

from .. import _files as files
from .. import _ports as ports
from .._bot import Bot
from .._errors import FleetError
from .._handover import Mark, check_free, mark_of
from .._ownership import FLEET, SPEC, digest, guard, labels
from .._plan import Plan
from .._process import Runner, must
from . import health, render
from .places import INSTANCES, MOVES, Places

BAND = ports.Band(19100, 19499)


@dataclasses.dataclass
class Wanted:
    """Everything that one bot is to have on the host."""

    bot: Bot
    places: Places
    port: int
    config: dict[str, t.Any]
    credentials: dict[str, str]
    compose: dict[str, t.Any] | None
    passwd: str | None
    unit: str

    @property
    def spec(self) -> str:
        """Hash of all that the running process was started with."""
        return digest([self.config, self.credentials, self.compose, self.unit])


@dataclasses.dataclass
class Found:
    """What one bot has on the host."""

    record: dict[str, t.Any] | None
    config: t.Any
    credentials: str | None
    compose: t.Any
    passwd: str | None
    unit: str | None
    active: str
    enabled: bool
    has_state: bool


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one call says about the host as a whole."""

    fleet: str
    installations: t.Mapping[str, render.Installation]
    prune: bool = False
    upgrade: bool = False
    purge_data: bool = False
    timeout: float = 180.0


def instances() -> dict[str, dict[str, t.Any]]:
    """Records of the bots that the collection has put on this host."""
    folder = pathlib.Path(INSTANCES)
    found = {path.stem: files.read_json(path) for path in sorted(folder.glob("*.json"))} if folder.is_dir() else {}
    return {name: record for name, record in found.items() if isinstance(record, dict)}


def marked() -> dict[str, Mark | None]:
    """Bots that are being moved to or from this host."""
    return {path.stem: mark_of(files.read(path)) for path in sorted(pathlib.Path(MOVES).glob("*.json"))}


class Host:
    """The bots of one host."""

    def __init__(self, run: Runner, bots: list[Bot], settings: Settings):
        self.run, self.bots, self.settings = run, bots, settings
        self.wanted: list[Wanted] = []
        self.removed: list[Places] = []
        self.restarts: set[str] = set()

    # -- observe -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def emulated(self) -> bool:
        """Whether the processor is emulated: everything takes ten times as long."""
        return health.is_emulated(self.run)

    def _patience(self, seconds: float) -> float:
        return seconds * 10 if self.emulated else seconds

    def _find(self, places: Places) -> Found:
        state = health.unit_state(self.run, places.unit)
        return Found(
            record=files.read_json(places.instance),
            config=files.read_json(places.config),
            credentials=files.read(places.credentials),
            compose=files.read_json(places.compose),
            passwd=files.read(places.passwd),
            unit=files.read(places.unit_file),
            active=state.get("ActiveState", "inactive"),
            enabled=state.get("UnitFileState") == "enabled",
            has_state=pathlib.Path(places.state).is_dir() and any(pathlib.Path(places.state).iterdir()),
        )

    def _check_owner(self, places: Places, found: Found) -> None:
        if found.record is None and found.unit is None and found.compose is None:
            return
        marks = (found.record or {}).get("labels") or {}
        guard(f"{places.unit} on this host", marks, "bot", places.name)
        if marks.get(FLEET) != self.settings.fleet:
            raise FleetError("foreign_object", f"{places.unit} on this host belongs to fleet {marks.get(FLEET)}, and "
                             f"this is {self.settings.fleet}.", "Use another name.")

    # -- plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        plan = Plan()
        present = [bot for bot in self.bots if bot.state != "absent"]
        gone = [Places(bot.name) for bot in self.bots if bot.state == "absent"]
        if self.settings.prune:
            named = {bot.name for bot in self.bots}
            gone += [Places(name) for name, record in instances().items() if name not in named and name not in marked()
                     and (record.get("labels") or {}).get(FLEET) == self.settings.fleet]
        if any(bot.runtime == "container" for bot in present):
            self._check_compose(plan)
        desktop = next((bot.name for bot in present if bot.profile != "gateway"), None)
        if desktop:
            raise FleetError("no_desktop", f"{desktop} has bot_profile desktop, whose image this version cannot build.",
                             "Use bot_profile: gateway.")
        held = ports.held()
        chosen = ports.choose({Places(bot.name).container: bot.port for bot in present}, held, BAND)
        for bot in present:
            self._plan_present(plan, bot, chosen, held)
        for places in gone:
            self._plan_absent(plan, places, held)
        return plan

    def _check_compose(self, plan: Plan) -> None:
        try:
            done = self.run(["docker", "compose", "version"])
        except FleetError:
            plan.cannot_see("no Docker is installed on this host yet")
            return
        if done.rc:
            raise FleetError("no_compose", "A bot in a container needs Docker Compose V2, and this host has none.",
                             "Debian 12 packages none: set docker_host_source: docker, or bot_runtime: host.")

    def _installation(self, bot: Bot) -> render.Installation:
        found = self.settings.installations.get(bot.version)
        if found is None:
            raise FleetError("not_installed", f"OpenClaw {bot.version}, which {bot.name} wants, is not on this host.",
                             "Run the role openclaw, which installs it.")
        return found

    def _want(self, bot: Bot, places: Places, port: int, found: Found, owner: tuple[int, int]) -> Wanted:
        installation = self._installation(bot)
        token = (bot.gateway_token or render.parse_env(found.credentials).get(render.TOKEN)
                 or secrets.token_urlsafe(32))
        compose = passwd = None
        if bot.runtime == "container":
            compose = render.compose(bot, places, self.settings.fleet, port, render.image_of(installation), owner,
                                     self.emulated)
            passwd = render.passwd(owner)
        return Wanted(bot, places, port, render.config(bot, port), {**bot.api_keys, render.TOKEN: token}, compose,
                      passwd, render.unit(bot, places, installation, self.emulated))

    def _plan_present(self, plan: Plan, bot: Bot, chosen: t.Mapping[str, int], held: t.Mapping[str, int]) -> None:
        places = Places(bot.name)
        if bot.state != "stopped":
            check_free(bot.name, mark_of(files.read(places.move)))
        try:
            user = pwd.getpwnam(places.user)
        except KeyError:
            plan.cannot_see(f"the user {places.user} does not exist yet (role openclaw_user makes it)")
            return
        installation = self._installation(bot)
        for path in (f"{installation.prefix}/manifest.json", installation.node):
            if not pathlib.Path(path).is_file():
                plan.cannot_see(f"OpenClaw {bot.version} or its Node.js is not on this host yet: there is no {path}")
                return
        found = self._find(places)
        self._check_owner(places, found)
        running = (found.record or {}).get("version")
        if running and running != bot.version and not self.settings.upgrade:
            raise FleetError("upgrade_needed",
                             f"{bot.name} runs OpenClaw {running}, and bot_version says {bot.version}.",
                             "Run the playbook clawops.fleet.upgrade: it backs up first and rolls back by itself.")
        want = self._want(bot, places, chosen[places.container], found, (user.pw_uid, user.pw_gid))
        self.wanted.append(want)
        plan.compare(f"port of {bot.name}", want.port, held.get(places.container))
        if plan.compare(places.config, want.config, found.config):
            self._validate(want)
        plan.compare(places.credentials, render.env_text(want.credentials), found.credentials, secret=True)
        plan.compare(places.compose, want.compose, found.compose)
        plan.compare(places.passwd, want.passwd, found.passwd)
        plan.compare(places.unit_file, want.unit.splitlines(), found.unit and found.unit.splitlines())
        self._plan_state(plan, want, found)

    def _plan_state(self, plan: Plan, want: Wanted, found: Found) -> None:
        unit, state = want.places.unit, want.bot.state
        running = found.active in ("active", "activating", "reloading")
        plan.compare(f"{unit} at boot", state != "stopped", found.enabled)
        if state == "stopped":
            if running:
                plan.add(unit, "stop", "started", "stopped")
        elif not running:
            plan.add(unit, "start", "stopped", "started")
        elif state == "restarted" or (found.record or {}).get("labels", {}).get(SPEC) != want.spec[:16]:
            plan.add(unit, "restart", "started", "restarted")
            self.restarts.add(want.bot.name)

    def _plan_absent(self, plan: Plan, places: Places, held: t.Mapping[str, int]) -> None:
        found = self._find(places)
        self._check_owner(places, found)
        if found.unit or found.compose or found.credentials:
            plan.add(places.unit, "delete", "present", None)
        if self.settings.purge_data and found.has_state:
            guard(f"{places.state} on this host", (found.record or {}).get("labels"), "bot", places.name)
            plan.add(places.state, "delete", "present", None)
        if places.container in held:
            plan.add(f"port of {places.name}", "delete", held[places.container], None)
        self.removed.append(places)

    # -- apply ---------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        for places in self.removed:
            self._remove(places)
        ports.reserve({want.places.container: want.port for want in self.wanted}, BAND)
        for want in self.wanted:
            self._write(want)
        must(self.run, ["systemctl", "daemon-reload"], "Reloading systemd")
        self._switch()
        for want in self.wanted:
            self._record(want, want.spec)
        return self.facts()

    def _validate(self, want: Wanted) -> None:
        """OpenClaw itself judges the configuration before it lands."""
        installation = self._installation(want.bot)
        with tempfile.TemporaryDirectory(prefix="clawops-config-") as folder:
            candidate = pathlib.Path(folder) / "openclaw.json"
            files.write(candidate, files.pretty(want.config), 0o600)
            env = {**os.environ, **want.bot.env, **want.credentials, "HOME": folder, "OPENCLAW_STATE_DIR": folder,
                   "OPENCLAW_CONFIG_PATH": str(candidate), "PATH": f"{installation.path}:{os.environ.get('PATH', '')}"}
            program = [installation.node, f"{installation.prefix}/{render.ENTRY}"]
            done = self.run([*program, "config", "validate", "--json"], env=env,
                            timeout=self._patience(120))
        if done.rc:
            raise FleetError("bad_config", f"OpenClaw {want.bot.version} refuses bot_config of {want.bot.name}: "
                             f"{done.out.strip()[:1500] or done.last_words}", "Mend bot_config.")

    def _record(self, want: Wanted, spec: str) -> None:
        marks = {**labels(self.settings.fleet, "bot", want.bot.name, None), SPEC: spec[:16]}
        record = {"labels": marks, "version": want.bot.version, "runtime": want.bot.runtime, "port": want.port}
        files.write(want.places.instance, files.pretty(record), 0o600)

    def _write(self, want: Wanted) -> None:
        places = want.places
        user = pwd.getpwnam(places.user)
        found = files.read_json(places.instance) or {}
        # The mark of ownership comes first, with the old hash: whatever dies from here on, the next run goes on.
        self._record(want, found.get("labels", {}).get(SPEC, "pending"))
        for folder, mode, gid in ((places.project, 0o755, 0), (places.config_dir, 0o750, user.pw_gid)):
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            os.chown(folder, 0, gid)
            pathlib.Path(folder).chmod(mode)
        state = pathlib.Path(places.state)
        if not state.is_dir():
            state.mkdir(mode=0o700, parents=True)
            os.chown(state, user.pw_uid, user.pw_gid)
        pathlib.Path(places.credentials).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._put(places.config, files.pretty(want.config), 0o640, user.pw_gid)
        self._put(places.credentials, render.env_text(want.credentials), 0o600)
        self._put(places.compose, files.pretty(want.compose) if want.compose else None)
        self._put(places.passwd, want.passwd)
        self._put(places.unit_file, want.unit)

    def _put(self, path: str, text: str | None, mode: int = 0o644, gid: int = 0) -> None:
        if text is None:
            pathlib.Path(path).unlink(missing_ok=True)
        elif files.read(path) != text:
            files.write(path, text, mode, 0, gid)

    def _switch(self) -> None:
        """One call for each verb: systemd works side by side, and returns when the old process has really gone."""
        stop = [w.places.unit for w in self.wanted if w.bot.state == "stopped"]
        run = [w.places.unit for w in self.wanted if w.bot.state != "stopped"]
        restart = [w.places.unit for w in self.wanted if w.bot.name in self.restarts]
        for verbs, units in ((["disable", "--now"], stop), (["enable"], run), (["reset-failed"], run),
                             (["restart"], restart), (["start"], run)):
            if units:
                must(self.run, ["systemctl", *verbs, *units], f"systemctl {' '.join(verbs)}", timeout=600)

    def _remove(self, places: Places) -> None:
        if files.read(places.unit_file) is not None:
            self.run(["systemctl", "disable", "--now", places.unit], timeout=400)
        if files.read(places.compose) is not None:
            must(self.run, ["docker", "compose", "--project-directory", places.project, "--file", places.compose,
                            "down", "--remove-orphans"], f"Removing the containers of {places.name}", timeout=300)
        for path in (places.unit_file, places.compose, places.passwd, places.config, places.credentials):
            pathlib.Path(path).unlink(missing_ok=True)
        must(self.run, ["systemctl", "daemon-reload"], "Reloading systemd")
        # A unit without a file is remembered only while it counts as failed, so this may well find nothing.
        self.run(["systemctl", "reset-failed", places.unit])
        if self.settings.purge_data:
            self._purge(pathlib.Path(places.state))
        shutil.rmtree(f"/var/cache/{places.cache_dir}", ignore_errors=True)
        ports.release([places.container])
        for folder in (places.config_dir, places.project):
            if pathlib.Path(folder).is_dir() and not any(pathlib.Path(folder).iterdir()):
                pathlib.Path(folder).rmdir()
        # The mark stays as long as there are data, and goes last: a removal that was cut off is taken up again.
        if self.settings.purge_data:
            for path in (places.instance, places.move):
                pathlib.Path(path).unlink(missing_ok=True)

    def _purge(self, state: pathlib.Path) -> None:
        """Empties the state directory; the directory itself is the user's home."""
        for entry in state.iterdir() if state.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    # -- facts ---------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Waits until every bot that is to run is ready, the slowest one counts."""
        for want in self.wanted:
            if want.bot.state != "stopped":
                health.wait_ready(self.run, want.places.unit, want.port, self._patience(self.settings.timeout),
                                  want.credentials.values())

    def facts(self) -> dict[str, t.Any]:
        return {"bots": [{
            "name": want.bot.name, "version": want.bot.version, "runtime": want.bot.runtime, "port": want.port,
            "url": f"http://127.0.0.1:{want.port}", "unit": want.places.unit, "user": want.places.user,
            "state_dir": want.places.state, "config": want.places.config, "state": want.bot.state,
        } for want in self.wanted]}
