# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What site refuses, and what it does when it is not alone."""

from __future__ import annotations

import concurrent.futures
import subprocess

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


def test_a_bot_that_stands_on_two_hosts_is_restored_on_neither(box, monkeypatch):
    box.play("site")
    monkeypatch.setitem(box.env, "ANSIBLE_INVENTORY", f"{ROOT}/inventory/local,{ROOT}/tests/inventory/birch.yml")
    record = "/var/lib/clawops/instances/alpha.json"
    birch = ["docker", "exec", "clawops-bed-birch", "sh", "-c"]
    subprocess.run([*birch, f"mkdir -p $(dirname {record}) && echo '{{}}' >{record}"], check=True)
    try:
        with pytest.raises(AssertionError, match="the data are on alder"):
            box.play("restore", bot_on="birch", bot_runtime="host", fleet_target="birch")
    finally:
        subprocess.run([*birch, f"rm {record}"], check=True)


def test_keys_of_a_keystore_reach_the_bots_of_hosts(box, tmp_path):
    box.play("site")
    store, key = tmp_path / "keys.store", tmp_path / "keys.key"
    for verb, *argv in (["create"], ["set", "STORED_KEY"]):
        subprocess.run([ROOT / "scripts/keystore", verb, store, *argv, "--key-file", key], input="st0red-value\n",
                       text=True, check=True, capture_output=True)
    given = {"fleet_keystore": str(store), "fleet_keystore_key_file": str(key)}
    assert box.changed("site", **given) > 0
    words = ["docker", "exec", "clawops-bed-alder", "docker", "exec", "bot-alpha", "cat", "/run/secrets/openclaw.env"]
    assert "STORED_KEY=`st0red-value`" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert box.changed("site", **given) == 0
    box.play("site")
