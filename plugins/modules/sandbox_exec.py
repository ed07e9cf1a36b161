#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_exec
short_description: Run a program in a sandboxed space
version_added: 0.1.0
description:
  - Runs a program in a space of this Docker host, as M(ansible.builtin.command) does on a host. A space that sleeps is
    woken, and does not sleep again before the program has ended.
  - When the time is over, the program is killed with everything that it began, also what became a daemon, left its
    session or cleaned its environment.
  - What is recorded in the audit log is the program with its arguments, but neither input, output nor environment.
    Secrets belong in O(stdin) or in the secret variables of the space, never in O(argv) or O(shell).
options:
  space:
    description: Name of the space.
    type: str
    required: true
  argv:
    description: The program and its arguments. They pass no shell.
    type: list
    elements: str
  shell:
    description: A line for O(executable), instead of O(argv).
    type: str
  executable:
    description: The shell that gets O(shell).
    type: str
    default: /bin/sh
  stdin:
    description: What the program reads.
    type: str
  stdin_add_newline:
    description: Whether a newline is added to O(stdin).
    type: bool
    default: true
  strip_empty_ends:
    description: Whether newlines at the end of the output are left out.
    type: bool
    default: true
  env:
    description: Variables for this program. They are in no description of the container.
    type: dict
    default: {}
  secret_env:
    description: Whether the program gets the secret variables of the space, too.
    type: bool
    default: true
  workdir:
    description: Directory in the space, by default that of its image.
    type: str
  user:
    description: Who runs the program, by default the space's user.
    type: str
  timeout:
    description: Seconds after which the program and all that it began are killed, and the module fails. By default it
      has all time.
    type: int
  output_limit:
    description: Bytes that are kept of the output, and as many of the error output. What comes after is read, so that
      the program can go on, and dropped.
    type: int
    default: 1048576
  creates:
    description: A path in the space. The program is not run if it exists.
    type: str
  removes:
    description: A path in the space. The program is run only if it exists.
    type: str
attributes:
  check_mode:
    support: partial
    details:
      - Without O(creates) and O(removes) the module is skipped in check mode.
      - Check mode wakes no space. When a space sleeps or isn't there yet, O(creates) and O(removes) can't be looked at.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - With O(creates) or O(removes).
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.space
seealso:
  - plugin: clawops.fleet.space
    plugin_type: connection
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: Install what the project needs, once
  clawops.fleet.sandbox_exec:
    space: scratch
    argv: [npm, ci]
    workdir: /workspace/project
    creates: /workspace/project/node_modules
    timeout: 900

- name: Run the tests
  clawops.fleet.sandbox_exec:
    space: scratch
    shell: make test 2>&1 | tee test.log
    workdir: /workspace/project
    timeout: 600
  register: tests
  changed_when: false
"""

RETURN = r"""
cmd:
  description: What was run.
  returned: always
  type: raw
  sample: [npm, ci]
rc:
  description: The exit code. It is 0 if nothing had to be run, and 137 if the program was killed.
  returned: always
  type: int
  sample: 0
stdout:
  description: The output.
  returned: always
  type: str
stderr:
  description: The error output.
  returned: always
  type: str
truncated:
  description: Whether there was more output than O(output_limit).
  returned: always
  type: bool
timed_out:
  description: Whether the time was over.
  returned: always
  type: bool
killed:
  description: How many processes were killed then.
  returned: always
  type: int
  sample: 0
start:
  description: When the program was begun.
  returned: when it was run
  type: str
end:
  description: When the program had ended.
  returned: when it was run
  type: str
delta:
  description: How long it took.
  returned: when it was run
  type: str
plan_complete:
  description: False in check mode if the space sleeps or isn't there yet.
  returned: always
  type: bool
"""

from ..module_utils._docker.tasks import EXEC_OPTIONS, manage_exec
from ..module_utils._module import QuietModule


def main() -> None:
    module = QuietModule(
        argument_spec=EXEC_OPTIONS,
        required_one_of=[["argv", "shell"]],
        mutually_exclusive=[["argv", "shell"]],
        supports_check_mode=True,
    )
    manage_exec(module)


if __name__ == "__main__":
    main()
