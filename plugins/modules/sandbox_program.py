#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_program
short_description: The program clawops-space of a host with spaces
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Installs C(/usr/local/sbin/clawops-space), by which people, the sleep worker, the connection plugin and agents work
    with spaces, from the same code as the modules have.
  - Each version stands in a directory of its own in C(/usr/local/lib/clawops), and the former one is kept, so that
    an update does not touch what runs.
extends_documentation_fragment:
  - clawops.fleet.attributes
requirements:
  - root on the host; the program needs python3-docker
options: {}
"""

EXAMPLES = r"""
- name: Install the program
  clawops.fleet.sandbox_program:
"""

RETURN = r"""
program:
  description: Path of the program.
  returned: success
  type: str
  sample: /usr/local/sbin/clawops-space
version:
  description: Hash of what it is made of.
  returned: success
  type: str
  sample: 0123456789ab
plan_complete:
  description: Whether everything could be observed; always true.
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
      sample: /usr/local/lib/clawops/fleet
    action:
      description: The verb.
      type: str
      sample: update
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker import cli, program
from ..module_utils._plan import run

NEEDED = cli


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    installed = program.Program(program.sources())
    run(module, installed.plan, installed.apply, installed.facts)


if __name__ == "__main__":
    main()
