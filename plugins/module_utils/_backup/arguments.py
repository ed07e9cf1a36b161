# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The options that the four modules share, and what they make of them."""

from __future__ import annotations

import typing as t

from .._errors import FleetError, bad_value
from .._ownership import check_name
from .bucket import Bucket, Marks, connect
from .host import HostRunner
from .minio import Admin
from .model import KINDS, Keys, Runner, Store, Target, instant
from .restic import Repository
from .rights import History, Keep, Rights, holder, pruner
from .verbs import Access, Wish

SECRETS: dict[str, t.Any] = {
    "access_key": {"type": "str", "no_log": True},
    "secret_key": {"type": "str", "no_log": True},
    "password": {"type": "str", "no_log": True},
}
# What restores take of each, and what they take for all.
CHOICE: dict[str, t.Any] = {"snapshot": {"type": "str", "default": "latest"},
                            "time": {"type": "str", "default": "latest"},
                            "overwrite": {"type": "bool", "default": False}}
SAFETY: dict[str, t.Any] = {"safety": {"type": "bool", "default": True}, "host": {"type": "str"}}
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


def spec(bot: dict[str, t.Any] | None = None, kind: str = "bot", **options: t.Any) -> dict[str, t.Any]:
    """The argument spec of one module: the common options, what it adds to each of them, and its own."""
    listed = {"type": "list", "elements": "dict", "required": True, "options": {**BOT, **(bot or {})}}
    return {**COMMON, f"{kind}s": listed, **options}


LISTS = tuple(f"{kind}s" for kind in KINDS)
EITHER: dict[str, t.Any] = {"mutually_exclusive": [LISTS], "required_one_of": [LISTS]}


def either(bot: dict[str, t.Any] | None = None, **options: t.Any) -> dict[str, t.Any]:
    """The argument spec of a module that is about bots, about VMs or about spaces."""
    every = {**spec(bot), **options}
    return {**every, **{name: {**every["bots"], "required": False} for name in LISTS}}


def _kind(params: t.Mapping[str, t.Any]) -> str:
    return next(kind for kind in KINDS if params.get(f"{kind}s") is not None)


def listed(params: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """The bots, the VMs or the spaces."""
    found: list[dict[str, t.Any]] = params[f"{_kind(params)}s"]
    return found


def store(params: t.Mapping[str, t.Any]) -> Store:
    """The store, once names, numbers and the list are sound."""
    for name in ("timeout", "parallel"):
        if params[name] < 1:
            raise bad_value(name, params[name], "Give 1 or more.")
    kind = _kind(params)
    names = [check_name(f"{kind}s.name", bot["name"]) for bot in listed(params)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise bad_value(f"{kind}s.name", twice, "Name each once.")
    return Store(params["endpoint"].rstrip("/"), params["bucket"], params["fleet"], params["region"],
                 params["ca_cert"], kind).check()


def access(params: t.Mapping[str, t.Any], where: Store, bot: t.Mapping[str, t.Any], runner: Runner | None = None
           ) -> Access:
    """The way to the repository of a bot or VM; its own secrets go before those for all."""
    given = {name: bot[name] if bot[name] is not None else params[name] or "" for name in SECRETS}
    keys = Keys(**given).check(where.subject(bot["name"]))

    def bucket() -> Bucket:
        return connect(where, keys.access_key, keys.secret_key)

    repository = Repository(where, bot["name"], keys, runner or HostRunner(), params["restic"],
                            timeout=params["timeout"], marks=Marks(bucket, bot["name"]))
    return Access(bot["name"], bucket, repository)


def wish(way: Access, target: Target, entry: t.Mapping[str, t.Any], safety: bool = False) -> Wish:
    """What a restore is asked for."""
    until = instant(f"{way.bot}: time", entry["time"]) if entry["time"] not in ("", "latest") else None
    if until and entry["snapshot"] != "latest":
        raise bad_value(f"{way.bot}: snapshot", entry["snapshot"], "Give the id of a snapshot or a time, not both.")
    return Wish(way, target, entry["snapshot"], entry.get("overwrite", False), until, safety)


def pair(params: t.Mapping[str, t.Any], kind: str) -> tuple[str, str] | None:
    """An access key with its secret key, both given or none."""
    key, secret = ((params[f"{kind}_{name}"] or "").strip() for name in ("access_key", "secret_key"))
    if bool(key) != bool(secret):
        missing = "secret" if key else "access"
        raise FleetError("half_a_key", f"{kind}_{missing}_key is empty.", "Give both keys or none.")
    return (key, secret) if key else None


def rights(params: t.Mapping[str, t.Any], where: Store) -> Rights | None:
    """The keys to make: those of bots that have one of their own, and the one that prunes."""
    admin = pair(params, "admin")
    if not admin:
        return None
    own = [(bot["name"], bot["access_key"], bot["secret_key"]) for bot in listed(params) if bot["access_key"]]
    half = next((name for name, _key, secret in own if not secret), None)
    if half:
        raise FleetError("empty_secret_key",
                         f"{where.subject(half)}: an access key of its own needs a secret_key of its own.")
    holders = [holder(where, name, key, secret, _opener(where, key, secret)) for name, key, secret in own]
    prune = pair(params, "prune")
    if prune:
        holders.append(pruner(where, *prune, _opener(where, *prune)))
    return Rights(Admin(where, *admin), holders, params["revoke"])


def _opener(where: Store, key: str, secret: str) -> t.Callable[[], Bucket]:
    return lambda: connect(where, key, secret)


def owner(params: t.Mapping[str, t.Any], where: Store) -> t.Callable[[], Bucket] | None:
    """The bucket as the administrator sees it, else as the key for all bots does."""
    key = pair(params, "admin") or (params["access_key"], params["secret_key"])
    return _opener(where, *key) if all(key) else None


def history(params: t.Mapping[str, t.Any], where: Store) -> History | None:
    """What the bucket shall keep."""
    lock = params["object_lock"] or {}
    keep = Keep(params["versioning"], params["keep_deleted"], lock.get("mode"), lock.get("days") or 0).check()
    if keep == Keep():
        return None
    seen = owner(params, where)
    if not seen:
        raise FleetError("empty_access_key", "versioning, keep_deleted and object_lock need a key for the bucket.",
                         "Give admin_access_key and admin_secret_key.")
    return History(seen, where, keep)
