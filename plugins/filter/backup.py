# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the backup modules take of the descriptions of bots."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

SECRETS = ("access_key", "secret_key", "password")
KEYS = (*SECRETS, "enabled", "exclude")
Bots = t.Iterable[t.Mapping[str, t.Any]]


def _wanted(bots: Bots) -> t.Iterator[tuple[t.Mapping[str, t.Any], dict[str, t.Any], dict[str, t.Any]]]:
    """Each bot whose backup is on, with its settings and the arguments that all modules take."""
    for bot in bots:
        settings = dict(bot.get("backup") or {})
        typo = next((key for key in sorted(settings) if key not in KEYS), None)
        if typo:
            raise AnsibleFilterError(f"{bot['name']}: bot_backup.{typo} is not known. Use one of: {', '.join(KEYS)}.")
        if settings.get("enabled", True):
            secrets = {key: settings[key] for key in SECRETS if key in settings}
            yield bot, settings, {"name": bot["name"], **secrets}


def backup_names(bots: Bots) -> list[dict[str, t.Any]]:
    """Bots for backup_repository and backup_info."""
    return [arguments for _bot, _settings, arguments in _wanted(bots)]


def backup_sources(bots: Bots) -> list[dict[str, t.Any]]:
    """Bots for backup_snapshot: state and config from where they lie on this host."""
    found = []
    for bot, settings, arguments in _wanted(bots):
        state = {"role": "state", "path": bot["state_dir"]}
        if "exclude" in settings:
            state["exclude"] = settings["exclude"]
        paths = [state, {"role": "config", "path": bot["config_dir"]}]
        found.append({**arguments, "version": str(bot.get("version") or ""), "paths": paths})
    return found


def restore_targets(bots: Bots, roles: t.Sequence[str] = ("state",), snapshot: str = "latest",
                    overwrite: bool = False) -> list[dict[str, t.Any]]:
    """Bots for backup_restore: the state belongs to the bot's user, the config to root."""
    found = []
    for bot, _settings, arguments in _wanted(bots):
        places = {"state": {"path": bot["state_dir"], "owner": bot["user"]},
                  "config": {"path": bot["config_dir"], "owner": "root"}}
        paths = [{"role": role, **places[role]} for role in roles]
        found.append({**arguments, "snapshot": snapshot, "overwrite": overwrite, "paths": paths})
    return found


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"backup_names": backup_names, "backup_sources": backup_sources, "restore_targets": restore_targets}
