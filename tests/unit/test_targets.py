# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which hosts the plays are for when fleet_target names several: never one of another kind."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOSTS = """---
all:
  children:
    docker_hosts: {hosts: {alder: {}, birch: {}}}
    space_hosts: {hosts: {birch: {}, larch: {}}}
    clusters: {hosts: {harbor: {}, haven: {}}}
    bots: {hosts: {robot: {bot_on: harbor}}}
    spaces: {hosts: {scratch: {}}}
"""


@pytest.fixture
def listed(tmp_path):
    place = tmp_path / "ansible_collections/clawops/fleet"
    place.parent.mkdir(parents=True)
    place.symlink_to(ROOT)
    (tmp_path / "hosts.yml").write_text(HOSTS)
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "ANSIBLE_INVENTORY": str(tmp_path / "hosts.yml")}

    def ask(book, *target, code=0):
        words = [word for pattern in target for word in ("-e", f"fleet_target={pattern}")]
        done = subprocess.run(["ansible-playbook", f"clawops.fleet.{book}", "--list-hosts", *words], env=env,
                              capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == code, done.stdout + done.stderr
        return set(re.findall(r"^      (\w+)$", done.stdout, re.MULTILINE)) - {"localhost"} or done.stderr
    return ask


@pytest.mark.parametrize("book, every, some", [
    ("bots", {"harbor", "haven"}, {"harbor"}),
    ("bot_status", {"harbor", "haven"}, {"harbor"}),
    ("restore_pods", {"harbor", "haven"}, {"harbor"}),
    ("spaces", {"birch", "larch"}, {"birch"}),
    ("restore_spaces", {"birch", "larch"}, {"birch"}),
    ("backup", {"alder", "birch", "harbor", "haven"}, {"alder", "birch", "harbor"}),
])
def test_a_play_is_for_hosts_of_its_kind_alone(listed, book, every, some):
    assert listed(book) == every
    assert listed(book, "alder,birch,harbor") == some


def test_a_target_that_is_no_host_is_refused(listed):
    assert "fleet_target" in listed("bots", "harbour", code=4)
