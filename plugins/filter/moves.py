# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How bots get from where they stand to where bot_on says they belong."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from .backup import backup_names
from .bots import HOMES, bots_on

Values = t.Mapping[str, t.Any]
#: For each place its bots, as bot_service_info or bot_instance_info returns them, or why there is no answer.
Found = t.Mapping[str, t.Union[t.Iterable[Values], str]]
#: For each place the notes of each bot's move.
Notes = t.Mapping[str, t.Mapping[str, Values]]
MOVE = "move"
ARRIVED = "arrived"
BACK = "back"
THERE = "there"
_RESULTS = {MOVE: "moved", ARRIVED: "moved", BACK: "taken back", THERE: "is there"}


class Refusal(Exception):
    """Why a bot can't be moved."""


def moves_planned(bots: t.Iterable[Values], found: Found, groups: t.Mapping[str, t.Sequence[str]],
                  lost: t.Collection[str] = ()) -> list[dict[str, t.Any]]:
    """One move for each bot. Whoever can't be moved is named with the reason, before anything is touched."""
    moves, refused = [], []
    for bot in bots:
        name, target = bot["inventory_hostname"], bot.get("bot_on")
        silent = sorted(place for place, answer in found.items() if isinstance(answer, str) and place not in lost)
        stands = {place: one for place, answer in found.items() if place not in lost and not isinstance(answer, str)
                  for one in answer if one["name"] == name and not _has_left(one)}
        try:
            if target in silent:
                raise Refusal(f"bot_on: {target} does not answer: {found[target]}")
            if target not in found:
                raise Refusal(f"bot_on: {target} is no machine or cluster of the inventory, or is a guest that does "
                              "not run.")
            move = {"bot": name, "lost": False, **_stage(str(target), stands, silent, lost)}
            kinds = {end: _kind(move[end], groups) for end in ("source", "target")}
            if move["stage"] in (MOVE, ARRIVED):
                _check(bot, move, stands, kinds)
        except (Refusal, AnsibleFilterError) as error:
            refused.append(str(error) if str(error).startswith(f"{name}: ") else f"{name}: {error}")
            continue
        source = stands.get(move["source"], {})
        moves.append({**move, "source_kind": kinds["source"], "target_kind": kinds["target"],
                      "version": source.get("version"), "since": (source.get("move") or {}).get("since"),
                      "replaces": _replaces(name, found.get(move["target"], ()))})
    if refused:
        raise AnsibleFilterError("Nothing was touched. " + " ".join(refused))
    return moves


def _has_left(one: Values) -> bool:
    return _role(one) == "left" and one["state"] == "absent"


def _replaces(name: str, answer: t.Iterable[Values] | str) -> bool:
    """Whether what is at the target is what a move left or brought, and may be replaced."""
    return not isinstance(answer, str) and any(one["name"] == name and _role(one) in ("arriving", "left")
                                               for one in answer)


def _role(one: Values | None) -> str | None:
    return ((one or {}).get("move") or {}).get("role")


def _kind(place: str, groups: t.Mapping[str, t.Sequence[str]]) -> str:
    kinds = {"cluster": "clusters", "vm": "vms"}
    return next((kind for kind, group in kinds.items() if place in groups.get(group, ())), "docker_host")


def _stage(target: str, stands: t.Mapping[str, Values], silent: t.Sequence[str], lost: t.Collection[str]
           ) -> dict[str, t.Any]:
    """Where the bot comes from, and how far an earlier attempt got."""
    held = [place for place, one in stands.items() if _role(one) == "departing"]
    sources = [place for place, one in stands.items() if place != target and _role(one) != "arriving"]
    rests = [place for place, one in stands.items() if place != target and _role(one) == "arriving"]
    here = stands.get(target)
    if held == [target]:
        return _back(target, stands[target]["move"]["target"], stands, silent, lost)
    if len(sources) > 1 or (here and not _role(here) and sources and not held):
        where = sorted({*sources, *([target] if here else [])})
        raise Refusal(f"it stands on {' and '.join(where)}. Remove the wrong one with purge_data: true.")
    if here and not _role(here) and not sources:
        return _back(target, rests[0], stands, silent, lost) if rests else {
            "source": target, "target": target, "stage": THERE}
    if not sources:
        unknown = f", and {', '.join(silent)} did not answer" if silent else ""
        raise Refusal(f"it stands nowhere{unknown}. Bring it up with site, or bring it back with restore.")
    (source,) = sources
    meant = [stands[source]["move"]["target"]] if held else []
    other = next((place for place in meant + rests if place != target), None)
    if other:
        raise Refusal(f"its move from {source} to {other} has not ended. Run this with bot_on: {other} to end it, or "
                      f"with bot_on: {source} to take it back.")
    return {"source": source, "target": target, "stage": ARRIVED if here and not _role(here) else MOVE}


def _back(source: str, target: str, stands: t.Mapping[str, Values], silent: t.Sequence[str], lost: t.Collection[str]
          ) -> dict[str, t.Any]:
    """The operator has put bot_on back: nothing may be left at the other end."""
    there = stands.get(target)
    if there and not _role(there):
        raise Refusal(f"its data have come to {target}, where it may have gone on. Run this with bot_on: {target} to "
                      f"end that move, and then once more with bot_on: {source}.")
    if target in silent:
        raise Refusal(f"{target} does not answer, and may run it. Is it lost for good, then name it in migrate_lost.")
    return {"source": source, "target": target, "stage": BACK, "lost": target in lost}


def _check(bot: Values, move: Values, stands: t.Mapping[str, Values], kinds: Values) -> None:
    """What must be so for a bot to arrive as it left."""
    (wanted,) = bots_on([bot], move["target"], {}, kinds["target"])
    source = stands[move["source"]]
    if wanted["state"] == "absent":
        raise Refusal("bot_state is absent.")
    if not backup_names([wanted]):
        raise Refusal("bot_backup.enabled is false, and a bot moves by way of its backup.")
    if not source.get("version") and move["stage"] == MOVE:
        raise Refusal(f"nobody knows which release it is on {move['source']}. Set bot_on back, and run site first.")
    if source.get("version") not in (None, str(wanted["version"])):
        raise Refusal(f"it runs OpenClaw {source['version']} on {move['source']}, and bot_version says "
                      f"{wanted['version']}. Move it as it is, and upgrade it then.")
    homeless = [volume["name"] for volume in source.get("volumes") or () if volume["name"] != "clawdbot"]
    if homeless and kinds["target"] != "cluster":
        raise Refusal(f"its volume {', '.join(homeless)} has no place on a machine.")


def moves_sources(bots: t.Iterable[Values], moves: t.Iterable[Values], host: str) -> list[dict[str, t.Any]]:
    """The bots that leave a place, as the role backup takes them: by what stands there, not by what is described."""
    leaving = {move["bot"]: move for move in moves if move["source"] == host}
    found = []
    for bot in bots:
        name = bot["inventory_hostname"]
        if name in leaving:
            places = {} if leaving[name]["source_kind"] == "cluster" else _places(name)
            own = {key[4:]: bot[key] for key in bot if key.startswith("bot_backup")}
            found.append({"name": name, "version": leaving[name]["version"] or "", **places, **own})
    return found


def _places(name: str) -> dict[str, str]:
    home = HOMES.get(name) or {"state_dir": f"/var/lib/clawops/bots/{name}",
                               "config_dir": f"/opt/openclaw/{name}/config"}
    return {key: home[key] for key in ("state_dir", "config_dir")}


def _noted(notes: Notes, place: str, move: Values) -> Values:
    return notes.get(place, {}).get(move["bot"]) or {}


def moves_due(moves: t.Iterable[Values], notes: Notes, step: str, place: str) -> list[dict[str, t.Any]]:
    """The moves for which a step is to be taken at a place, by what was noted of the steps before.

    purge says that this run has brought all that is at the target, so that nothing is lost with it.
    """
    due = []
    for move in moves:
        source, target = (_noted(notes, move[end], move) for end in ("source", "target"))
        fresh, up = move["stage"] == MOVE, bool(target.get("up"))
        # A target that was not let go can't start the bot, whatever else is the matter with it.
        safe = move["lost"] or target.get("cleared") or (fresh and not target.get("freed"))
        wanted = {
            "prepare": (move["target"], fresh),
            "copy": (move["source"], fresh and target.get("prepared")),
            "rehearse": (move["target"], fresh and source.get("copied")),
            "depart": (move["source"], fresh and target.get("rehearsed")),
            "arrive": (move["target"], source.get("departed") if fresh else move["stage"] == ARRIVED),
            "clear": (move["target"], move["stage"] != THERE and not up and not move["lost"]),
            "settle": (move["source"], move["stage"] != THERE and (up or safe)),
        }
        where, due_now = wanted[step]
        if where == place and due_now:
            due.append({**move, "up": up, "purge": fresh and bool(target.get("freed"))})
    return due


def moves_rows(moves: t.Iterable[Values], notes: Notes) -> list[dict[str, t.Any]]:
    """What became of each move."""
    return [_row(move, _noted(notes, move["source"], move), _noted(notes, move["target"], move)) for move in moves]


def _row(move: Values, source: Values, target: Values) -> dict[str, t.Any]:
    up, settled, stopped = target.get("up"), source.get("settled"), source.get("stopped") or move.get("since")
    why = [str(one["why"]) for one in (source, target) if one.get("why")]
    if move["stage"] == THERE or (settled and (up or move["stage"] == BACK)):
        result, ok = _RESULTS[move["stage"]], True
    elif up:
        result, ok = "moved", False
        why.append(f"{move['source']} could not be cleaned: run this again.")
    elif settled:
        result, ok = "rolled back" if stopped else "not moved", False
    else:
        result, ok = "STOPPED", False
        why.append(f"Nobody can say that {move['target']} does not run it, so {move['source']} holds it. Run this "
                   "again when both answer.")
    if not (ok or why):
        why.append("A step failed: see above.")
    end = up or settled
    downtime = round(float(end) - float(stopped), 1) if stopped and end and source.get("ran", True) else 0.0
    return {"bot": move["bot"], "source": move["source"], "target": move["target"], "result": result, "ok": ok,
            "downtime": downtime, "snapshot": source.get("snapshot"), "why": " ".join(why) if not ok else ""}


def moves_table(rows: t.Iterable[Values]) -> list[str]:
    """One line for each row, and the reasons of those that failed."""
    rows = list(rows)
    lines = [("BOT", "FROM", "TO", "RESULT", "DOWNTIME")]
    lines += [(row["bot"], row["source"], row["target"], row["result"], f"{row['downtime']:g} s") for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return [*table, *(f"{row['bot']}: {row['why']}" for row in rows if row["why"])]


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "moves_due": moves_due,
            "moves_planned": moves_planned,
            "moves_rows": moves_rows,
            "moves_sources": moves_sources,
            "moves_table": moves_table,
        }
