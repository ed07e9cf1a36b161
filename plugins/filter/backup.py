# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the backup modules take of the descriptions of bots."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import typing as t

from ansible.errors import AnsibleFilterError

SECRETS = ("access_key", "secret_key", "password")
PREVIOUS = ("access_key", "password")
KEYS = (*SECRETS, "enabled", "exclude", *(f"previous_{key}" for key in PREVIOUS))
Bots = t.Iterable[t.Mapping[str, t.Any]]
#: How tables call what was backed up.
_WORDS = {"bot": "", "space": "space ", "vm": "VM "}


def _wanted(bots: Bots) -> t.Iterator[tuple[t.Mapping[str, t.Any], dict[str, t.Any], dict[str, t.Any]]]:
    """Each bot whose backup is on, with its settings and the arguments that all modules take."""
    for bot in bots:
        settings = dict(bot.get("backup") or {})
        typo = next((key for key in sorted(settings) if key not in KEYS), None)
        if typo:
            raise AnsibleFilterError(f"{bot['name']}: bot_backup.{typo} is not known. Use one of: {', '.join(KEYS)}.")
        if settings.get("enabled", True):
            given = {key: bot.get(f"backup_{key}", settings.get(key)) for key in SECRETS}
            secrets = {key: value for key, value in given.items() if value is not None}
            yield bot, settings, {"name": bot["name"], **secrets}


def backup_names(bots: Bots) -> list[dict[str, t.Any]]:
    """Bots for backup_repository and backup_info."""
    return [arguments for _bot, _settings, arguments in _wanted(bots)]


def backup_sources(bots: Bots) -> list[dict[str, t.Any]]:
    """Bots for backup_snapshot: state and config from where they lie on this host. In clusters for pod_snapshot."""
    found = []
    for bot, settings, arguments in _wanted(bots):
        if "state_dir" not in bot:
            found.append({**arguments, **({"exclude": settings["exclude"]} if "exclude" in settings else {})})
            continue
        state = {"role": "state", "path": bot["state_dir"]}
        if "exclude" in settings:
            state["exclude"] = settings["exclude"]
        paths = [state, {"role": "config", "path": bot["config_dir"]}]
        found.append({**arguments, "version": str(bot.get("version") or ""), "paths": paths})
    return found


def restore_targets(bots: Bots, roles: t.Sequence[str] = ("state",), snapshot: str = "latest",
                    overwrite: bool = False, time: str = "latest") -> list[dict[str, t.Any]]:
    """Bots for backup_restore: the state belongs to the bot's user, the config to root. In clusters for pod_restore."""
    found = []
    for bot, _settings, arguments in _wanted(bots):
        common = {**arguments, "snapshot": snapshot, "time": time, "overwrite": overwrite}
        if "state_dir" not in bot:
            found.append(common)
            continue
        places = {"state": {"path": bot["state_dir"], "owner": bot["user"]},
                  "config": {"path": bot["config_dir"], "owner": "root"}}
        paths = [{"role": role, **places[role]} for role in roles]
        found.append({**common, "paths": paths})
    return found


def extract_targets(bots: Bots, into: str, snapshot: str = "latest", time: str = "latest") -> list[dict[str, t.Any]]:
    """Bots or spaces for backup_extract, each with a folder of its own."""
    return [{**one, "snapshot": snapshot, "time": time, "into": f"{into}/{one['name']}"}
            for one in backup_secrets(bots, *SECRETS)]


def backup_rows(names: t.Iterable[str], host: str, *results: t.Mapping[str, t.Any], kind: str = "bot"
                ) -> list[dict[str, t.Any]]:
    """What became of each bot, space or vm of a host, by the results of tasks; of several reasons the first counts."""
    taken, why, otherwise = {}, {}, ""
    for result in results:
        failure = result.get("failure") or {}
        details = failure.get("details") or {}
        taken.update({one[kind]: one for one in [*result.get("snapshots", []), *details.get("snapshots", [])]})
        for one in details.get("failed", []):
            why.setdefault(one[kind], one["message"])
        if result.get("failed") or result.get("unreachable"):
            otherwise = otherwise or str(failure.get("message") or result.get("msg") or "The task failed.")
    good = ("snapshot", "bytes", "bytes_added", "duration")
    return [{kind: name, "host": host, "ok": True, **{key: taken[name][key] for key in good}} if name in taken else
            {kind: name, "host": host, "ok": False, "why": why.get(name) or otherwise or "No snapshot was taken."}
            for name in names]


def backup_failures(rows: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """Who has no snapshot, out of the rows of a report."""
    return [_who(row) for row in rows if not row["ok"]]


def _who(row: t.Mapping[str, t.Any]) -> str:
    return next(f"{word}{row[kind]}" for kind, word in _WORDS.items() if kind in row)


def backup_table(rows: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """One line for each row of a report of backup.yml."""
    lines = [("BOT", "HOST", "RESULT", "SIZE", "ADDED", "SECONDS")]
    for row in rows:
        sizes = (_size(row["bytes"]), _size(row["bytes_added"]), f"{row['duration']:g}") if row["ok"] else ("-",) * 3
        lines.append((_who(row), str(row["host"]), "ok" if row["ok"] else "FAILED", *sizes))
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return [*table, *(f"{_who(row)} ({row['host']}): {row['why']}" for row in rows if not row["ok"])]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def backup_accounts(hostvars: Bots) -> list[dict[str, t.Any]]:
    """Bots for the modules that work on the bucket alone, out of their variables, wherever they run."""
    found = []
    for one in hostvars:
        own = {key[4:]: one[key] for key in one if key.startswith("bot_backup")}
        found += [arguments for _bot, _settings, arguments in _wanted([{"name": one["inventory_hostname"], **own}])]
    return found


def backup_guests(hostvars: Bots) -> list[dict[str, t.Any]]:
    """VMs whose vm_backup is on, with the secrets of their own, for the modules that work on the bucket alone."""
    found = [(one["inventory_hostname"], dict(one.get("vm_backup") or {})) for one in hostvars]
    return [{"name": name, **{key: settings[key] for key in SECRETS if key in settings}}
            for name, settings in found if settings.get("enabled", False)]


def backup_previous(accounts: Bots, hostvars: t.Mapping[str, t.Any], variable: str) -> list[dict[str, t.Any]]:
    """Each with what it had before: out of a mapping such as space_backup, or variables that begin so."""
    found = []
    for one in accounts:
        own = hostvars[one["name"]]
        settings = own.get(variable) or {}
        given = {f"previous_{key}": own.get(f"{variable}_previous_{key}", settings.get(f"previous_{key}"))
                 for key in PREVIOUS}
        found.append({**one, **{key: value for key, value in given.items() if value}})
    return found


def backup_secrets(bots: Bots, *secrets: str) -> list[dict[str, t.Any]]:
    """The bots with no more of their own secrets than these."""
    return [{key: value for key, value in bot.items() if key in ("name", *secrets)} for bot in bots]


def fleet_manifest(bots: Bots, seen: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """What runs where, as it is described and as it was seen, without secrets.

    seen has for each host and cluster its bots (records, slurped or by bot_instance_info) and its spaces.
    """
    records = {host: {one["name"]: one for one in map(_record, found.get("bots", []))} for host, found in seen.items()}
    described = {}
    for one in bots:
        name = one["inventory_hostname"]
        own = {key[4:]: one[key] for key in one if key.startswith("bot_") and not _SECRET.search(key)
               and not key.startswith("bot_backup")}
        standing = [{"host": host, **{key: known[name][key] for key in _SEEN if known[name].get(key) is not None}}
                    for host, known in sorted(records.items()) if name in known]
        described[name] = {"described": _veiled(own), "seen": standing}
    spaces = {one["name"]: {"host": host, "volume": one.get("volume"), "described": _veiled(one.get("spec"))}
              for host, found in sorted(seen.items()) for one in found.get("spaces", [])}
    return {"bots": described, "spaces": spaces}


_SECRET = re.compile(r"token|secret|passw|credential|api_?keys?$|private_?key|access_?key", re.IGNORECASE)
_SEEN = ("version", "runtime", "profile", "port", "ports", "namespace", "node", "image", "state")


def _record(raw: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    if "content" not in raw:
        return dict(raw)
    return {**json.loads(base64.b64decode(raw["content"])), "name": pathlib.PurePosixPath(raw["source"]).stem}


def _veiled(value: t.Any, key: str = "") -> t.Any:
    """A secret is known by its key; a reference to a variable is none."""
    if isinstance(value, t.Mapping):
        return {str(name): _veiled(one, str(name)) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_veiled(one, key) for one in value]
    known = isinstance(value, str) and value and not re.fullmatch(r"\$\{[A-Za-z0-9_]+\}", value)
    return "(hidden)" if known and _SECRET.search(key) else value


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "backup_accounts": backup_accounts,
            "backup_failures": backup_failures,
            "backup_guests": backup_guests,
            "backup_names": backup_names,
            "backup_previous": backup_previous,
            "backup_rows": backup_rows,
            "backup_secrets": backup_secrets,
            "backup_sources": backup_sources,
            "backup_table": backup_table,
            "extract_targets": extract_targets,
            "fleet_manifest": fleet_manifest,
            "restore_targets": restore_targets,
        }
