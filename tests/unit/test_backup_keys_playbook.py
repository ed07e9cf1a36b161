# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""That keys and repositories are made for all that can be served. The module is played."""

from __future__ import annotations

import pytest
from test_vm_backup_playbook import STORE, really
from test_vm_playbook import Play

MORE = """
all:
  children:
    bots: {hosts: {rabbit: {bot_on: alder}}}
    vms: {hosts: {zap: {vm_backup: {enabled: true}}}}
    spaces: {hosts: {web: {space_on: alder}}}
"""


@pytest.mark.parametrize(("bad", "words"), [
    ("robot", ["1 of 2 bots failed: robot is locked out."]),
    ("rabbit web", ["1 of 2 bots failed: rabbit is locked out.", "1 of 1 spaces failed: web is locked out."]),
    ("", [])])
def test_who_can_not_be_served_keeps_no_other_list_from_its_keys(tmp_path, monkeypatch, bad, words):
    play = Play(tmp_path)
    really(play, "backup_upkeep")
    monkeypatch.setenv("BAD", bad)
    code, calls, said = play.run("backup_keys", hosts=MORE, **STORE)
    assert (code != 0) == bool(bad), said
    assert [call[1:] for call in calls] == [["bots", ["robot", "rabbit"]], ["spaces", ["web"]], ["vms", ["zap"]]]
    assert all(one in " ".join(said.split("Fail for those that failed")[1].split()) for one in words), said
