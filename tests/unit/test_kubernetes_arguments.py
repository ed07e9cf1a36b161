# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the parameters of a module to one result, whatever happens in between."""

from __future__ import annotations

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import arguments
from fake_cluster import FakeCluster

BOT = {"name": "alpha", "version": "2026.9.6", "state": "stopped"}


class FakeModule:
    _diff = True

    def __init__(self, check_mode=False, **params):
        self.check_mode, self.warnings = check_mode, []
        defaults = {name: option.get("default") for name, option in arguments.FLEET.items()}
        self.params = {**defaults, "fleet": "home", "gateway_image": "gateway:1", **params}

    def warn(self, warning):
        self.warnings.append(warning)

    def exit_json(self, **values):
        self.result = values

    def fail_json(self, **values):
        self.result = {"failed": True, **values}


@pytest.fixture
def cluster(monkeypatch):
    made = FakeCluster()
    monkeypatch.setattr(arguments.Cluster, "of", lambda _options: made)
    return made


def run(*bots, **params):
    module = FakeModule(**params)
    arguments.manage(module, bots)
    return {**module.result, "warnings": module.warnings}


def test_one_result_for_each_bot(cluster):
    assert [bot["name"] for bot in run(BOT, wait=False)["bots"]] == ["alpha"]
    assert not run(BOT, wait=False)["changed"]
    assert run(BOT, {**BOT, "name": "bravo"}, wait=False, only=["bravo", "elsewhere"])["bots"][0]["name"] == "bravo"


@pytest.mark.parametrize("params, word", [
    ({"max_unavailable": 0}, "max_unavailable"), ({"allowed_destinations": ["10.0.0.1/8"]}, "10.0.0.1/8"),
    ({"band_first": 30101}, "30101-30199"),
])
def test_bad_parameters_are_refused_before_anything_is_asked(cluster, params, word):
    result = run(BOT, **params)
    assert result["failed"] and word in result["msg"] and cluster.calls == []


def test_a_bot_twice_is_refused(cluster):
    assert "once" in run(BOT, BOT)["msg"]


def test_a_namespace_that_is_not_there_yet_is_a_warning_in_check_mode_alone(cluster, monkeypatch):
    def missing(obj, dry_run=False, force=False):
        raise FleetError("not_found", 'the API server said 404: namespaces "claworc-gateway" not found')
    monkeypatch.setattr(cluster, "apply", missing)
    planned = run(BOT, check_mode=True)
    assert planned["changed"] and not planned["plan_complete"] and "claworc-gateway" in planned["warnings"][0]
    assert cluster.writes() == []
