# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of ufw_host: a change that is on trial is confirmed over a new connection, at once.

Within one task, because in a play of many hosts the next task begins when the slowest host has ended this one.
"""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

MARGIN = 15  # what going back itself takes
PAUSE = 1


class ActionModule(ActionBase):  # type: ignore[misc]
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        result.update(self._execute_module(module_name="clawops.fleet.ufw_host", task_vars=task_vars))
        if result.get("connection"):
            result["connection"]["password"] = self._has_password()
        if result.get("failed") or not result.get("trial"):
            return result
        confirmed = self._confirm(result["trial"], result["confirm_timeout"], task_vars)
        if confirmed.get("failed"):
            result.update(failed=True, msg=confirmed["msg"], failure=confirmed.get("failure", {}))
        return result

    def _has_password(self) -> bool:
        try:
            return bool(self._connection.get_option("password"))
        except KeyError:  # a connection that knows no passwords
            return False

    def _confirm(self, trial: str, seconds: int, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        """Tries until the host has certainly gone back, so that what it says then is the truth."""
        arguments = {"trial": trial, "new_connection": self._connection.transport != "local"}
        deadline, refusal = time.monotonic() + seconds + MARGIN, ""
        while time.monotonic() <= deadline:
            try:
                self._connection.reset()
                confirmed: dict[str, t.Any] = self._execute_module(
                    module_name="clawops.fleet.firewall_confirmation", module_args=arguments, task_vars=task_vars)
            except AnsibleConnectionFailure as error:
                refusal = str(error)
                time.sleep(PAUSE)
            else:
                if confirmed.get("failed") and refusal:
                    confirmed["msg"] += f" What the last new connection under it met: {refusal}"
                return confirmed
        return {"failed": True, "msg": f"Since the firewall was changed, the host can't be reached, also after the "
                                       f"{seconds} s in which it takes the change back: {refusal}"}
