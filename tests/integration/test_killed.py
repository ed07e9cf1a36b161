# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever dies in the middle, the next run converges and loses nothing."""

from __future__ import annotations

import subprocess

import pytest
from conftest import ROOT

pytestmark = pytest.mark.full


def test_a_site_that_was_killed_converges(box):
    subprocess.run([ROOT / "scripts/testbed", "reset", "dockerhost:alder"], check=True, capture_output=True)
    for seconds in (6, 15, 30, 45):
        box.kill("site", seconds)
    box.play("site")
    assert box.changed("site") == 0


def test_a_backup_and_a_restore_that_were_killed_lose_nothing(box):
    box.play("site")
    box.ask("remember: the stork clatters")
    for seconds in (2, 3.5, 5):
        box.kill("backup", seconds)
    box.play("backup")
    box.play("remove", fleet_only=["alpha"], purge_data=True)
    for seconds in (4, 6, 8):
        box.kill("restore", seconds)
    box.play("restore", restore_overwrite=True)
    assert "the stork clatters" in box.ask("recall")
