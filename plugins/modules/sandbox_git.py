#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_git
short_description: A git repository in a sandboxed space
version_added: 0.1.0
description:
  - Declares a repository in a space of this Docker host. It is there, cloned from O(url). It is on O(branch). With
    O(commit_message) its work is committed. With O(push=true) its commits are on the server.
  - The state of the working tree is always returned. With O(dest) alone nothing else is done.
  - git runs in the space, as its user. O(token) never gets to it. A second program in the space, as another user whose
    memory nobody else there can read, stands between git and the server. It adds the token to what goes to O(url), for
    the declared step and branch only, and follows no redirection. So the token is in no argument vector, environment,
    configuration, log or file, and no configuration, hook or program of the space can send it elsewhere.
  - Hooks of the repository are not run.
  - A space that sleeps is woken, except in check mode.
options:
  space:
    description: Name of the space.
    type: str
    required: true
  dest:
    description: Directory of the working tree, below C(/workspace). A relative path is below C(/workspace).
    type: str
    required: true
  url:
    description:
      - Address of the repository, without credentials. It is cloned if there is nothing at O(dest), beside and then
        renamed. A repository with another address at O(dest) is refused.
      - Needed to clone and to push.
    type: str
  branch:
    description: The branch that is checked out. If it isn't there, it begins where the working tree is. By default the
      one that is checked out, or that of the server.
    type: str
  commit_message:
    description: Commits everything that is new, changed or gone and not ignored, with this message. Without it nothing
      is committed.
    type: str
  push:
    description: Whether the branch has to be the same on the server. A push that would drop commits there fails.
    type: bool
    default: false
  author_name:
    description: Name of who commits, by default that of the space.
    type: str
  author_email:
    description: Mail address of who commits.
    type: str
  token:
    description: What opens the repository over C(https). It is kept nowhere. Over C(http) it is sent, with a warning.
    type: str
  username:
    description: The user name that goes with O(token). Most servers look only at the token.
    type: str
    default: x-access-token
  timeout:
    description: Seconds for each step.
    type: int
    default: 600
notes:
  - The image of the space needs git 2.39 or newer, and for O(token) C(python3) with its C(ssl) module and, for
    C(https), C(ca-certificates). A space that runs as root with a writable root gets no token.
  - In a space whose workspace is a C(worktree) the repository can't be written. The state of the working tree is
    returned, but O(commit_message) and O(push) fail; commits are made on the host.
  - A submodule is neither cloned nor pushed.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.space
seealso:
  - module: clawops.fleet.sandbox_exec
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: The project is there
  clawops.fleet.sandbox_git:
    space: scratch
    url: https://git.example.org/home/project.git
    dest: project
    token: "{{ project_token }}"

- name: What was done in it is on the server
  clawops.fleet.sandbox_git:
    space: scratch
    url: https://git.example.org/home/project.git
    dest: project
    branch: space/scratch
    commit_message: Work of the night
    push: true
    token: "{{ project_token }}"
"""

RETURN = r"""
dest:
  description: The directory as it was given.
  returned: success
  type: str
  sample: project
status:
  description: State of the working tree. It is null in check mode before the clone.
  returned: success
  type: dict
  contains:
    head:
      description: The commit, null before the first one.
      type: str
    branch:
      description: The branch, null if none is checked out.
      type: str
      sample: main
    upstream:
      description: The branch that it follows.
      type: str
      sample: origin/main
    ahead:
      description: Commits that the branch it follows has not, as far as is known here.
      type: int
    behind:
      description: Commits that only the branch it follows has, as far as is known here.
      type: int
    clean:
      description: Whether there is nothing to commit.
      type: bool
    changes:
      description: What there is to commit.
      type: list
      elements: dict
      contains:
        path:
          description: The file.
          type: str
        status:
          description: Two letters as git writes them.
          type: str
          sample: .M
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: The directory, V(branch), V(commit), or the branch on the server.
      type: str
    action:
      description: V(create) or V(update).
      type: str
plan_complete:
  description: False in check mode if the space sleeps or isn't there yet.
  returned: success
  type: bool
"""

from ..module_utils._docker.git_task import GIT_OPTIONS, manage_git
from ..module_utils._module import QuietModule


def main() -> None:
    module = QuietModule(argument_spec=GIT_OPTIONS, supports_check_mode=True)
    manage_git(module)


if __name__ == "__main__":
    main()
