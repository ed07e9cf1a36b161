# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which bots stand on a machine."""

from __future__ import annotations

import base64
import json
import pathlib
import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils._bot import RELEASE, Substrate, parse
from ..module_utils._errors import FleetError

KEYS = ("api_keys", "backup", "backup_access_key", "backup_password", "backup_previous_access_key",
        "backup_previous_password", "backup_secret_key", "config", "egress", "env", "gateway_token", "on", "port",
        "profile", "resources", "runtime", "state", "version")
#: What only a pod heeds.
POD_KEYS = ("allow_passwordless", "allowed_sources", "extra_volumes", "image", "live_config", "node_selector",
            "storage_class", "tolerations", "volume_sizes")
ARGUMENTS = ("name", "api_keys", "config", "env", "gateway_token", "port", "profile", "resources", "runtime", "state",
             "version")
HOMES = {"openclaw": {"user": "openclaw", "state_dir": "/home/openclaw/.openclaw", "config_dir": "/opt/openclaw/config",
                      "unit": "openclaw.service"}}


def _home(name: str) -> dict[str, str]:
    return HOMES.get(name) or {"user": f"bot-{name}", "state_dir": f"/var/lib/clawops/bots/{name}",
                               "config_dir": f"/opt/openclaw/{name}/config", "unit": f"openclaw@{name}.service"}


def bots_on(bots: t.Iterable[t.Mapping[str, t.Any]], host: str, defaults: t.Mapping[str, t.Any] | None = None,
            substrate: str = "docker_host", keys: t.Mapping[str, t.Mapping[str, str]] | None = None
            ) -> list[dict[str, t.Any]]:
    """The descriptions of the bots whose bot_on is the host, without the prefix bot_, with their places there.

    A bad description is refused here, before a play has touched anything.
    defaults stand behind each bot's own values; mappings api_keys and env are merged, the bot's own key first.
    keys are the API keys of each bot, already merged.
    """
    found = []
    for hostvars in bots:
        if hostvars.get("bot_on") != host:
            continue
        name = hostvars["inventory_hostname"]
        own = {key[4:]: hostvars[key] for key in hostvars if key.startswith("bot_")}
        typo = next((key for key in sorted(own) if key not in KEYS + POD_KEYS), None)
        if typo:
            raise AnsibleFilterError(f"{name}: bot_{typo} is not a variable of a bot. Use one of: "
                                     + ", ".join(f"bot_{key}" for key in KEYS + POD_KEYS) + ".")
        merged = {"state": "started", "version": RELEASE, **(defaults or {}), **own}
        for key in ("api_keys", "env"):
            merged[key] = {**((defaults or {}).get(key) or {}), **(own.get(key) or {})}
        if keys is not None:
            merged["api_keys"] = dict(keys[name])
        try:
            runtime = parse({"name": name, **merged}, t.cast(Substrate, substrate)).runtime
        except FleetError as error:
            raise AnsibleFilterError(f"{name}: {error.result()['msg']}") from None
        places = {} if substrate == "cluster" else {**_home(name), "runtime": runtime}
        found.append({"name": name, **places, **merged})
    return found


def bot_arguments(bots: t.Iterable[t.Mapping[str, t.Any]], substrate: str = "docker_host") -> list[dict[str, t.Any]]:
    """What bot_service takes of the descriptions, or bot_fleet for a cluster."""
    taken = ARGUMENTS + POD_KEYS if substrate == "cluster" else ARGUMENTS
    return [{key: value for key, value in bot.items() if key in taken} for bot in bots]


def bot_versions(bots: t.Iterable[t.Mapping[str, t.Any]], runtime: str | None = None) -> list[str]:
    """The releases that bots want, each once; only those of bots of a runtime, where one is given."""
    wanted = [bot for bot in bots if runtime in (None, bot.get("runtime") or "container")]
    return sorted({str(bot["version"]) for bot in wanted})


def bot_images(bots: t.Iterable[t.Mapping[str, t.Any]], images: t.Mapping[str, t.Mapping[str, str]]
               ) -> list[dict[str, t.Any]]:
    """The descriptions with the image of their release and profile, where they name none and there is one."""
    built = [images.get(bot["version"], {}).get(bot.get("profile") or "gateway") for bot in bots]
    return [{**({"image": image} if image else {}), **bot} for bot, image in zip(bots, built)]


def bot_table(bots: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """One line for each bot that bot_instance_info has found."""
    rows = [("BOT", "STATE", "READY", "PROFILE", "VERSION", "NODE", "PAGES")]
    rows += [(bot["name"], bot["state"], "yes" if bot["ready"] else "no", bot["profile"] or "-", bot["version"] or "-",
              bot["node"] or "-", " ".join(bot["urls"].values()) or "-") for bot in bots]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def bot_moves(bots: t.Iterable[t.Mapping[str, t.Any]], records: t.Iterable[t.Mapping[str, t.Any]]
              ) -> dict[str, list[dict[str, t.Any]]]:
    """The bots that are to change their release: forward as they are to be, back as they are recorded (slurped)."""
    runs = {}
    for result in records:
        record = json.loads(base64.b64decode(result["content"])) if "content" in result else {}
        runs[result["item"]] = record.get("version")
    moving = [dict(bot) for bot in bots if runs.get(bot["name"]) not in (None, bot["version"])]
    return {"forward": moving, "back": [{**bot, "version": runs[bot["name"]]} for bot in moving]}


def bots_missing(bots: t.Iterable[t.Mapping[str, t.Any]], files: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """The bots that have neither a record nor data among the files of a host. A directory alone is neither."""
    paths = [pathlib.PurePosixPath(file["path"]) for file in files]
    found = {path.stem for path in paths if path.parent.name == "instances" and path.suffix == ".json"}
    found |= {path.parent.name for path in paths if path.parent.parent.name == "bots"}
    return [bot["name"] for bot in bots if bot["name"] not in found]


def bot_installations(versions: t.Iterable[str], directory: str, images: t.Iterable[t.Mapping[str, t.Any]],
                      node: str = "") -> dict[str, dict[str, t.Any]]:
    """For each release its place on the host, its image where one was built (results of openclaw_image), and a node."""
    built = {result["item"]: result.get("image") for result in images}
    return {version: {"prefix": f"{directory}/{version}", "image": built.get(version), "node": node or None}
            for version in versions}


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "bots_on": bots_on,
            "bot_arguments": bot_arguments,
            "bot_images": bot_images,
            "bot_table": bot_table,
            "bot_moves": bot_moves,
            "bot_installations": bot_installations,
            "bot_versions": bot_versions,
            "bots_missing": bots_missing,
        }
