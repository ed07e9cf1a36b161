# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: audit
type: notification
short_description: Records on the controller what the modules of this collection changed
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Appends one line of JSON for each task of a clawops.fleet module that changed something or failed,
    with the time, the host, the module, its actions, who ran the playbook and from which job.
  - Neither options nor results of a task are recorded, only the actions that a module reports, which hold no secrets.
    Of a task with C(no_log) it is the module, the host and the outcome.
  - Nothing is recorded in check mode. Hosts keep an audit log of their own about spaces; this one is about playbooks.
  - Several playbooks may write to one file. Rotate it by renaming; lines are never lost by that.
requirements:
  - to be enabled, by C(callbacks_enabled = clawops.fleet.audit) in ansible.cfg
options:
  path:
    description:
      - File to append to; it and its directory are made when missing.
      - In an execution environment whose files are gone after the job, name a mounted directory.
    type: path
    default: "{{ ANSIBLE_HOME ~ '/clawops-audit.jsonl' }}"
    env:
      - name: CLAWOPS_AUDIT_LOG
    ini:
      - section: clawops_audit
        key: path
  actor:
    description: Who runs the playbook. By default the user that AWX names in its extra variables, else the login user.
    type: str
    env:
      - name: CLAWOPS_ACTOR
    ini:
      - section: clawops_audit
        key: actor
  job:
    description: The job that the playbook belongs to. Default is the number that the extra variables of AWX have.
    type: str
    env:
      - name: CLAWOPS_JOB
    ini:
      - section: clawops_audit
        key: job
"""

EXAMPLES = r"""
enable: |
  # ansible.cfg
  [defaults]
  callbacks_enabled = clawops.fleet.audit
  [clawops_audit]
  path = /var/log/clawops/playbooks.jsonl
"""

import typing as t

from ansible.plugins.callback import CallbackBase

from ..module_utils import _audit
from ..module_utils._errors import FleetError

COLLECTION = "clawops.fleet."


class CallbackModule(CallbackBase):
    """Writes with the same code as the hosts do."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "clawops.fleet.audit"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **options: t.Any) -> None:
        super().__init__(*args, **options)
        self.playbook = ""
        self.origin = _audit.Origin("")

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        self.playbook = playbook._file_name

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        extra = play.get_variable_manager().extra_vars

        def said(option: str, *names: str) -> str | None:
            return self.get_option(option) or next((str(extra[name]) for name in names if extra.get(name)), None)

        self.origin = _audit.Origin.of(said("actor", "awx_user_name", "tower_user_name"),
                                       said("job", "awx_job_id", "tower_job_id"))

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._whole(result, "ok")

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._whole(result, "failed")

    def v2_runner_item_on_ok(self, result: t.Any) -> None:
        self._record(result, "ok")

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        self._record(result, "failed")

    def _whole(self, result: t.Any, outcome: str) -> None:
        # The items of a loop were recorded one by one.
        if "results" not in result._result or not result._task.loop:
            self._record(result, outcome)

    def _record(self, result: t.Any, outcome: str) -> None:
        task, values = result._task, result._result
        module = task.resolved_action or task.action
        if not module.startswith(COLLECTION) or task.check_mode or (outcome == "ok" and not values.get("changed")):
            return
        hidden = task.no_log or values.get("_ansible_no_log")
        fields: dict[str, t.Any] = {"host": result._host.get_name(), "playbook": self.playbook, "outcome": outcome}
        if not hidden:
            fields.update(task=task.get_name(), actions=values.get("actions") or [])
        if outcome == "failed" and not hidden:
            fields["error"] = (values.get("failure") or {}).get("code") or "failed"
        entry = _audit.line("playbook.change", module, self.origin, _audit.now(), **fields)
        try:
            _audit.append([entry], self.get_option("path"))
        except FleetError as error:
            self._display.warning(error.result()["msg"])
