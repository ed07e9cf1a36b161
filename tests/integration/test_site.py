# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What site refuses, and what it does when it is not alone."""

from __future__ import annotations

import concurrent.futures

import pytest
from conftest import ROOT

pytestmark = pytest.mark.full


def test_nothing_is_written_for_a_bad_description(box):
    box.play("site")
    for bad, word in (({"bot_port": 0}, "bot_port"), ({"bot_resources": {"memory": "2 Gb"}}, "2 Gb"),
                      ({"bot_profile": "tablet"}, "tablet")):
        with pytest.raises(AssertionError, match=word):
            box.play("site", **bad)
    assert box.changed("site") == 0


def test_two_runs_at_once_end_as_one_does(box):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = [pool.submit(box.play, "site", bot_env={"FEATHERS": colour}) for colour in ("black", "white")]
    for run in both:
        run.result()
    box.play("site")
    assert box.changed("site") == 0


def test_a_bot_whose_bot_on_was_changed_gets_no_twin(box, monkeypatch):
    box.play("site")
    monkeypatch.setitem(box.env, "ANSIBLE_INVENTORY", f"{ROOT}/inventory/local,{ROOT}/tests/inventory/birch.yml")
    for verb in ("site", "restore"):
        with pytest.raises(AssertionError, match="the data are on alder"):
            box.play(verb, bot_on="birch", bot_runtime="host", fleet_target="birch")
