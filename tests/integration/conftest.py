# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Verbs of the collection on the box that scripts/testbed has up."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _collections() -> pathlib.Path:
    """Where the collection stands at the path that Ansible's tools, and imports in tests, demand."""
    if ROOT.parts[-3:] == ("ansible_collections", "clawops", "fleet"):
        return ROOT.parents[2]
    tree = pathlib.Path(tempfile.mkdtemp(prefix="clawops-integration-"))
    (tree / "ansible_collections/clawops").mkdir(parents=True)
    (tree / "ansible_collections/clawops/fleet").symlink_to(ROOT)
    return tree


COLLECTIONS = _collections()
sys.path.insert(0, str(COLLECTIONS))


class Box:
    """Runs playbooks as an operator does, and asks bots."""

    def __init__(self) -> None:
        self.env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_PATTERN_MISMATCH": "error",
                    "ANSIBLE_INVENTORY": str(ROOT / "inventory/local/hosts.yml")}

    def _argv(self, verb: str, **variables: object) -> list[str]:
        return ["ansible-playbook", f"clawops.fleet.{verb}", "--extra-vars", json.dumps(variables)]

    def play(self, verb: str, **variables: object) -> str:
        done = subprocess.run(self._argv(verb, **variables), env=self.env, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def changed(self, verb: str, **variables: object) -> int:
        return sum(int(count) for count in re.findall(r"changed=(\d+)", self.play(verb, **variables)))

    def kill(self, verb: str, after: float, **variables: object) -> None:
        """Starts a verb and ends it and its children by SIGKILL after so many seconds."""
        process = subprocess.Popen(self._argv(verb, **variables), env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def ask(self, message: str) -> str:
        return self.play("ask", fleet_bot="alpha", fleet_message=message)


@pytest.fixture(scope="session")
def box() -> Box:
    return Box()


@pytest.fixture
def site(tmp_path):
    """An inventory with a cluster."""
    from kubernetes_bed import Site

    made = Site(tmp_path)
    yield made
    made.discard()


@pytest.fixture(scope="module")
def oak(tmp_path_factory):
    """A VM host."""
    from guests_bed import prepared

    made = prepared(tmp_path_factory.mktemp("guests"))
    yield made
    made.clear()
