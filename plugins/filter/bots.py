# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which bots stand on a machine."""

from __future__ import annotations

import base64
import json
import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils._bot import RELEASE, parse
from ..module_utils._errors import FleetError

KEYS = ("api_keys", "backup", "config", "egress", "env", "gateway_token", "on", "port", "profile", "resources",
        "runtime", "state", "version")
ARGUMENTS = ("name", "api_keys", "config", "env", "gateway_token", "port", "profile", "resources", "runtime", "state",
             "version")
HOMES = {"openclaw": {"user": "openclaw", "state_dir": "/home/openclaw/.openclaw", "config_dir": "/opt/openclaw/config",
                      "unit": "openclaw.service"}}


def _home(name: str) -> dict[str, str]:
    return HOMES.get(name) or {"user": f"bot-{name}", "state_dir": f"/var/lib/clawops/bots/{name}",
                               "config_dir": f"/opt/openclaw/{name}/config", "unit": f"openclaw@{name}.service"}


def bots_on(bots: t.Iterable[t.Mapping[str, t.Any]], host: str, defaults: t.Mapping[str, t.Any] | None = None
            ) -> list[dict[str, t.Any]]:
    """The descriptions of the bots whose bot_on is the host, without the prefix bot_, with their places there.

    A bad description is refused here, before a play has touched anything.
    defaults stand behind each bot's own values; mappings api_keys and env are merged, the bot's own key first.
    """
    found = []
    for hostvars in bots:
        if hostvars.get("bot_on") != host:
            continue
        name = hostvars["inventory_hostname"]
        own = {key[4:]: hostvars[key] for key in hostvars if key.startswith("bot_")}
        typo = next((key for key in sorted(own) if key not in KEYS), None)
        if typo:
            raise AnsibleFilterError(f"{name}: bot_{typo} is not a variable of a bot. Use one of: "
                                     + ", ".join(f"bot_{key}" for key in KEYS) + ".")
        merged = {"state": "started", "version": RELEASE, **(defaults or {}), **own}
        for key in ("api_keys", "env"):
            merged[key] = {**((defaults or {}).get(key) or {}), **(own.get(key) or {})}
        try:
            parse({"name": name, **merged}, "docker_host")
        except FleetError as error:
            raise AnsibleFilterError(f"{name}: {error.result()['msg']}") from None
        found.append({"name": name, **_home(name), **merged})
    return found


def bot_arguments(bots: t.Iterable[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """What bot_service takes of the descriptions."""
    return [{key: value for key, value in bot.items() if key in ARGUMENTS} for bot in bots]


def bot_versions(bots: t.Iterable[t.Mapping[str, t.Any]], runtime: str | None = None) -> list[str]:
    """The releases that bots want, each once; only those of bots of a runtime, where one is given."""
    wanted = [bot for bot in bots if runtime in (None, bot.get("runtime") or "container")]
    return sorted({str(bot["version"]) for bot in wanted})


def bot_moves(bots: t.Iterable[t.Mapping[str, t.Any]], records: t.Iterable[t.Mapping[str, t.Any]]
              ) -> dict[str, list[dict[str, t.Any]]]:
    """The bots that are to change their release: forward as they are to be, back as they are recorded (slurped)."""
    runs = {}
    for result in records:
        record = json.loads(base64.b64decode(result["content"])) if "content" in result else {}
        runs[result["item"]] = record.get("version")
    moving = [dict(bot) for bot in bots if runs.get(bot["name"]) not in (None, bot["version"])]
    return {"forward": moving, "back": [{**bot, "version": runs[bot["name"]]} for bot in moving]}


def bot_installations(versions: t.Iterable[str], directory: str, images: t.Iterable[t.Mapping[str, t.Any]]
                      ) -> dict[str, dict[str, t.Any]]:
    """For each release its place on the host and, where one was built, its image (results of openclaw_image)."""
    built = {result["item"]: result.get("image") for result in images}
    return {version: {"prefix": f"{directory}/{version}", "image": built.get(version)} for version in versions}


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "bots_on": bots_on,
            "bot_arguments": bot_arguments,
            "bot_moves": bot_moves,
            "bot_installations": bot_installations,
            "bot_versions": bot_versions,
        }
