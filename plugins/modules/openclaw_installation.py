#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_installation
short_description: An unpacked OpenClaw release on a host
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Unpacks an archive of M(clawops.fleet.openclaw_artifact) whole or not at all.
  - An installation that is there is left alone, and needs no archive.
extends_documentation_fragment:
  - clawops.fleet.attributes
requirements:
  - tar and zstd on the host
options:
  src:
    description: The archive, on the host.
    type: path
    required: true
  dest:
    description: Directory of the installation.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Unpack OpenClaw
  clawops.fleet.openclaw_installation:
    src: /var/cache/clawops/openclaw-2026.9.6-linux-x64.tar.zst
    dest: /opt/clawops/openclaw/2026.9.6
"""

RETURN = r"""
installation:
  description: The installation.
  returned: success
  type: dict
  contains:
    prefix:
      description: Its directory; programs are in C(bin) below it.
      type: str
      sample: /opt/clawops/openclaw/2026.9.6
    openclaw:
      description: Release of OpenClaw.
      type: str
      returned: when it exists
      sample: 2026.9.6
    node:
      description: Release of Node.js.
      type: str
      returned: when it exists
      sample: 24.21.0
    platform:
      description: Where it runs.
      type: str
      returned: when it exists
      sample: linux-x64
plan_complete:
  description: Whether everything could be observed.
  returned: success
  type: bool
  sample: true
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What it concerns.
      type: str
      sample: /opt/clawops/openclaw/2026.9.6
    action:
      description: The verb.
      type: str
      sample: create
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._openclaw.artifact import Installation
from ..module_utils._plan import Plan, run
from ..module_utils._process import run as run_program


def main() -> None:
    module = AnsibleModule(
        argument_spec={"src": {"type": "path", "required": True}, "dest": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    installation = Installation(run_program, module.params["src"], module.params["dest"])

    def apply(plan: Plan) -> dict:
        installation.unpack()
        return installation.facts()

    run(module, installation.plan, apply, installation.facts)


if __name__ == "__main__":
    main()
