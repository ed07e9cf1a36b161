# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The AnsibleModule of modules that take secrets within lists and mappings."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):  # type: ignore[misc]
    """Leaves what it was called with out of the host's log.

    AnsibleModule masks secrets in a list or mapping there only as long as they have no quote, backslash or line break.
    """

    def _log_invocation(self) -> None:
        self.log("Invoked")
