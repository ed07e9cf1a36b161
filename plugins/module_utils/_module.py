# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The AnsibleModule of modules that take secrets within lists and mappings."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

_HIDDEN = "(hidden)"
#: A shorter word is as likely part of any message.
_LEAST_SECRET = 4


class QuietModule(AnsibleModule):  # type: ignore[misc]
    """Leaves what it was called with out of the host's log.

    AnsibleModule masks secrets in a list or mapping there only as long as they have no quote, backslash or line break.
    """

    def _log_invocation(self) -> None:
        self.log("Invoked")


class DiscreetModule(QuietModule):
    """Takes user_data, a mapping of any content, and returns nothing of it.

    AnsibleModule would mask every word of it in the results: with a 1 among them no address is left whole.
    """

    params: dict[str, t.Any]
    no_log_values: set[str]

    def exit_json(self, **kwargs: t.Any) -> None:
        self._forget(self.no_log_values)
        super().exit_json(**kwargs)

    def fail_json(self, msg: str, **kwargs: t.Any) -> None:
        """What a guest said of its failure may have a secret in it."""
        self._forget({value for value in self.no_log_values if len(value) < _LEAST_SECRET})
        super().fail_json(msg, **kwargs)

    def _forget(self, words: set[str]) -> None:
        self.params = _without(self.params, "user_data")
        self.no_log_values = self.no_log_values - words


def _without(value: t.Any, key: str) -> t.Any:
    if isinstance(value, dict):
        return {name: _HIDDEN if name == key and one else _without(one, key) for name, one in value.items()}
    return [_without(one, key) for one in value] if isinstance(value, list) else value
