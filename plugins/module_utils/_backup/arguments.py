# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The options that the four modules share, and what they make of them."""

from __future__ import annotations

import typing as t

from .._errors import bad_value
from .._ownership import check_name
from .bucket import connect
from .host import HostRunner
from .model import Keys, Runner, Store
from .restic import Repository
from .verbs import Access

SECRETS: dict[str, t.Any] = {
    "access_key": {"type": "str", "no_log": True},
    "secret_key": {"type": "str", "no_log": True},
    "password": {"type": "str", "no_log": True},
}
BOT: dict[str, t.Any] = {"name": {"type": "str", "required": True}, **SECRETS}
COMMON: dict[str, t.Any] = {
    "endpoint": {"type": "str", "required": True},
    "bucket": {"type": "str", "required": True},
    "region": {"type": "str", "default": "us-east-1"},
    "ca_cert": {"type": "path"},
    "fleet": {"type": "str", "required": True},
    **SECRETS,
    "restic": {"type": "path", "default": "restic"},
    "timeout": {"type": "int", "default": 14400},
    "parallel": {"type": "int", "default": 2},
}


def spec(bot: dict[str, t.Any] | None = None, **options: t.Any) -> dict[str, t.Any]:
    """The argument spec of one module: the common options, what it adds to a bot, and its own."""
    bots = {"type": "list", "elements": "dict", "required": True, "options": {**BOT, **(bot or {})}}
    return {**COMMON, "bots": bots, **options}


def store(params: t.Mapping[str, t.Any]) -> Store:
    """The store, once names, numbers and the list of bots are sound."""
    for name in ("timeout", "parallel"):
        if params[name] < 1:
            raise bad_value(name, params[name], "Give 1 or more.")
    names = [check_name("bots.name", bot["name"]) for bot in params["bots"]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise bad_value("bots.name", twice, "Name each bot once.")
    return Store(params["endpoint"].rstrip("/"), params["bucket"], params["fleet"], params["region"],
                 params["ca_cert"]).check()


def access(params: t.Mapping[str, t.Any], where: Store, bot: t.Mapping[str, t.Any], runner: Runner | None = None
           ) -> Access:
    """The way to one bot's repository; the bot's own secrets go before those for all."""
    given = {name: bot[name] if bot[name] is not None else params[name] or "" for name in SECRETS}
    keys = Keys(**given).check(bot["name"])
    repository = Repository(where, bot["name"], keys, runner or HostRunner(), params["restic"],
                            timeout=params["timeout"])
    return Access(bot["name"], lambda: connect(where, keys), repository)
