# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one would use instead, in the releases of requirements.txt: collections, libraries of a Python, Mitogen."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from place import Broken

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ["CLAWOPS_CACHE"])
REQUIREMENTS = HERE / "requirements.txt"
CONSTRAINTS = HERE.parent / "requirements.txt"
COLLECTIONS = ("community/general", "community/docker", "community/library_inventory_filtering_v1",
               "community/libvirt", "kubernetes/core")


def place() -> pathlib.Path:
    """The folder of it all; made once."""
    known = REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes() + repr((COLLECTIONS, sys.version)).encode()
    folder = CACHE / f"peers-{hashlib.sha256(known).hexdigest()[:12]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            made = pathlib.Path(work) / "peers"
            _collections(made)
            _environment(made / "venv")
            made.rename(folder)
    return folder


def _collections(made: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        (ansible,) = (line for line in _wanted() if line.startswith("ansible=="))
        _pip(sys.executable, "download", "--no-deps", "--dest", folder, ansible)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        wanted = tuple(f"ansible_collections/{name}/" for name in COLLECTIONS)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made, [name for name in archive.namelist() if name.startswith(wanted)])


def _environment(venv: pathlib.Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    rest = [line for line in _wanted() if not line.startswith("ansible==")]
    _pip(str(venv / "bin/python"), "install", "--constraint", str(CONSTRAINTS), *rest)


def _wanted() -> list[str]:
    return [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]


def _pip(python: str, *arguments: str) -> None:
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(pip, check=False).returncode:
        raise Broken("pip could not fetch the peers.")


def python() -> str:
    """An interpreter that has what the peers import, and little else."""
    return str(place() / "venv/bin/python")


def mitogen() -> dict[str, str]:
    """The environment in which Ansible runs by Mitogen."""
    (strategies,) = place().glob("venv/lib/python*/site-packages/ansible_mitogen/plugins/strategy")
    return {"ANSIBLE_STRATEGY_PLUGINS": str(strategies), "ANSIBLE_STRATEGY": "mitogen_linear"}
