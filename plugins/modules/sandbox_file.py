#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_file
short_description: Files of a sandboxed space
version_added: 0.1.0
description:
  - Puts a file into a space of this Docker host, gets one out, removes one, or lists a directory. Files may be of any
    size and content.
  - The space's own user reads and writes, inside of the space. Neither C(..) nor a link leads out of C(/workspace) and
    C(/tmp), and nothing of the host is opened by a path that the space can change.
  - A file is written beside and renamed, so that its name never stands for half of it. A link at O(path) is replaced,
    not followed.
  - A space that sleeps is woken, except in check mode.
options:
  space:
    description: Name of the space.
    type: str
    required: true
  path:
    description: The file or directory in the space, below C(/workspace) or C(/tmp). A relative path is below
      C(/workspace).
    type: str
    required: true
  state:
    description:
      - V(present) puts what O(content) or O(src) have into the file, and makes missing directories.
      - V(absent) removes the file. A directory is refused.
      - V(fetched) gets the file, to O(dest).
      - V(listed) returns what is in the directory.
    type: str
    choices: [present, absent, fetched, listed]
    default: present
  content:
    description: What shall be in the file.
    type: str
  src:
    description: The file whose content shall be in the file, on the controller, or on the Docker host with
      O(on_host=true). On the controller it is looked for in C(files) as by M(ansible.builtin.copy), and decrypted.
    type: path
  dest:
    description: The file that gets the content, on the controller, or on the Docker host with O(on_host=true).
    type: path
  on_host:
    description: Whether O(src) and O(dest) are on the Docker host.
    type: bool
    default: false
  checksum:
    description:
      - SHA-256 of the content that is at hand outside of the space. Nothing is transferred if the space has the same.
      - It is found out by itself, unless the module is called by another program.
    type: str
  mode:
    description: Permissions of what is written, such as V('0644'). By default those that the file in the space has, or
      V(0644). A file that is fetched gets V(0600).
    type: raw
  recurse:
    description: Whether V(listed) looks into directories, too.
    type: bool
    default: false
notes:
  - A file belongs to the space's user, who can't give it away.
  - The image of the space needs C(python3).
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.space
seealso:
  - module: clawops.fleet.sandbox_exec
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: A data set for the space
  clawops.fleet.sandbox_file:
    space: scratch
    path: data/set.parquet
    src: set.parquet

- name: What came out of it
  clawops.fleet.sandbox_file:
    space: scratch
    path: data/report.html
    state: fetched
    dest: reports/scratch.html

- name: What there is
  clawops.fleet.sandbox_file:
    space: scratch
    path: data
    state: listed
  register: data
"""

RETURN = r"""
path:
  description: The path as it was given.
  returned: success
  type: str
  sample: data/set.parquet
sha256:
  description: SHA-256 of the content.
  returned: when O(state) is V(present) or V(fetched)
  type: str
size:
  description: Size of the content.
  returned: when O(state) is V(present) or V(fetched)
  type: int
  sample: 104857600
mode:
  description: Permissions of the file in the space.
  returned: when O(state) is V(present) or V(fetched)
  type: str
  sample: '0644'
entries:
  description: What is in the directory, 10000 entries at most.
  returned: when O(state) is V(listed)
  type: list
  elements: dict
  contains:
    path:
      description: Path below the directory.
      type: str
      sample: set.parquet
    kind:
      description: V(file), V(directory), V(link) or V(other).
      type: str
      sample: file
    size:
      description: Size in bytes.
      type: int
    mode:
      description: Permissions.
      type: str
      sample: '0644'
    modified:
      description: When it was changed last, in seconds since 1970.
      type: int
    uid:
      description: Number of its owner.
      type: int
    gid:
      description: Number of its group.
      type: int
    target:
      description: Where a link leads.
      type: str
complete:
  description: Whether these are all entries.
  returned: when O(state) is V(listed)
  type: bool
transfer:
  description: Whether the content still has to be handed over, because only O(checksum) was given.
  returned: success
  type: bool
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: The file.
      type: str
    action:
      description: V(create), V(update) or V(delete).
      type: str
plan_complete:
  description: False in check mode if the space sleeps or isn't there yet.
  returned: success
  type: bool
"""

from ..module_utils._docker.file_task import FILE_OPTIONS, manage_file
from ..module_utils._module import QuietModule


def main() -> None:
    module = QuietModule(
        argument_spec=FILE_OPTIONS,
        mutually_exclusive=[["content", "src"]],
        supports_check_mode=True,
    )
    manage_file(module)


if __name__ == "__main__":
    main()
