# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The mark that a bot has at both ends of its move, so that nobody starts it while it belongs to neither.

Whatever dies in the middle, the marks tell the next run how far it got: a bot that is marked at both ends runs nowhere.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ._errors import FleetError
from ._process import Finished

STATES = ("expected", "held", "free", "arrived", "returned", "gone")
DEPARTING, ARRIVING, LEFT = "departing", "arriving", "left"
#: Counts what was said, below a bot's state. It runs as the bot's own user, in whose hands the files are.
COUNT = """import contextlib, glob, json, os, sqlite3, sys, urllib.parse
agents, sessions, records = os.path.join(glob.escape(sys.argv[1]), "agents/*"), 0, 0
for path in glob.glob(os.path.join(agents, "sessions/*.jsonl")):
    with open(path, "rb") as file:
        sessions, records = sessions + 1, records + sum(1 for line in file)
for path in glob.glob(os.path.join(agents, "agent/*.sqlite")):
    for way in ("mode=ro", "immutable=1"):
        with contextlib.suppress(sqlite3.Error):
            place = f"file:{urllib.parse.quote(path)}?{way}"
            with contextlib.closing(sqlite3.connect(place, uri=True, timeout=5)) as database:
                question = "select count(distinct session_id), count(*) from transcript_events"
                found = database.execute(question).fetchone()
            sessions, records = sessions + found[0], records + found[1]
            break
print(json.dumps({"sessions": sessions, "records": records}))
"""
OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "fleet": {"type": "str", "required": True},
    "state": {"type": "str", "required": True, "choices": list(STATES)},
    "source": {"type": "str", "required": True},
    "target": {"type": "str", "required": True},
    "conversations": {"type": "dict"},
    "purge_data": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 300},
}


@dataclasses.dataclass(frozen=True)
class Mark:
    """role: departing (held at its source), arriving (its data are yet to come), left (its data stayed behind).

    since are seconds of the epoch; ran says whether it is to run again if it is taken back.
    """

    role: str
    source: str
    target: str
    since: float = 0.0
    ran: bool = True

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What one call of a module asks for."""

    name: str
    fleet: str
    state: str
    source: str
    target: str
    conversations: dict[str, t.Any] | None = None
    purge_data: bool = False
    timeout: float = 300.0

    @classmethod
    def of(cls, params: t.Mapping[str, t.Any]) -> Wish:
        return cls(**{name: params[name] for name in OPTIONS})

    def mark(self, now: float, found: Mark | None, runs: bool) -> Mark:
        """The mark for this end. Of an attempt before, it is still known since when and whether the bot ran."""
        role = ARRIVING if self.state == "expected" else DEPARTING
        if found and (found.role, found.source, found.target) == (role, self.source, self.target):
            return found
        known = found if found and found.role == role == DEPARTING else None
        return Mark(role, self.source, self.target, known.since if known else now, known.ran if known else runs)


def mark_of(text: str | None) -> Mark | None:
    """What stands in a mark. One that can't be read still holds the bot."""
    if text is None:
        return None
    try:
        return Mark(**json.loads(text))
    except (TypeError, ValueError):
        return Mark(DEPARTING, "?", "?")


def shown(mark: Mark | None) -> dict[str, t.Any] | None:
    return dataclasses.asdict(mark) if mark else None


def check_free(name: str, mark: Mark | None) -> None:
    """Raises if a bot may not be started because of its mark."""
    if mark is None:
        return
    if mark.role == LEFT:
        raise FleetError("moving", f"The data of {name} here are what its move from {mark.source} to {mark.target} "
                         "left behind.", "Bring them up to date with restore, or remove them with purge_data: true.",
                         bot=name)
    raise FleetError("moving", f"{name} is being moved from {mark.source} to {mark.target}, and may not be started "
                     "here before that has ended.", "Run clawops.fleet.migrate for it: it goes on, or takes the bot "
                     "back to where bot_on says.", bot=name)


def check_target(name: str, mark: Mark | None, taken: str) -> None:
    """Raises unless all that is here of a bot is what a move left or brought; taken says what else there is."""
    reason = taken if mark is None else "it is being moved away" if mark.role == DEPARTING else ""
    if reason:
        raise FleetError("target_not_empty", f"{name} can't come here: {reason}.",
                         "Remove it here with purge_data: true if nobody needs it, or set bot_on back.", bot=name)


def counting(directory: str, user: str | int | None) -> list[str]:
    """The command that counts what was said, as a user, where it is not already theirs."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user is not None else []
    return [*become, "python3", "-I", "-c", COUNT, directory]


def counted(name: str, done: Finished) -> dict[str, int]:
    """What the command said."""
    try:
        found = json.loads(done.out)
        return {key: int(found[key]) for key in ("sessions", "records")}
    except (ValueError, TypeError, KeyError):
        raise FleetError("program_failed", f"The conversations of {name} can't be counted (python3 ended with "
                         f"{done.rc}): {done.err.strip()[-500:]}") from None


def check_conversations(name: str, wanted: t.Mapping[str, t.Any] | None, found: t.Mapping[str, int],
                        keys: t.Iterable[str] = ("sessions", "records")) -> None:
    """Raises unless everything that was said is there; more may have been said since."""
    wishes = {key: int((wanted or {}).get(key, 0)) for key in keys}
    less = [f"{found[key]} {key} where there were {wish}" for key, wish in wishes.items() if found[key] < wish]
    if less:
        raise FleetError("conversation_lost", f"{name} has of what was said {', '.join(less)} at its source.",
                         "Look at what the snapshot holds.", bot=name)
