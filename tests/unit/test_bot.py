# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The description of a bot: what is accepted, and what is refused with one clear error."""

from __future__ import annotations

import base64
import json
import pathlib

import pytest
import yaml
from ansible_collections.clawops.fleet.plugins.filter.bots import bot_moves, bots_missing, bots_on
from ansible_collections.clawops.fleet.plugins.module_utils import _bot, _ports
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOD = {"name": "alpha", "version": "2026.9.6"}


def test_defaults_are_those_of_the_substrate():
    assert _bot.parse(GOOD, "docker_host").runtime == "container"
    assert _bot.parse(GOOD, "vm").runtime == "host"
    assert _bot.parse(GOOD, "docker_host").memory == 2 * 1024**3


@pytest.mark.parametrize("bad, word", [
    ({"name": "../etc"}, "../etc"),
    ({"name": "Alpha"}, "Alpha"),
    ({"name": "a" * 29}, "a" * 29),
    ({"port": 0}, "bot_port"),
    ({"port": 70000}, "bot_port"),
    ({"resources": {"memory": "2 Gb"}}, "2 Gb"),
    ({"resources": {"ram": "2Gi"}}, "ram"),
    ({"profile": "tablet"}, "tablet"),
    ({"profile": "desktop", "runtime": "host"}, "desktop"),
    ({"version": "latest"}, "latest"),
    ({"state": "sleeping"}, "sleeping"),
    ({"env": {"A B": "1"}}, "A B"),
    ({"api_keys": {"KEY": "two\nlines"}}, "bot_api_keys.KEY"),
])
def test_bad_input_names_itself(bad, word):
    with pytest.raises(FleetError) as caught:
        _bot.parse({**GOOD, **bad}, "docker_host")
    assert word in caught.value.result()["msg"]


def test_a_bad_secret_is_not_shown():
    with pytest.raises(FleetError) as caught:
        _bot.parse({**GOOD, "api_keys": {"KEY": "s3cret\n"}}, "docker_host")
    assert "s3cret" not in str(caught.value.result())


def test_names_are_unique():
    with pytest.raises(FleetError):
        _bot.parse_all([GOOD, GOOD], "docker_host")


def test_bots_on_picks_merges_and_refuses_typos():
    hosts = [{"inventory_hostname": "alpha", "bot_on": "alder", "bot_api_keys": {"A": "own"}},
             {"inventory_hostname": "bravo", "bot_on": "birch"}]
    found = bots_on(hosts, "alder", {"api_keys": {"A": "fleet", "B": "fleet"}})
    assert [bot["name"] for bot in found] == ["alpha"]
    assert found[0]["api_keys"] == {"A": "own", "B": "fleet"}
    assert found[0]["user"] == "bot-alpha"
    with pytest.raises(Exception, match="bot_memroy"):
        bots_on([{"inventory_hostname": "alpha", "bot_on": "alder", "bot_memroy": "1"}], "alder")
    with pytest.raises(Exception, match="alpha: bot_port: 0"):
        bots_on([{"inventory_hostname": "alpha", "bot_on": "alder", "bot_port": 0}], "alder")


def test_ports_are_sticky_lowest_free_and_never_shared(tmp_path):
    registry = str(tmp_path / "ports.sqlite")
    band = _ports.Band(100, 102)
    assert _ports.held(registry) == {}
    assert _ports.reserve({"a": None, "b": None}, band, registry) == {"a": 100, "b": 101}
    assert _ports.reserve({"b": None}, band, registry) == {"b": 101}
    _ports.release(["a"], registry)
    assert _ports.reserve({"c": None, "d": None}, band, registry) == {"c": 100, "d": 102}
    with pytest.raises(FleetError, match="100-102"):
        _ports.reserve({"e": None}, band, registry)
    with pytest.raises(FleetError, match="b holds it"):
        _ports.reserve({"e": 101}, band, registry)
    assert _ports.held(registry) == {"b": 101, "c": 100, "d": 102}


def test_moves_are_the_bots_whose_record_says_another_release():
    def slurped(name, record):
        return {"item": name, "content": base64.b64encode(json.dumps(record).encode()).decode()}

    bots = [{"name": "alpha", "version": "2026.9.6"}, {"name": "bravo", "version": "2026.9.6"}]
    moves = bot_moves(bots, [slurped("alpha", {"version": "2026.9.5"}), slurped("bravo", {"version": "2026.9.6"})])
    assert moves == {"forward": [{"name": "alpha", "version": "2026.9.6"}],
                     "back": [{"name": "alpha", "version": "2026.9.5"}]}


def test_the_release_stands_in_one_place():
    role = yaml.safe_load((ROOT / "roles/openclaw_artifact/defaults/main.yml").read_text())
    assert role["openclaw_artifact_versions"] == [_bot.RELEASE]
    assert f"version={_bot.RELEASE} " in (ROOT / "scripts/quickstart").read_text()


def test_a_bot_is_missing_where_it_has_neither_record_nor_data():
    bots = [{"name": name} for name in ("alpha", "bravo", "charlie")]
    files = [{"path": path} for path in ("/var/lib/clawops/instances/alpha.json", "/var/lib/clawops/bots/bravo/state",
                                         "/var/lib/clawops/bots/bravo", "/var/lib/clawops/bots/charlie")]
    assert bots_missing(bots, files) == ["charlie"]
