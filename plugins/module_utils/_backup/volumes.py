# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What is done with a bot's data where they are volumes: in the bot's own pod, or in a Job beside it.

A volume is a mount point and can't be renamed, so what is in it is exchanged entry by entry. program() makes of this
file and what it needs a program for a pod on which nothing is installed for it.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import os
import shutil
import sys
import typing as t
import zipfile

from .. import _errors, _files, _ownership, _process
from .._errors import FleetError
from . import bucket, copier, host, jail, model, restic, sqlite

#: Below the root of a volume: what file systems and backups put there, which is not the bot's.
OWN = "lost+found", ".clawops"
# Takes the program from standard input, so that no trace of it stays.
LAUNCHER = """import runpy, sys, tempfile
with tempfile.NamedTemporaryFile(suffix=".zip") as file:
    file.write(sys.stdin.buffer.read())
    file.flush()
    runpy.run_path(file.name)
"""
MAIN = """from fleet._backup import volumes
volumes.main({verb!r}, {arguments!r})
"""
Volumes = t.Mapping[str, str]


def program(verb: str, **arguments: t.Any) -> bytes:
    """A zip archive for LAUNCHER. It writes JSON: the result, or the failure."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", MAIN.format(verb=verb, arguments=json.dumps(arguments)))
        for folder in ("fleet", "fleet/_backup"):
            archive.writestr(f"{folder}/__init__.py", "")
        for module in (_errors, _files, _ownership, _process):
            archive.writestr(_place("fleet", module), inspect.getsource(module))
        for module in (bucket, copier, host, jail, model, restic, sqlite, sys.modules[__name__]):
            archive.writestr(_place("fleet/_backup", module), inspect.getsource(module))
    return out.getvalue()


def _place(folder: str, module: t.Any) -> str:
    return f"{folder}/{module.__name__.rpartition('.')[2]}.py"


def answer_of(text: str) -> t.Any:
    """The result that a program wrote; its failure is raised."""
    answer = json.loads(text)
    if "failure" in answer:
        failure = answer["failure"]
        raise FleetError(failure["code"], failure["message"], failure["hint"], **failure["details"])
    return answer["result"]


def main(verb: str, arguments: str) -> None:
    verbs: dict[str, t.Callable[..., t.Any]] = {
        "stage": stage, "survey": survey, "write": write, "discard": discard, "prepare": prepare, "finish": finish,
        "exchange": exchange, "settle": settle}
    answer: dict[str, t.Any]
    try:
        answer = {"result": verbs[verb](**json.loads(arguments))}
    except FleetError as error:
        answer = {"failure": error.result()["failure"]}
    except OSError as error:
        code = "disk_full" if error.errno == 28 else "os_failed"
        answer = {"failure": FleetError(code, f"In the pod: {error}.").result()["failure"]}
    sys.stdout.write(json.dumps(answer))


# -- out of volumes --------------------------------------------------------------------------------------------------

def stage(volumes: Volumes, exclude: t.Mapping[str, t.Sequence[str]], directory: str, timeout: float
          ) -> dict[str, t.Any]:
    """Copies the databases into a directory."""
    discard(directory)
    os.makedirs(directory, 0o711)
    trees = [host.Tree(role, path, (*OWN, *exclude.get(role, ()))) for role, path in volumes.items()]
    parts, without = host.copied(trees, directory, timeout)
    return {"parts": [dataclasses.asdict(part) for part in parts], "exclude": without}


def survey(volumes: Volumes, exclude: t.Mapping[str, t.Sequence[str]], directory: str) -> dict[str, t.Any]:
    """As stage(), where nobody writes: nothing is copied."""
    discard(directory)
    os.makedirs(directory, 0o700)
    parts, without = host.plain([host.Tree(role, path, (*OWN, *exclude.get(role, ())))
                                 for role, path in volumes.items()])
    return {"parts": [dataclasses.asdict(part) for part in parts], "exclude": without}


def write(path: str, text: str) -> None:
    _files.write(path, text, 0o600)


def discard(directory: str) -> None:
    if os.path.lexists(directory):
        _remove(directory)


# -- into volumes ----------------------------------------------------------------------------------------------------

def _scratch(path: str) -> str:
    return os.path.join(path, ".clawops", "restore")


def _old(path: str) -> str:
    return os.path.join(_scratch(path), "old")


def prepare(volumes: Volumes, size: int, overwrite: bool) -> list[str]:
    """Empty scratch directories, once there is room, and once nothing that counts would be replaced.

    Returns the roles that hold data.
    """
    for path in volumes.values():
        _undo(path)
    occupied = {role: path for role, path in volumes.items() if _entries(path)}
    if occupied and not overwrite:
        raise FleetError("target_not_empty", f"{', '.join(occupied.values())} holds data.",
                         "Set overwrite: true (restore_overwrite for playbooks) to replace it.")
    systems = {os.stat(path).st_dev: os.statvfs(path) for path in volumes.values()}
    free = sum(facts.f_bavail * facts.f_frsize for facts in systems.values())
    if size > free:
        places = ", ".join(volumes.values())
        raise FleetError("disk_full", f"The volumes at {places} need {size} bytes, {free} are free.",
                         "Give them more with bot_volume_sizes or bot_resources.storage.", needed=size, free=free)
    for path in volumes.values():
        os.makedirs(os.path.join(path, ".clawops"), 0o700, exist_ok=True)
        os.mkdir(_scratch(path), 0o700)
    return list(occupied)


def finish(volumes: Volumes, bot: str, manifest: str, staging: str, owner: t.Sequence[int]) -> None:
    known = model.Manifest.from_json(manifest)
    for role, path in volumes.items():
        host.finish(bot, _scratch(path), known.part(role), staging, (owner[0], owner[1]))
    os.sync()


def exchange(volumes: Volumes, trees: t.Mapping[str, str]) -> None:
    """Puts what was restored in the place of what is there. settle() makes that final."""
    for role, path in volumes.items():
        _exchange(path, _scratch(path) + trees[role])
    os.sync()


def _exchange(path: str, tree: str) -> None:
    old = _old(path)
    os.mkdir(old, 0o700)
    for name in _entries(path):
        os.rename(os.path.join(path, name), os.path.join(old, name))
    # From here on what is in the volume is new.
    os.mkdir(os.path.join(_scratch(path), "emptied"))
    for name in os.listdir(tree):
        if name not in OWN:
            os.rename(os.path.join(tree, name), os.path.join(path, name))


def _undo(path: str) -> None:
    """Takes back an exchange that was not settled, and removes the scratch directory."""
    scratch, old = _scratch(path), _old(path)
    if os.path.isdir(old) and not os.path.islink(old):
        for name in _entries(path) if os.path.isdir(os.path.join(scratch, "emptied")) else ():
            _remove(os.path.join(path, name))
        for name in os.listdir(old):
            os.rename(os.path.join(old, name), os.path.join(path, name))
    if os.path.lexists(scratch):
        _remove(scratch)


def settle(volumes: Volumes) -> None:
    for path in volumes.values():
        if os.path.lexists(_old(path)):
            # Without it there is nothing to take back any more.
            os.rename(_old(path), os.path.join(_scratch(path), "gone"))
        discard(os.path.join(path, ".clawops"))


def _entries(path: str) -> list[str]:
    return [name for name in os.listdir(path) if name not in OWN]


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
