# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A gateway on a copy of a bot's state, in a container that reaches nobody and that nobody reaches.

It has a configuration and a token of its own, no channels, no timers and no network, and it ends by itself.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import secrets
import time
import typing as t

from .. import _files
from .._bot import Bot
from .._errors import FleetError
from .._ownership import PREFIX
from .._process import Runner, must
from . import health, render
from .places import Places

DRILL = f"{PREFIX}/drill"
STATE = f"{render.HOME_IN_CONTAINER}/.openclaw"
CONFIG = "/etc/openclaw/openclaw.json"
QUIET = {"OPENCLAW_SKIP_CHANNELS": "1", "OPENCLAW_SKIP_CRON": "1", "OPENCLAW_SKIP_PROVIDERS": "1",
         "OPENCLAW_SKIP_GMAIL_WATCHER": "1", "OPENCLAW_OFFLINE": "1"}
#: From within: the container has no address.
FETCH = ("fetch(process.argv[1], {signal: AbortSignal.timeout(3000)}).then(answer => answer.text())"
         ".then(text => process.stdout.write(text)).catch(() => {})")
#: The newest messages, and how many sessions there are.
NEWEST = """select n.session_key, i.event_id, i.created_at, (select count(*) from session_nodes)
from session_nodes n join transcript_event_identities i on i.session_id = n.current_session_id
where i.event_type = 'message' order by i.created_at desc, i.seq desc limit 1000"""
#: Of so many sessions one has to tell something; a gateway does not show every message.
TRIED = 5
#: A snapshot of a bot that runs has its lease on the state. Elsewhere that ends five minutes later by itself.
LEASED = "owner lease is still active"
_AGENT = re.compile(r"agents/([a-z0-9][a-z0-9_-]{0,63})/agent/openclaw-agent\.sqlite")
Json = dict[str, t.Any]
Rows = t.Optional[list[list[t.Any]]]


def container(title: str) -> str:
    return f"clawops-drill-{title}"


def agents(state: str, databases: t.Iterable[str]) -> dict[str, str]:
    """The agents of a state by the paths of their databases."""
    found = ((path, _AGENT.fullmatch(os.path.relpath(path, state))) for path in databases)
    return {path: match[1] for path, match in found if match}


@dataclasses.dataclass(frozen=True)
class Known:
    """What the databases have: the newest messages by session, the session that was used last first, and the number of
    sessions."""

    messages: dict[str, set[str]]
    sessions: int


def known(answers: t.Iterable[Rows]) -> Known | None:
    """Of several agents. None when no database can tell."""
    told = [rows for rows in answers if rows is not None]
    messages: dict[str, set[str]] = {}
    newest = sorted((row for rows in told for row in rows), key=lambda row: -int(row[2]))
    for session, message, _when, _count in newest:
        messages.setdefault(str(session), set()).add(str(message))
    return Known(messages, sum(int(rows[0][3]) for rows in told if rows)) if told else None


class Gateway:
    """One gateway, from its start to its end."""

    def __init__(self, run: Runner, title: str, bot: Bot, image: str, timeout: float,
                 clock: t.Callable[[], float] = time.monotonic, sleep: t.Callable[[float], None] = time.sleep) -> None:
        self.run, self.title, self.bot, self.image, self.timeout = run, title, bot, image, timeout
        self.clock, self.sleep = clock, sleep
        self.name, self.token = container(title), secrets.token_urlsafe(32)

    def start(self, folder: str, state: str, owner: int, agents_: t.Iterable[str]) -> None:
        if self.run(["docker", "image", "inspect", "--format", "{{.Id}}", self.image]).rc:
            raise FleetError("no_image", f"Bot {self.bot.name}: {self.image} is not on this host.",
                             "The role restore_drill builds it.")
        files = {"openclaw.json": _files.pretty(self._config(agents_)), "passwd": render.passwd((owner, owner)),
                 "openclaw.env": render.env_text({render.TOKEN: self.token})}
        for name, text in files.items():
            _files.write(os.path.join(folder, name), text, 0o400, owner, owner)
        must(self.run, self._argv(folder, state, owner), f"Starting a gateway on the data of {self.bot.name}",
             timeout=120)

    def _config(self, agents_: t.Iterable[str]) -> Json:
        listed = [{"id": agent} for agent in sorted(agents_, key=lambda agent: (agent != "main", agent))]
        return {
            "gateway": {"mode": "local", "bind": "loopback", "port": render.GATEWAY_PORT,
                        "auth": {"mode": "token", "token": "${" + render.TOKEN + "}"}},
            "cron": {"enabled": False},
            **({"agents": {"list": listed}} if listed else {}),
        }

    def _argv(self, folder: str, state: str, owner: int) -> list[str]:
        settings = {**render.environment(self.bot, Places(self.bot.name)), **QUIET}
        # What no file is mounted for.
        settings.pop("NODE_EXTRA_CA_CERTS")
        mounts = {state: STATE, f"{folder}/openclaw.json,readonly": CONFIG,
                  f"{folder}/openclaw.env,readonly": render.SECRETS_IN_CONTAINER,
                  f"{folder}/passwd,readonly": "/etc/passwd"}
        return [
            "docker", "run", "--detach", "--pull", "never", "--name", self.name, "--label", f"{DRILL}={self.title}",
            # By the host's name a gateway knows whether the one that had the state before is dead.
            "--hostname", Places(self.bot.name).container,
            "--network", "none", "--user", f"{owner}:{owner}", "--init", "--read-only", "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges:true", "--pids-limit", "512", "--restart", "no",
            "--memory", str(self.bot.memory), "--memory-swap", str(self.bot.memory), "--cpus", f"{self.bot.cpus:g}",
            "--tmpfs", "/tmp:mode=1777,size=512m",  # noqa: S108 a mount of its own
            "--tmpfs", f"{render.HOME_IN_CONTAINER}:mode=0700,uid={owner},gid={owner},size=256m",
            *(word for source, target in mounts.items() for word in ("--mount", _mount(source, target))),
            *(word for key, value in settings.items() for word in ("--env", f"{key}={value}")),
            # Whoever started it may die: it ends by itself.
            "--entrypoint", "timeout", self.image, "--kill-after=10", f"{2 * self.timeout + 300:.0f}",
            *self._program("gateway", "run"),
        ]

    @staticmethod
    def _program(*words: str) -> list[str]:
        return ["node", f"--env-file={render.SECRETS_IN_CONTAINER}", f"{render.PREFIX_IN_IMAGE}/{render.ENTRY}", *words]

    def wait(self) -> float:
        """Seconds until /readyz said so. One that finds the state leased is started again, as a bot's unit does."""
        began = self.clock()
        while True:
            state = health.probe(render.GATEWAY_PORT, self._get)
            if state == "ready":
                return round(self.clock() - began, 1)
            running = self.run(["docker", "inspect", "--format", "{{.State.Running}}", self.name]).out.strip() == "true"
            words = "" if running else self._said()
            if self.clock() - began >= self.timeout or not (running or LEASED in words):
                break
            self.sleep(2 if running else 10)
            if not running:
                must(self.run, ["docker", "start", self.name], "Starting the gateway again", timeout=120)
        words = words or self._said()
        raise FleetError("not_ready", f"Bot {self.bot.name}: OpenClaw {self.bot.version} on the restored data is "
                                      f"{state if running else 'gone'} after {self.clock() - began:.0f} seconds. "
                                      f"It said last: {words[-800:]}", "A restore would end so, too.")

    def _said(self) -> str:
        said = self.run(["docker", "logs", "--tail", "20", self.name])
        return f"{said.out}{said.err}".replace(self.token, "(hidden)").strip()

    def _get(self, url: str) -> str:
        return self.run(["docker", "exec", self.name, "node", "-e", FETCH, url], timeout=60).out

    def last_turn(self, known_: Known | None) -> Json:
        """The newest message as the gateway tells it. What the databases have must be there."""
        sessions, keys = (known_.sessions, list(known_.messages)) if known_ else self._listed()
        for key in keys[:TRIED]:
            told = self._call("chat.history", sessionKey=key, limit=200).get("messages") or []
            found = [message for message in told if message.get("role") in ("user", "assistant")
                     and (known_ is None or _id(message) in known_.messages[key])]
            if found:
                return {"sessions": sessions, "turn": _turn(found[-1])}
        if known_ and keys:
            raise FleetError("turn_missing", f"Bot {self.bot.name}: the gateway tells nothing of the newest of "
                                             f"{sessions} conversations, and its database has messages of them.",
                             "A restore would end so, too.")
        return {"sessions": sessions, "turn": None}

    def _listed(self) -> tuple[int, list[str]]:
        listed = self._call("sessions.list", sortBy="activity", limit=TRIED)
        rows = listed.get("sessions") or []
        return int(listed.get("totalCount") or len(rows)), [str(row["key"]) for row in rows]

    def _call(self, method: str, **params: t.Any) -> Json:
        argv = ["docker", "exec", self.name, *self._program("gateway", "call", method), "--params", json.dumps(params),
                "--timeout", "60000", "--json"]
        done = self.run(argv, timeout=180)
        try:
            answer = json.loads(done.out) if done.rc == 0 else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            words = done.last_words.replace(self.token, "(hidden)")[-500:]
            raise FleetError("no_answer", f"Bot {self.bot.name}: the gateway does not answer {method}: {words}")
        return answer


def _mount(source: str, target: str) -> str:
    path, _comma, flag = source.partition(",")
    return f"type=bind,source={path},target={target}" + (f",{flag}" if flag else "")


def _id(message: Json) -> str:
    return str((message.get("__openclaw") or {}).get("id"))


def _turn(message: Json) -> Json:
    """Whose, when and how long; not what."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    length = sum(len(str(part.get("text") or "")) for part in parts if isinstance(part, dict))
    stamp = message.get("timestamp")
    when = datetime.datetime.fromtimestamp(stamp / 1000, datetime.timezone.utc) if stamp else None
    return {"role": message["role"], "time": when.isoformat(timespec="seconds") if when else None, "characters": length}


def clear(run: Runner, title: str) -> None:
    """Removes the container of a drill, if there is one."""
    name = container(title)
    found = run(["docker", "inspect", "--format", f'{{{{index .Config.Labels "{DRILL}"}}}}', name])
    if found.rc:
        return
    if found.out.strip() != title:
        raise FleetError("foreign_object", f"Container {name} is not one of a drill.", "Rename or remove it.")
    must(run, ["docker", "rm", "--force", "--volumes", name], f"Removing {name}", timeout=120)
