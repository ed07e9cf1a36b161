# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the modules for spaces take, and what they do with it: one space is a fleet of one."""

from __future__ import annotations

import concurrent.futures
import typing as t

from .. import _audit, _plan
from .._errors import FleetError, bad_value
from .._ownership import check_name
from . import names
from .client import Engine, Json, connect
from .decide import Settings
from .facts import report
from .reconcile import Spaces, check_guard
from .space import MODES, RESTARTS, STATES, STRATEGIES, parse_all

COMMON: dict[str, Json] = {
    "docker_host": {"type": "str"},
    "actor": {"type": "str"},
    "job": {"type": "str"},
}
SPACE: dict[str, Json] = {
    "name": {"type": "str", "required": True},
    "template": {"type": "str"},
    "state": {"type": "str", "choices": list(STATES), "default": "started"},
    "image": {"type": "str"},
    "env": {"type": "dict"},
    "secret_env": {"type": "dict", "no_log": True},
    "resources": {"type": "dict", "options": {
        "memory": {"type": "str"}, "cpus": {"type": "str"}, "pids": {"type": "int"}, "tmp": {"type": "str"},
        "run": {"type": "str"}}},
    "network": {"type": "dict", "options": {
        "mode": {"type": "str", "choices": list(MODES)}, "block": {"type": "list", "elements": "str"}}},
    "user": {"type": "str"},
    "writable_root": {"type": "bool"},
    "gpu": {"type": "str"},
    "repository": {"type": "dict", "options": {
        "url": {"type": "str"}, "branch": {"type": "str"}, "dest": {"type": "str"}}},
    "repository_token": {"type": "str", "no_log": True},
    "workspace": {"type": "dict", "options": {
        "strategy": {"type": "str", "choices": list(STRATEGIES)}, "path": {"type": "path"},
        "branch": {"type": "str"}}},
    "idle": {"type": "dict", "options": {
        "after": {"type": "int"}, "action": {"type": "str", "choices": ["pause", "stop"]}}},
    "restart": {"type": "str", "choices": list(RESTARTS)},
    "recreate": {"type": "bool", "default": False},
}
FLEET: dict[str, Json] = {
    "fleet": {"type": "str", "required": True},
    "templates": {"type": "dict", "default": {}},
    "allowed_paths": {"type": "list", "elements": "path", "default": []},
    "purge_data": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
    "require_guard": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 60},
}


class Module(_plan.Warner, t.Protocol):
    """The part of AnsibleModule that is needed."""

    params: Json


def _given(values: t.Mapping[str, t.Any]) -> Json:
    """Without what nobody said, so that a template can."""
    return {key: {part: one for part, one in value.items() if one is not None}
            if isinstance(value, dict) and key not in ("env", "secret_env") else value
            for key, value in values.items() if value is not None}


def manage(module: Module, spaces: t.Iterable[t.Mapping[str, t.Any]],
           shape: t.Callable[[Json], Json] = lambda values: values) -> None:
    """Runs one module to its end. shape makes the module's return values of those of a fleet."""
    p = module.params
    works: list[Spaces] = []

    def plan() -> _plan.Plan:
        parsed = parse_all(map(_given, spaces), p["templates"])
        if p["timeout"] < 1:
            raise bad_value("timeout", p["timeout"], "Give seconds, 1 or more.")
        for path in p["allowed_paths"]:
            if not path.startswith("/") or path.rstrip("/") == "":
                raise bad_value("allowed_paths", path, "Give absolute paths below /.")
        only = None if p.get("only") is None else [check_name("only", name) for name in p["only"]]
        settings = Settings(p["fleet"], p["purge_data"], p["adopt"], tuple(p["allowed_paths"]), float(p["timeout"]))
        result = _plan.Plan()
        chosen = [space for space in parsed if only is None or space.name in only]
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            # Another program, and the engine, take their time together.
            guard = beside.submit(check_guard, chosen if p["require_guard"] else ())
            engine = _engine(module, result)
            if engine:
                works.append(Spaces(engine, parsed, settings, _audit.Origin.of(p["actor"], p["job"]), only,
                                    bool(p.get("prune"))))
                result.changes += works[0].plan().changes
        lacking = guard.result()
        if lacking and not module.check_mode:
            raise FleetError("no_guard", f"{lacking}. A space with a network would reach the host.",
                             "Apply the role network_guard, or say require_guard: false.")
        if lacking:
            result.cannot_see(f"{lacking}: the role network_guard has to make it first.")
        return result

    def facts() -> Json:
        values = works[0].facts() if works else {"spaces": []}
        for reason in sorted({reason for space in values["spaces"] for reason in space["pending"]}):
            waiting = [space["name"] for space in values["spaces"] if reason in space["pending"]]
            module.warn(f"{', '.join(waiting)}: {reason}.")
        return shape(values)

    def apply(decided: _plan.Plan) -> Json:
        works[0].apply(decided)
        return facts()

    _plan.run(module, plan, apply, facts)


def _engine(module: Module, plan: _plan.Plan) -> Engine | None:
    """In check mode a host may have no engine yet."""
    try:
        return connect(module.params["docker_host"], float(module.params["timeout"]))
    except FleetError as error:
        if not module.check_mode or error.code not in ("engine_unreachable", "missing_library"):
            raise
        plan.cannot_see(error.message)
        return None


def inform(module: Module) -> None:
    """The module that only looks."""
    p = module.params
    try:
        only = None if p["names"] is None else [check_name("names", name) for name in p["names"]]
        with connect(p["docker_host"]) as engine:
            values = report(engine, p["fleet"], only)
    except FleetError as error:
        # Where there never was a space, nobody needs an engine to say so: before a first run, for instance.
        if error.code not in ("engine_unreachable", "missing_library") or names.STATE.is_dir():
            module.fail_json(**error.result())
            return
        values = report(None)
    module.exit_json(changed=False, **values)
