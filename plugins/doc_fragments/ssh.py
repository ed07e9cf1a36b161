# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import typing as t

import yaml
from ansible.plugins.connection import ssh


def own(value: t.Any) -> t.Any:
    """Without the versions of Ansible that brought an option, which would be taken for versions of this collection."""
    if isinstance(value, dict):
        return {key: own(part) for key, part in value.items() if not key.startswith("version_added")}
    return [own(part) for part in value] if isinstance(value, list) else value


class ModuleDocFragment:
    """The options of the SSH connection, as the installed Ansible has them."""

    # With a type, because the checks of Ansible take an untyped one for a literal string.
    DOCUMENTATION: str = yaml.safe_dump({"options": own(yaml.safe_load(ssh.DOCUMENTATION)["options"])})
