# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the modules sandbox_exec, sandbox_file and sandbox_git have in common, and what sandbox_exec does."""

from __future__ import annotations

import contextlib
import datetime
import typing as t

from .. import _audit
from .._errors import FleetError, bad_value
from .client import Engine, connect
from .exec import LIMIT, Result, environment, run_in
from .work import Container, awake, find, runs

#: Options of every module that works in a space.
OPTIONS: dict[str, t.Any] = {
    "space": {"type": "str", "required": True},
    "docker_host": {"type": "str"},
    "actor": {"type": "str"},
    "job": {"type": "str"},
}
Values = dict[str, t.Any]


@contextlib.contextmanager
def entered(engine: Engine, name: str, check_mode: bool, origin: _audit.Origin) -> t.Iterator[Container]:
    """A space that is awake. Check mode wakes none: FleetError asleep, or not_found when it isn't there yet."""
    if check_mode and not runs(find(engine, name)):
        raise FleetError("asleep", f"Space {name} sleeps, and check mode does not wake it.")
    with awake(engine, name, origin=origin) as container:
        yield container


def hidden(error: FleetError) -> bool:
    """Whether check mode may go on without having seen."""
    return error.code in ("asleep", "not_found", "engine_unreachable", "missing_library")


def manage_exec(module: t.Any) -> None:
    """Runs sandbox_exec to its end."""
    params = module.params
    origin = _audit.Origin.of(params["actor"], params["job"])
    values: Values = {"changed": False, "cmd": params["argv"] or params["shell"], "rc": None, "stdout": "",
                      "stderr": "", "truncated": False, "timed_out": False, "killed": 0, "plan_complete": True,
                      "msg": ""}
    try:
        values.update(_exec(module, params, origin))
    except FleetError as error:
        module.fail_json(**{**values, **error.result()})
    if values["timed_out"]:
        values["msg"] = f"The program did not end within {params['timeout']} seconds and was killed."
        module.fail_json(**values)
    if values["rc"]:
        module.fail_json(**{**values, "msg": "non-zero return code"})
    module.exit_json(**values)


def _exec(module: t.Any, params: Values, origin: _audit.Origin) -> Values:
    argv = params["argv"] or [params["executable"], "-c", params["shell"]]
    if params["timeout"] is not None and params["timeout"] <= 0:
        raise bad_value("timeout", params["timeout"], "Give seconds, more than none, or leave it out.")
    if params["output_limit"] < 0:
        raise bad_value("output_limit", params["output_limit"], "Give bytes.")
    conditional = params["creates"] or params["removes"]
    if module.check_mode and not conditional:
        return {"skipped": True, "rc": 0, "msg": "Command would have run if not in check mode"}
    try:
        with connect(params["docker_host"]) as engine, \
                entered(engine, params["space"], module.check_mode, origin) as container:
            reason = _needless(engine, container, params)
            if reason:
                return {"rc": 0, "msg": reason}
            if module.check_mode:
                return {"changed": True, "rc": 0, "msg": "Command would have run if not in check mode"}
            return _run(engine, container, argv, params, origin)
    except FleetError as error:
        if not module.check_mode or not hidden(error):
            raise
        module.warn(f"The plan is not complete: {error.message}")
        return {"changed": True, "plan_complete": False, "rc": 0, "msg": error.message}


def _needless(engine: Engine, container: Container, params: Values) -> str:
    """Why there is nothing to do; empty otherwise."""
    for option, is_there, words in (("creates", True, "exists"), ("removes", False, "does not exist")):
        path = params[option]
        if path and _exists(engine, container, path, params) is is_there:
            return f"Did not run command since '{path}' {words}"
    return ""


def _exists(engine: Engine, container: Container, path: str, params: Values) -> bool:
    test = ["/bin/sh", "-c", 'test -e "$1" || test -L "$1"', "sh", path]
    return run_in(engine, container, test, workdir=params["workdir"], user=params["user"], timeout=60).rc == 0


def _run(engine: Engine, container: Container, argv: list[str], params: Values, origin: _audit.Origin) -> Values:
    stdin = params["stdin"] or ""
    if stdin and params["stdin_add_newline"]:
        stdin += "\n"
    begun = datetime.datetime.now()
    with _audit.event("space.exec", params["space"], origin, argv=argv) as entry:
        done = run_in(engine, container, argv, stdin.encode("utf-8", "surrogateescape"),
                      environment(params["space"], params["env"], params["secret_env"]), params["workdir"],
                      params["user"], params["timeout"], params["output_limit"])
        entry.update(rc=done.rc, **{key: True for key in ("timed_out", "truncated") if getattr(done, key)})
        if done.rc or done.timed_out:
            entry["outcome"] = "failed"
    ended = datetime.datetime.now()
    return {"changed": True, **shown(done, params["strip_empty_ends"]), "start": str(begun), "end": str(ended),
            "delta": str(ended - begun)}


def shown(done: Result, strip: bool) -> Values:
    out, err = (raw.decode("utf-8", "replace") for raw in (done.out, done.err))
    if strip:
        out, err = out.rstrip("\r\n"), err.rstrip("\r\n")
    return {"rc": done.rc, "stdout": out, "stderr": err, "truncated": done.truncated, "timed_out": done.timed_out,
            "killed": done.killed}


EXEC_OPTIONS: dict[str, t.Any] = {
    **OPTIONS,
    "argv": {"type": "list", "elements": "str"},
    "shell": {"type": "str"},
    "executable": {"type": "str", "default": "/bin/sh"},
    "stdin": {"type": "str"},
    "stdin_add_newline": {"type": "bool", "default": True},
    "strip_empty_ends": {"type": "bool", "default": True},
    "env": {"type": "dict", "default": {}},
    "secret_env": {"type": "bool", "default": True, "no_log": False},
    "workdir": {"type": "str"},
    "user": {"type": "str"},
    "timeout": {"type": "int"},
    "output_limit": {"type": "int", "default": LIMIT},
    "creates": {"type": "str"},
    "removes": {"type": "str"},
}
