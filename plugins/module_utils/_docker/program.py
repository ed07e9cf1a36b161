# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Installs clawops-space on a host: the modules that it is made of, as they came with the Ansible module.

They stand in a directory named after their hash, and a link says which one is current: what runs goes on with its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pathlib
import shutil
import sys
import typing as t

from .. import _files
from .._plan import Plan

LIBRARY, PROGRAM = pathlib.Path("/usr/local/lib/clawops"), pathlib.Path("/usr/local/sbin/clawops-space")
PACKAGE = "fleet"
LAUNCHER = f"""#!/usr/bin/python3 -I
# Written by clawops.fleet.sandbox_program.
import os
import sys

# Not through the link, which an update moves.
sys.path.insert(0, os.path.dirname(os.path.realpath("{LIBRARY}/{PACKAGE}")))
from {PACKAGE}._docker.cli import main

sys.exit(main())
"""


def sources() -> dict[str, str]:
    """Path below the package -> text, of every module of ours that the program has imported by now."""
    root = __name__.rsplit(".", 2)[0]
    found = {"__init__.py": ""}
    for name in sorted(sys.modules):
        if name.startswith(f"{root}."):
            path = name[len(root) + 1:].replace(".", "/")
            package = hasattr(sys.modules[name], "__path__")
            found[f"{path}/__init__.py" if package else f"{path}.py"] = _source(name)
    return found


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    loader: t.Any = spec.loader if spec else None
    text = loader.get_source(name) if hasattr(loader, "get_source") else None
    # Ansible's own loader, on a controller, hands out bytes.
    return text.decode() if isinstance(text, bytes) else text or ""


class Program:
    """The program on one host."""

    def __init__(self, texts: t.Mapping[str, str], library: pathlib.Path = LIBRARY, program: pathlib.Path = PROGRAM):
        self.texts, self.library, self.program = texts, library, program
        self.version = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:12]
        self.link, self.home = library / PACKAGE, library / self.version

    def plan(self) -> Plan:
        plan = Plan()
        plan.compare(str(self.link), self.version, self._current())
        plan.compare(str(self.program), LAUNCHER, self._launcher())
        return plan

    def _current(self) -> str | None:
        """The version that is there whole; what was altered counts as none."""
        if not self.link.is_symlink():
            return None
        folder = self.link.resolve()
        whole = all(_files.read(folder / path) == text for path, text in self.texts.items())
        return folder.parent.name if folder.parent != self.home or whole else "damaged"

    def _launcher(self) -> str | None:
        text = _files.read(self.program)
        return text if text is None or os.access(self.program, os.X_OK) else "not executable"

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        former = self.link.resolve().parent
        for path, text in self.texts.items():
            _files.write(self.home / PACKAGE / path, text)
        beside = self.library / f".{PACKAGE}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(f"{self.version}/{PACKAGE}")
        beside.replace(self.link)
        _files.write(self.program, LAUNCHER, 0o755)
        for old in self.library.iterdir():
            if old.is_dir() and not old.is_symlink() and old not in (self.home, former):
                shutil.rmtree(old)
        return self.facts()

    def facts(self) -> dict[str, t.Any]:
        return {"program": str(self.program), "version": self.version}
