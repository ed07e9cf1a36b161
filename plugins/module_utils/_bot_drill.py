# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Drills of bots: where OpenClaw and what was restored meet."""

from __future__ import annotations

import typing as t

from ._backup.drill import OWNER, Restored
from ._bot import Bot
from ._errors import FleetError
from ._openclaw import trial
from ._process import Runner, run


class GatewayTrial:
    """Starts a gateway on the restored state, and asks it for the last turn."""

    def __init__(self, bot: Bot, image: str, timeout: float, runner: Runner = run, owner: int = OWNER,
                 **pace: t.Any) -> None:
        self.bot, self.image, self.timeout = bot, image, timeout
        self.runner, self.owner, self.pace = runner, owner, pace

    def __call__(self, restored: Restored) -> dict[str, t.Any]:
        state = restored.places.get("state")
        if state is None:
            raise FleetError("role_missing", f"The snapshot of {self.bot.name} holds no state.")
        agents = trial.agents(state, restored.databases)
        answers = restored.examine(dict.fromkeys(agents, trial.NEWEST))
        known = trial.known(rows for _problem, rows in answers.values())
        gateway = trial.Gateway(self.runner, restored.title, self.bot, self.image, self.timeout, **self.pace)
        try:
            gateway.start(restored.folder, state, self.owner, agents.values())
            return {"ready": gateway.wait(), **gateway.last_turn(known)}
        finally:
            clear(restored.title, self.runner)


def clear(title: str, runner: Runner = run) -> None:
    """Removes what a trial that was killed has left."""
    try:
        trial.clear(runner, title)
    except FleetError as error:
        # Where there is no engine nothing can have been left.
        if error.code != "no_program":
            raise
