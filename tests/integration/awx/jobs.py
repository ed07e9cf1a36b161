# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Starts job templates as AWX does: with ansible-runner, in a directory of its own, from nothing of the user's.

The home is empty and new for each job, neither the project nor the collections can be written, secrets come by
credentials and answers by a survey, and what is left of a job are its artifacts.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

from . import rules

# Mounts directories over themselves, read-only and for this process alone, then becomes the program.
READ_ONLY = """
for place in $PLACES; do mount --bind "$place" "$place" && mount -o remount,bind,ro "$place"; done || exit 97
unset PLACES
exec "$@"
"""


class Job:
    """What AWX would show of a job."""

    def __init__(self, code: int, artifacts: pathlib.Path) -> None:
        self.code, self.artifacts = code, artifacts
        self.stdout = (artifacts / "stdout").read_text() if (artifacts / "stdout").exists() else ""
        events = [json.loads(path.read_text()) for path in artifacts.glob("job_events/*.json")]
        ends = [event["event_data"] for event in events if event["event"] == "playbook_on_stats"]
        self.results = ends[-1].get("artifact_data", {}) if ends else {}
        self.changed = sum(ends[-1]["changed"].values()) if ends else None

    def everything(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in self.artifacts.rglob("*") if path.is_file())


class Awx:
    """The API's objects, and a place for jobs."""

    def __init__(self, api, place, project, collections, key) -> None:
        self.api, self.place, self.project, self.collections, self.key = api, place, project, collections, key
        self.secrets: dict[str, dict[str, str]] = {}
        self.inventories: dict[str, str] = {}
        self.count = 0

    def fill(self, credential, **inputs):
        """Types secrets into a credential."""
        self.secrets[self.api.one("credentials", credential)["name"]] = inputs

    def environment(self, home, **more):
        return {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.defpath}:/usr/sbin:/sbin", "HOME": str(home),
                "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "ANSIBLE_COLLECTIONS_PATH": str(self.collections), **more}

    def call(self, argv, env, **options):
        places = f"{self.project} {self.collections}"
        return subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh", *argv],
                              env={**env, "PLACES": places}, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, **options)

    def inventory(self, source):
        """Reads an inventory of the project once, as an inventory update does, in a home of its own."""
        if source not in self.inventories:
            home = self.place / f"home-{len(self.inventories)}-inventory"
            home.mkdir()
            argv = ["ansible-inventory", "-i", str(self.project / source), "--list", "--export"]
            done = self.call(argv, self.environment(home))
            assert done.returncode == 0, done.stderr
            self.inventories[source] = done.stdout
        return self.inventories[source]

    def launch(self, name, source="inventory/hosts.yml", check=False, **answers):
        template = self.api.one("job_templates", name)
        survey = self.api.surveys[template["id"]]
        problems = rules.answer_problems(survey, answers)
        assert not problems, problems
        self.count += 1
        private, home = self.place / f"job-{self.count}", self.place / f"home-{self.count}"
        for folder in (private / "env", private / "inventory", home):
            folder.mkdir(parents=True)
        (private / "project").symlink_to(self.project)
        script = private / "inventory/hosts"
        script.write_text(f"#!/usr/bin/env python3\nprint({self.inventory(source)!r})\n")
        script.chmod(0o700)
        variables = {**rules.answered(survey, answers), "awx_job_id": self.count, "awx_user_name": "operator"}
        (private / "env/extravars").write_text(rules.unsafe(variables))
        env, argv = self.credentials(template, private)
        (private / "env/envvars").write_text(json.dumps(self.environment(home, **env)))
        (private / "env/cmdline").write_text(" ".join([*argv, "--check", "--diff"] if check else argv))
        artifacts = self.place / "artifacts"
        runner = ["ansible-runner", "run", str(private), "--playbook", template["playbook"], "--ident", str(self.count),
                  "--artifact-dir", str(artifacts), "--quiet"]
        done = self.call(runner, self.environment(home), timeout=1500)
        shutil.rmtree(home)
        job = Job(done.returncode, artifacts / str(self.count))
        shutil.rmtree(private)
        return job

    def credentials(self, template, private):
        """Environment and arguments of a job."""
        environment, argv, number = {}, [], 0

        def write(text):
            nonlocal number
            number += 1
            path = private / f"env/file{number}"
            path.write_text(text)
            path.chmod(0o600)
            return str(path)

        for credential in self.api.credentials(template):
            kind = self.api.by_id("credential_types", credential["credential_type"])
            if kind["name"] == "Machine":
                (private / "env/ssh_key").write_text(self.key)
                continue
            inputs = self.secrets.get(credential["name"], {})
            assert set(inputs) >= set(kind["inputs"]["required"]), f"{credential['name']} is to be filled in"
            env, variables = rules.inject(kind, inputs, write)
            environment.update(env)
            if variables:
                argv += ["-e", f"@{write(rules.unsafe(variables))}"]
        return environment, argv
