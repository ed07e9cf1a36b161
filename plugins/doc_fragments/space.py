# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import textwrap


class ModuleDocFragment:
    """Options of the modules for spaces."""

    DOCUMENTATION = r"""
options:
  docker_host:
    description: Address of the engine, by default C(unix:///var/run/docker.sock).
    type: str
  actor:
    description: Who acts, for the audit log. By default the user who became root, or else the login user.
    type: str
  job:
    description: The controller's job, for the audit log.
    type: str
requirements:
  - docker >= 5.0.3 (Python)
"""

    FLEET = r"""
options:
  fleet:
    description: Name of the fleet.
    type: str
    required: true
  templates:
    description: Templates of this fleet by name, with the keys of a space apart from its name, its state and secrets.
    type: dict
    default: {}
  allowed_paths:
    description: Directories of the host below which a space may get one as its workspace. By default there are none.
    type: list
    elements: path
    default: []
  purge_data:
    description: Delete the volumes and worktrees of spaces that are or become absent, too.
    type: bool
    default: false
  adopt:
    description: Take over containers, volumes and networks that have the names of a space's and are not managed yet, or
      by another fleet. A container and a network are replaced for that, a volume is kept.
    type: bool
    default: false
  require_guard:
    description: Refuse spaces with a network on a host without the table C(inet clawops) of the role C(network_guard),
      which keeps them from the host and its neighbours.
    type: bool
    default: true
  timeout:
    description: Seconds for an answer of the engine, for its restart, and for whoever else works on a space.
    type: int
    default: 60
"""

    DESCRIPTION = r"""
options:
  name:
    description: Name of the space, 1 to 28 of C(a-z0-9-).
    type: str
    required: true
  template:
    description: The template that says what isn't said here, V(default), V(gpu), V(offline), V(lan) or one of
      O(templates). By default V(default).
    type: str
  state:
    description:
      - V(created) makes the space and leaves it running or not, as it is.
      - V(started) counts a space that went to sleep by itself as started.
      - V(paused) and V(stopped) stop its processes, V(stopped) for good.
      - V(absent) keeps its volume unless O(purge_data).
    type: str
    choices: [created, started, paused, stopped, absent]
    default: started
  image:
    description: Image, as a local reference C(name:tag) or by its digest, C(name@sha256:...), which is pulled when
      it is not there. By default C(clawops-sandbox:latest), which the role C(sandbox_host) makes.
    type: str
  env:
    description: Environment variables that are no secrets.
    type: dict
  secret_env:
    description: Secret environment variables. They are a file in the space, C(/run/secrets/environment), and stand in
      no description of the container.
    type: dict
  resources:
    description: Upper limits. There is no swap on top of the memory.
    type: dict
    suboptions:
      memory:
        description: Memory, such as V(2Gi), which is the default.
        type: str
      cpus:
        description: Processors, such as V(1), which is the default, or V(500m).
        type: str
      pids:
        description: Processes and threads, by default 512.
        type: int
      tmp:
        description: Size of C(/tmp), by default V(512Mi). It counts as memory.
        type: str
      run:
        description: Size of C(/run), by default V(16Mi).
        type: str
  network:
    description: What the space reaches. Each has a bridge of its own, so that spaces don't reach each other.
    type: dict
    suboptions:
      mode:
        description: V(internet), which is the default, V(lan) for private networks as well, or V(none). The role
          C(network_guard) enforces it.
        type: str
        choices: [none, internet, lan]
      block:
        description: Further networks that are out of reach.
        type: list
        elements: str
  user:
    description: Who its processes are, C(UID) or C(UID:GID). By default C(1001:1001).
    type: str
  writable_root:
    description: Whether files outside of C(/workspace), C(/tmp) and C(/run) can be written. By default they can't.
    type: bool
  gpu:
    description: V(false), V(all), or how many.
    type: str
  repository:
    description: What is cloned into the volume once, at the space's first start.
    type: dict
    suboptions:
      url:
        description: Its address, without credentials.
        type: str
      branch:
        description: The branch, by default that of the repository.
        type: str
      dest:
        description: Directory below C(/workspace), by default the last part of the address.
        type: str
  repository_token:
    description: Token for the clone of the repository. It is kept nowhere.
    type: str
  workspace:
    description: Where the files at C(/workspace) are from.
    type: dict
    suboptions:
      strategy:
        description:
          - V(volume), the default, is a volume of the engine.
          - V(snapshot) is a volume, too, into which a directory of the host is copied once.
          - V(bind) is a directory of the host.
          - V(worktree) is a worktree of a git repository of the host, on a branch of its own. The space can read the
            repository, and commits are made on the host.
        type: str
        choices: [volume, bind, snapshot, worktree]
      path:
        description: The directory of the host, below one of O(allowed_paths).
        type: path
      branch:
        description: Branch of a V(worktree), by default C(space/NAME).
        type: str
  idle:
    description: When the space goes to sleep.
    type: dict
    suboptions:
      after:
        description: Seconds without work, by default 600. With V(0) it never sleeps.
        type: int
      action:
        description: How it sleeps, by default V(pause).
        type: str
        choices: [pause, stop]
  restart:
    description: When the engine starts the space again, by default V(unless-stopped).
    type: str
    choices: ['no', on-failure, unless-stopped, always]
  recreate:
    description: Replace a running container where a change takes a new one. Processes end, and what was written outside
      of C(/workspace) goes. A container that has nothing to lose is replaced without it.
    type: bool
    default: false
"""


# The same, in a list.
ModuleDocFragment.SPACES = r"""
options:
  spaces:
    description: The spaces of this host.
    type: list
    elements: dict
    required: true
    suboptions:
""" + textwrap.indent(ModuleDocFragment.DESCRIPTION.partition("options:\n")[2], "    ")
