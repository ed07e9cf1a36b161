# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a bot becomes on a host: files, and when it counts as up."""

from __future__ import annotations

import functools
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


def test_on_an_emulated_processor_nothing_is_compiled_at_run_time():
    installation = render.Installation("/opt/x", "image")
    slow, fast = (render.unit(bot(runtime="host"), Places("alpha"), installation, emulated)
                  for emulated in (True, False))
    assert "ExecStart=/opt/x/bin/node --no-opt --no-maglev --no-sparkplug --env-file=" in slow
    assert "ExecStart=/opt/x/bin/node --env-file=" in fast
    project = render.compose(bot(), Places("alpha"), "home", 19100, "image", (990, 990), emulated=True)
    service = project["services"]["gateway"]
    assert service["entrypoint"][:2] == ["node", "--no-opt"] and service["command"] == ["gateway", "run"]
    assert "entrypoint" not in compose()["services"]["gateway"]


@pytest.mark.parametrize(("said", "emulated"), [("qemu", True), ("kvm", False), ("none", False), (None, False)])
def test_an_emulated_processor_is_told_from_one_that_is_not(said, emulated):
    def run(argv):
        if said is None:
            raise FleetError("no_program", "none", "")
        assert argv == ["systemd-detect-virt", "--vm"]
        return Finished(0, f"{said}\n", "")

    assert health.is_emulated(run) is emulated
    made = host.Host(run, [], host.Settings("home", {}, timeout=60))
    assert made._patience(60) == (600 if emulated else 60)


def test_compiled_code_outlives_a_restart_and_is_no_part_of_the_state():
    unit = render.unit(bot(runtime="host"), Places("alpha"), render.Installation("/opt/x", None))
    assert "CacheDirectory=clawops/bots/alpha\n" in unit
    assert "BindPaths=/var/cache/clawops/bots/alpha:/tmp/node-compile-cache\n" in unit


@pytest.mark.parametrize(("seconds", "hopeless"), [(9, True), (61, False)])
def test_a_start_that_fails_slowly_is_tried_again(seconds, hopeless):
    """A unit that starts anew each so many seconds, and is ready with its sixth start."""
    now, starts = [0.0], [0]

    def run(argv, **_options):
        if argv[0] == "journalctl":
            return Finished(0, "", "")
        starts[0] = int(now[0] // seconds)
        return Finished(0, f"ActiveState=activating\nNRestarts={starts[0]}\n", "")

    def get(_url):
        return '{"ok": true, "ready": true}' if now[0] >= 5 * seconds else ""

    def sleep(more):
        now[0] += more

    wait = functools.partial(health.wait_ready, run, "openclaw@alpha.service", 19100, 600, (), get, sleep,
                             lambda: now[0])
    if hopeless:
        with pytest.raises(FleetError, match="is down"):
            wait()
        assert starts == [3]
    else:
        wait()
        assert now[0] >= 5 * seconds


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


# Whose bot it is

def found(name="alpha", fleet="home", kind="bot", **values):
    marks = {"clawops.fleet/managed": "true", "clawops.fleet/fleet": fleet, f"clawops.fleet/{kind}": name}
    return host.Found(**{"record": {"labels": marks, "version": "2026.9.6"}, "config": None, "credentials": None,
                         "compose": None, "passwd": None, "unit": "[Unit]", "active": "inactive", "enabled": False,
                         "has_state": True, **values})


@pytest.fixture
def on_host(monkeypatch):
    """A host with these bots; what is planned for those of a list."""
    def plan(there, *bots, **settings):
        monkeypatch.setattr(host, "instances", lambda: {name: one.record for name, one in there.items() if one.record})
        monkeypatch.setattr(host, "marked", dict)
        monkeypatch.setattr(host.ports, "held", dict)
        given = host.Settings("home", settings.pop("installations", {}), **settings)
        one = host.Host(lambda *_argv, **_options: Finished(0, "", ""), list(bots), given)
        monkeypatch.setattr(one, "_find", lambda places: there[places.name])
        return [(change.subject, change.action) for change in one.plan().changes]
    return plan


@pytest.mark.parametrize("there", [found(record=None), found("other"), found(fleet="other"), found(kind="space")])
@pytest.mark.parametrize("state", ["started", "absent"])
def test_a_bot_of_somebody_else_is_named_and_untouched(on_host, monkeypatch, tmp_path, there, state):
    installation = render.Installation(str(tmp_path), "i")
    (tmp_path / "bin").mkdir()
    for path in (tmp_path / "manifest.json", tmp_path / "bin/node"):
        path.touch()
    monkeypatch.setattr(host.pwd, "getpwnam", lambda _name: type("User", (), {"pw_uid": 990, "pw_gid": 990}))
    with pytest.raises(FleetError) as caught:
        on_host({"alpha": there}, bot(state=state, runtime="host"), installations={"2026.9.6": installation})
    assert caught.value.code == "foreign_object" and "openclaw@alpha.service" in caught.value.message


def test_prune_takes_the_bots_of_this_fleet_alone(on_host):
    there = {"alpha": found(), "bravo": found("bravo"), "carol": found("carol", fleet="other")}
    assert on_host(there, bot(state="absent")) == [("openclaw@alpha.service", "delete")]
    assert on_host(there, bot(state="absent"), prune=True) == [
        ("openclaw@alpha.service", "delete"), ("openclaw@bravo.service", "delete")]


def test_data_go_only_when_it_is_said(on_host):
    there = {"alpha": found()}
    assert (Places("alpha").state, "delete") not in on_host(there, bot(state="absent"))
    assert (Places("alpha").state, "delete") in on_host(there, bot(state="absent"), purge_data=True)
    with pytest.raises(FleetError, match="/var/lib/clawops/bots/alpha"):
        on_host({"alpha": found(record=None, unit=None)}, bot(state="absent"), purge_data=True)


def test_another_release_takes_an_upgrade(on_host, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    for path in (tmp_path / "manifest.json", tmp_path / "bin/node"):
        path.touch()
    monkeypatch.setattr(host.pwd, "getpwnam", lambda _name: type("User", (), {"pw_uid": 990, "pw_gid": 990}))
    with pytest.raises(FleetError) as caught:
        on_host({"alpha": found()}, bot(version="2026.9.7", runtime="host"),
                installations={"2026.9.7": render.Installation(str(tmp_path), "i")})
    assert caught.value.code == "upgrade_needed"
