# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a bot becomes on a host: files, and when it counts as up."""

from __future__ import annotations

import json

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _bot
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw import artifact, health, host, render
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw.places import Places
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

KEY = "sk-planted-0123456789"


def bot(**values):
    return _bot.parse({"name": "alpha", "version": "2026.9.6", "api_keys": {"MODEL_KEY": KEY}, **values}, "docker_host")


def compose(**values):
    return render.compose(bot(**values), Places("alpha"), "home", 19100, "image:tag", (990, 990))


def test_the_container_has_least_privilege_and_loopback_only():
    service = compose()["services"]["gateway"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:19100:18789"]
    assert service["user"] == "990:990"
    assert service["mem_limit"] == service["memswap_limit"] == 2 * 1024**3


@pytest.mark.parametrize("runtime", ["container", "host"])
def test_no_secret_in_compose_unit_or_config(runtime):
    one = bot(runtime=runtime)
    texts = [json.dumps(render.config(one, 19100)),
             render.unit(one, Places("alpha"), render.Installation("/opt/x", "i"))]
    if runtime == "container":
        texts.append(json.dumps(compose()))
    assert not [text for text in texts if KEY in text]


def test_a_bot_on_the_host_runs_on_the_node_that_is_chosen(tmp_path):
    node = tmp_path / "24/bin/node"
    node.parent.mkdir(parents=True)
    node.touch()
    link = tmp_path / "node"
    link.symlink_to(node)
    one = bot(runtime="host")
    own = render.unit(one, Places("alpha"), render.Installation("/opt/x", None))
    assert "ExecStart=/opt/x/bin/node --env" in own and '"PATH=/opt/x/bin:/usr/local' in own
    other = render.unit(one, Places("alpha"), render.Installation("/opt/x", None, str(link)))
    assert f"ExecStart={node} --env" in other and f'"PATH={node.parent}:/opt/x/bin:/usr/local' in other
    assert "/opt/x/lib/node_modules/openclaw/openclaw.mjs gateway run" in other


def test_the_bind_is_always_written_and_the_operator_wins():
    assert render.config(bot(), 19100)["gateway"]["bind"] == "lan"
    assert render.config(bot(runtime="host"), 19100)["gateway"] == {
        "mode": "local", "bind": "loopback", "port": 19100,
        "auth": {"mode": "token", "token": "${OPENCLAW_GATEWAY_TOKEN}"}}
    assert render.config(bot(config={"gateway": {"mode": "remote"}}), 1)["gateway"]["mode"] == "remote"


def test_environment_files_come_back():
    values = {"A": "plain", "B": "with 'quotes' \"and\" # signs = too"}
    assert render.parse_env(render.env_text(values)) == values


def test_the_seed_bot_has_the_seed_places():
    places = Places("openclaw")
    assert (places.user, places.unit, places.project) == ("openclaw", "openclaw.service", "/opt/openclaw")
    assert places.state == "/home/openclaw/.openclaw"
    assert len(Places("a" * 28).bridge) <= 15


def test_node_is_the_newest_of_the_oldest_line():
    assert artifact.pick_node(["26.1.0", "24.9.0", "24.21.0", "24.22.0-rc.1"]) == "24.21.0"


@pytest.mark.parametrize("healthz, readyz, expected", [
    ('{"ok":true,"status":"live"}', '{"ready":true}', "ready"),
    ('{"ok":true}', '{"ready":false}', "live"),
    ("<html>the page that answers everything</html>", "<html></html>", "down"),
    ("", "", "down"),
])
def test_the_body_decides_about_health(healthz, readyz, expected):
    assert health.probe(1, lambda url: healthz if url.endswith("healthz") else readyz) == expected


def test_waiting_ends_at_once_when_the_unit_has_failed_and_hides_secrets():
    def run(argv, **_options):
        if argv[0] == "journalctl":
            return Finished(0, f"cannot use {KEY}", "")
        return Finished(0, "ActiveState=failed\nSubState=failed\nNRestarts=5\nExecMainStatus=78\n", "")

    with pytest.raises(FleetError) as caught:
        health.wait_ready(run, "openclaw@alpha.service", 19100, 600, [KEY], lambda _url: "", lambda _s: None)
    assert "78" in caught.value.message
    assert KEY not in caught.value.message and "(hidden)" in caught.value.message


def test_a_desktop_is_refused_rather_than_run_as_something_else():
    wanted = bot(profile="desktop")
    with pytest.raises(FleetError, match="desktop"):
        host.Host(lambda *_argv, **_options: Finished(0, "", ""), [wanted], host.Settings("home", {})).plan()
