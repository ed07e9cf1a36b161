# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which bots are tried where by restore_drill, and what became of them."""

from __future__ import annotations

import typing as t

from ..module_utils._bot import RELEASE
from .backup import SECRETS, backup_accounts

Values = t.Mapping[str, t.Any]
#: What a machine may say of what it has tried.
TOLD = ("code", "why", "snapshot", "time", "files", "bytes", "databases", "ready", "sessions", "turn", "duration")
HEAD = ("BOT", "HOST", "RESULT", "SNAPSHOT", "FILES", "DATABASES", "READY", "LAST TURN", "SECONDS")


def drill_places(bots: t.Iterable[Values], docker_hosts: t.Sequence[str], guests: t.Collection[str], host: str = ""
                 ) -> list[dict[str, t.Any]]:
    """Bots whose backup is on, with their secrets, and C(on), the machine to try them on; empty when there is none.

    That is host, where it is given; else the Docker host where a bot stands, or the guest where its container runs;
    else the first Docker host. Takes host variables.
    """
    found = []
    for one in bots:
        for account in backup_accounts([one]) if one.get("bot_state") != "absent" else ():
            contained = one.get("bot_on") in guests and one.get("bot_runtime") == "container"
            stands = one.get("bot_on") if one.get("bot_on") in docker_hosts or contained else ""
            found.append({**account, "on": host or stands or next(iter(docker_hosts), ""),
                          "version": str(one.get("bot_version") or RELEASE),
                          "resources": dict(one.get("bot_resources") or {})})
    return found


def drill_bots(bots: t.Iterable[Values], images: t.Iterable[Values]) -> list[dict[str, t.Any]]:
    """What backup_drill takes of bots of C(drill_places); images are results of openclaw_image."""
    built = {result["item"]: result.get("image") for result in images}
    found = []
    for bot in bots:
        resources = {key: str(bot["resources"][key]) for key in ("memory", "cpus") if key in bot["resources"]}
        # In check mode an image may be yet to come.
        image = {"image": built[bot["version"]]} if built.get(bot["version"]) else {}
        found.append({**{key: bot[key] for key in ("name", *SECRETS, "version") if key in bot}, **resources, **image})
    return found


def drill_rows(names: t.Iterable[str], host: str, *results: Values, kind: str = "bot") -> list[dict[str, t.Any]]:
    """What became of each bot or space on a machine, out of the results of tasks; the first reason counts."""
    tried: dict[str, dict[str, t.Any]] = {}
    otherwise = ""
    for result in results:
        failure = result.get("failure") or {}
        rows = [*result.get("drills", []), *(failure.get("details") or {}).get("drills", [])]
        tried.update({row[kind]: row for row in rows})
        if result.get("failed") or result.get("unreachable"):
            otherwise = otherwise or str(failure.get("message") or result.get("msg") or "The task failed.")
    return [{kind: name, "host": host, "ok": tried[name].get("ok") is True,
             **{key: tried[name][key] for key in TOLD if tried[name].get(key) is not None}} if name in tried else
            {kind: name, "host": host, "ok": False, "code": "not_tried", "why": otherwise or "It was not tried."}
            for name in names]


def drill_table(rows: t.Iterable[Values]) -> list[str]:
    """One line for each row."""
    lines, reasons = [HEAD], []
    for row in rows:
        turn = (row.get("turn") or {}).get("time")
        lines.append((_who(row), str(row["host"]), "ok" if row["ok"] else "FAILED", _short(row.get("time")),
                      *(_number(row.get(key)) for key in ("files", "databases", "ready")), _short(turn),
                      _number(row.get("duration"))))
        reasons += [] if row["ok"] else [f"{_who(row)} ({row['host']}): {row['why']}"]
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return [*table, *reasons]


def _who(row: Values) -> str:
    return str(row["bot"]) if "bot" in row else f"space {row['space']}"


def _short(stamp: object) -> str:
    return str(stamp)[:19] if stamp else "-"


def _number(value: t.Any) -> str:
    return "-" if value is None else f"{value:g}"


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "drill_bots": drill_bots,
            "drill_places": drill_places,
            "drill_rows": drill_rows,
            "drill_table": drill_table,
        }
