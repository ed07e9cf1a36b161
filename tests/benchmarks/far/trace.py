# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a module that Ansible left on the host, and tells what it did there: trace.py MODULE.

Python's audit events name every program that is started and every file that is written. Ansible's own temporary files
and devices don't count, nor does what can have no effect, such as making a directory that is there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import stat
import sys
import tempfile
import typing as t

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink",
           "os.truncate", "os.utime", "os.setxattr", "os.removexattr", "os.mkfifo")
EXEMPT = (tempfile.gettempdir(), "/dev/")
programs: list[list[str]] = []
written: list[str] = []


def named(value: t.Any) -> str:
    return os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else str(value)


def watch(event: str, args: tuple[t.Any, ...]) -> None:
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        words = [os.path.basename(named(args[0])), *map(named, args[1][1:])]
        if programs[-1:] != [words]:  # one start may raise two events
            programs.append(words)
    elif event == "os.system":
        programs.append(["sh", "-c", named(args[0])])
    elif event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
        path = place(event, args)
        if not path.startswith(EXEMPT) and "__pycache__" not in path and has_effect(event, path, args):
            written.append(f"{event} {path}")


def place(event: str, args: tuple[t.Any, ...]) -> str:
    """The path, also of an open file or relative to an open directory."""
    if isinstance(args[0], int):
        return os.readlink(f"/proc/self/fd/{args[0]}")
    if event in ("os.remove", "os.rmdir") and args[1] >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{args[1]}"), named(args[0]))
    return named(args[0])


def has_effect(event: str, path: str, args: tuple[t.Any, ...]) -> bool:
    """Events come before the deed, so what is there now decides."""
    if event == "os.mkdir":
        return not os.path.lexists(path)
    if event == "os.rmdir":
        return os.path.isdir(path) and not os.listdir(path)
    return event != "os.chmod" or stat.S_IMODE(os.stat(path).st_mode) != args[1]


module = sys.argv[1]
sys.argv = [module]
sys.addaudithook(watch)
said = io.TextIOWrapper(io.BytesIO())
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    runpy.run_path(module, run_name="__main__")
said.seek(0)
json.dump({"result": json.load(said), "programs": programs, "written": written}, sys.stdout)
