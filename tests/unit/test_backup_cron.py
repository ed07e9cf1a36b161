# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Unattended backups: what the program does around Ansible, with a program in Ansible's place."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Plays Ansible: notes its arguments, does what the file "do" says, and writes the report that is there.
ANSIBLE = """#!/usr/bin/env python3
import json, os, pathlib, shutil, sys, time
here = pathlib.Path(__file__).parent
given = {}
for at, word in enumerate(sys.argv):
    if word == "--extra-vars":
        given.update(json.loads(pathlib.Path(sys.argv[at + 1][1:]).read_text()))
with open(here / "calls", "a") as calls:
    calls.write(json.dumps([sys.argv[1:], given, os.getcwd()]) + "\\n")
print("a word of Ansible")
if (here / "report").exists():
    shutil.copy(here / "report", given["fleet_report"])
if (here / "sleep").exists():
    time.sleep(float((here / "sleep").read_text()))
sys.exit(int((here / "code").read_text()) if (here / "code").exists() else 0)
"""
GOOD = {"bot": "alpha", "host": "alder", "ok": True, "snapshot": "0", "bytes": 2048, "bytes_added": 10, "duration": 1.5}
BAD = {"bot": "bravo", "host": "alder", "ok": False, "why": "no room"}


class World:
    def __init__(self, top):
        self.top = top
        self.put("ansible", ANSIBLE, 0o755)
        self.settings = {"inventory": "hosts.yml", "ansible": str(top / "ansible"), "directory": str(top),
                         "state": str(top / "state"), "log": str(top / "log"), "metrics": str(top / "backup.prom")}

    def put(self, name, text, mode=0o644):
        (self.top / name).write_text(text)
        (self.top / name).chmod(mode)

    def start(self, *words, **settings):
        self.put("config.json", json.dumps({**self.settings, **settings}))
        env = {key: value for key, value in os.environ.items() if key != "CREDENTIALS_DIRECTORY"}
        return subprocess.Popen([ROOT / "scripts/backup-cron", "--config", self.top / "config.json", *words], text=True,
                                env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *words, **settings):
        child = self.start(*words, **settings)
        out, err = child.communicate(timeout=60)
        assert not err
        return child.returncode, out.strip()

    def calls(self):
        return [json.loads(line) for line in (self.top / "calls").read_text().splitlines()]

    def until(self, name):
        for _attempt in range(200):
            if (self.top / name).exists():
                return
            time.sleep(0.05)
        raise AssertionError(name)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_run_says_one_line_and_leaves_log_and_metrics(world):
    world.put("report", json.dumps([GOOD]))
    code, line = world.run("backup", variables={"fleet_target": "alder"})
    assert code == 0 and line.startswith("backup ok: 1 bots, 2 KiB, 10 B added, ")
    argv, variables, where = world.calls()[0]
    assert argv[:2] == ["--inventory", "hosts.yml"] and argv[-1] == "clawops.fleet.backup"
    assert variables["fleet_target"] == "alder" and where == str(world.top)
    log = next((world.top / "log").iterdir())
    assert log.read_text() == "a word of Ansible\n" and log.stat().st_mode & 0o777 == 0o600
    metrics = (world.top / "backup.prom").read_text()
    assert 'clawops_backup_size_bytes{bot="alpha"} 2048\n' in metrics
    assert 'clawops_backup_run_success{verb="backup"} 1\n' in metrics
    assert re.search(r'clawops_backup_age_seconds{bot="alpha"} \d\n', metrics)
    assert (world.top / "backup.prom").stat().st_mode & 0o777 == 0o644


def test_a_failure_names_the_bots_and_keeps_what_was_known(world):
    world.put("report", json.dumps([GOOD, {**GOOD, "bot": "bravo"}]))
    world.run("backup")
    world.put("report", json.dumps([GOOD, BAD]))
    world.put("code", "2")
    code, line = world.run("backup")
    assert code == 1 and line.startswith("backup FAILED: 1 of 2 bots: bravo; Ansible ended with 2; 1 bots")
    metrics = (world.top / "backup.prom").read_text()
    assert 'clawops_backup_failed{bot="bravo"} 1\n' in metrics and 'clawops_backup_failed{bot="alpha"} 0\n' in metrics
    assert 'clawops_backup_last_success_timestamp_seconds{bot="bravo"}' in metrics
    assert 'clawops_backup_run_success{verb="backup"} 0\n' in metrics


def test_a_bot_that_is_no_more_leaves_the_metrics(world):
    world.put("report", json.dumps([GOOD, {**GOOD, "bot": "bravo"}]))
    world.run("backup")
    world.put("report", json.dumps([GOOD]))
    world.run("backup")
    assert "bravo" not in (world.top / "backup.prom").read_text()


def test_a_drill_is_remembered_by_bot(world):
    world.put("report", json.dumps([GOOD]))
    world.run("backup")
    world.put("report", json.dumps([{"bot": "alpha", "host": "alder", "ok": True}]))
    assert world.run("drill")[1].startswith("drill ok: 1 bots, ")
    metrics = (world.top / "backup.prom").read_text()
    assert re.search(r'clawops_backup_drill_age_seconds{bot="alpha"} \d\n', metrics) and "size_bytes" in metrics
    world.put("report", json.dumps([{"bot": "alpha", "host": "alder", "ok": False, "why": "damaged"}]))
    world.put("code", "2")
    assert "drill FAILED: 1 of 1 bots: alpha;" in world.run("drill")[1]
    metrics = (world.top / "backup.prom").read_text()
    assert 'clawops_backup_drill_failed{bot="alpha"} 1\n' in metrics and "drill_age_seconds" in metrics


def test_a_run_without_a_report_is_no_news_of_bots(world):
    world.put("report", json.dumps([GOOD]))
    world.run("backup")
    (world.top / "report").unlink()
    world.put("code", "4")
    assert world.run("backup")[1].startswith("backup FAILED: Ansible ended with 4; ")
    assert 'size_bytes{bot="alpha"}' in (world.top / "backup.prom").read_text()


def test_a_second_run_of_a_verb_ends_at_once_and_one_of_another_waits(world):
    world.put("sleep", "3")
    first = world.start("backup")
    world.until("calls")
    code, line = world.run("backup")
    assert code == 75 and "another run is going on" in line
    assert world.run("--wait", "0", "prune")[0] == 75
    assert world.run("--wait", "30", "prune")[0] == 0
    assert first.wait(30) == 0 and len(world.calls()) == 2
    first.communicate()


def test_ansible_holds_the_lock_when_the_program_is_killed(world):
    world.put("sleep", "3")
    first = world.start("backup")
    world.until("calls")
    first.kill()
    first.communicate()
    assert world.run("backup")[0] == 75
    time.sleep(3.5)
    (world.top / "sleep").unlink()
    assert world.run("backup")[0] == 0


@pytest.mark.parametrize("how", [{"timeout": 1}, {"verbs": {"backup": {"timeout": 1}}}])
def test_what_takes_too_long_is_ended(world, how):
    world.put("sleep", "60")
    began = time.monotonic()
    code, line = world.run("backup", **how)
    assert code == 124 and "took more than 1 s" in line and time.monotonic() - began < 20


def test_a_signal_ends_ansible_too(world):
    world.put("sleep", "60")
    child = world.start("backup")
    world.until("calls")
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 128 + signal.SIGTERM
    child.communicate()
    (world.top / "sleep").unlink()
    assert world.run("backup")[0] == 0


def test_old_logs_go(world):
    (world.top / "log").mkdir()
    for day in range(5):
        world.put(f"log/backup-2026010{day}T000000Z.log", "old")
    world.put("log/prune-20260101T000000Z.log", "other")
    world.run("backup", keep_logs=3)
    names = sorted(path.name for path in (world.top / "log").iterdir())
    assert len(names) == 4 and names[:2] == ["backup-20260103T000000Z.log", "backup-20260104T000000Z.log"]


def test_a_fresh_success_makes_another_run_needless(world):
    world.run("backup")
    assert world.run("--if-older", "1", "backup") == (0, "")
    assert world.run("--if-older", "0", "backup")[1]
    assert len(world.calls()) == 2


def test_quiet_speaks_on_failure_only(world):
    assert world.run("--quiet", "backup") == (0, "")
    world.put("code", "2")
    assert world.run("--quiet", "backup")[1]


def test_credentials_are_for_their_owner_alone(world):
    world.put("secret.json", '{"fleet_backup_password": "planted"}', 0o644)
    code, line = world.run("backup", credentials=str(world.top / "secret.json"))
    assert code == 2 and "chmod 600" in line
    (world.top / "secret.json").chmod(0o600)
    assert world.run("backup", credentials=str(world.top / "secret.json"))[0] == 0
    argv, variables, _where = world.calls()[0]
    assert variables["fleet_backup_password"] == "planted" and "planted" not in json.dumps(argv)
    shown = [path.read_text() for path in world.top.rglob("*") if path.is_file() and path.name not in (
        "secret.json", "calls")]
    assert not any("planted" in text for text in shown)


@pytest.mark.parametrize(("words", "settings"), [(["nonsense"], {}), (["backup"], {"inventory": ""}),
                                                 (["backup"], {"surprise": 1}), (["backup"], {"ansible": "/none"})])
def test_wrong_settings_are_named(world, words, settings):
    code, line = world.run(*words, **settings)
    assert code == 2 and "FAILED: " in line


def test_a_failure_is_told_by_every_way(world):
    got = []

    class Hear(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hear)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    world.put("sendmail", f"#!/bin/sh\ncat >{world.top}/mail\n", 0o755)
    world.put("hook", f"#!/bin/sh\ncat >{world.top}/hooked\n", 0o755)
    world.put("report", json.dumps([GOOD, BAD]))
    told = {"mail_to": "ops@example.org", "sendmail": str(world.top / "sendmail"), "hook": [str(world.top / "hook")],
            "webhook": f"http://127.0.0.1:{server.server_port}/"}
    world.run("backup", **told)
    assert not got and not (world.top / "mail").exists()
    world.put("code", "2")
    code, line = world.run("backup", **told)
    server.shutdown()
    assert code == 1 and "nobody was told" not in line
    assert got[0]["text"] == line and got[0]["report"][1]["why"] == "no room"
    assert "Subject: backup FAILED: 1 of 2" in (world.top / "mail").read_text()
    assert "bravo (alder): no room" in (world.top / "mail").read_text()
    assert json.loads((world.top / "hooked").read_text())["code"] == 2


def test_who_could_not_be_told_is_said(world):
    world.put("code", "2")
    code, line = world.run("backup", mail_to="x", sendmail="/none", webhook="file:///etc/passwd", hook=["/none"])
    assert code == 1 and line.endswith("nobody was told by mail_to: FileNotFoundError, webhook: ValueError, hook: "
                                       "FileNotFoundError")
