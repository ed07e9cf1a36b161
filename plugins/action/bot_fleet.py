# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of bot_fleet: where the module would run on the controller anyway, its work is done here.

Packing the module and starting another Python for it takes longer than all of its work.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import os
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import env_fallback, remove_values
from ansible.plugins.action.normal import ActionModule as OrdinaryAction

from ..module_utils._kubernetes.arguments import fleet_options, manage

Values = dict[str, t.Any]


class Here:
    """What manage() needs of an AnsibleModule."""

    def __init__(self, params: Values, check_mode: bool, diff: bool) -> None:
        self.params, self.check_mode, self._diff = params, check_mode, diff
        self.warnings: list[str] = []
        self.result: Values = {}

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def exit_json(self, **values: t.Any) -> None:
        self.result = {**values, **({"warnings": self.warnings} if self.warnings else {})}

    def fail_json(self, msg: str, **values: t.Any) -> None:
        self.exit_json(failed=True, msg=msg, **values)


class ActionModule(OrdinaryAction):  # type: ignore[misc]
    def run(self, tmp: str | None = None, task_vars: Values | None = None) -> Values:
        if self._is_here():
            checked = ArgumentSpecValidator(fleet_options(env_fallback)).validate(plain(self._task.args))
            if not checked.error_messages:  # else the module says what is wrong
                here = Here(checked.validated_parameters, self._task.check_mode, self._task.diff)
                with _folder(self._loader.get_basedir()):
                    manage(here, here.params["bots"])
                return t.cast(Values, remove_values(here.result, checked._no_log_values))
        return t.cast(Values, super().run(tmp, task_vars))

    def _is_here(self) -> bool:
        """Whether a module would be a child of this process that differs from it in nothing."""
        return (self._connection.transport == "local" and not self._connection.become
                and not any(self._task.environment or []) and not self._task.async_val
                and importlib.util.find_spec("kubernetes") is not None)  # its own Python may have what this one lacks


@contextlib.contextmanager
def _folder(path: str) -> t.Iterator[None]:
    """Where modules run on the controller, so that relative paths mean the same."""
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def plain(value: t.Any) -> t.Any:
    """As a module gets it: without tags, and decrypted."""
    if isinstance(value, t.Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(one) for one in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return value.isoformat() if isinstance(value, datetime.date) else str(value)
