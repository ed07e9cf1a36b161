# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


def _listed(kind: str) -> str:
    """A list of bots, VMs or spaces with secrets of their own."""
    return f"""
options:
  {kind.lower()}s:
    description: The {kind}s.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the {kind}.
        type: str
        required: true
      access_key:
        description: Access key of this {kind}, instead of O(access_key).
        type: str
      secret_key:
        description: Secret key of this {kind}, instead of O(secret_key).
        type: str
      password:
        description: Password of this {kind}'s repository, instead of O(password).
        type: str
"""


CHOICE = """
      snapshot:
        description: Id of the snapshot or its beginning, or V(latest).
        type: str
        default: latest
      time:
        description: A point in time with its zone, such as V(2026-11-21T10:00:00+01:00). Of the snapshots that were
          taken until then the newest one is restored. V(latest) means no other limit.
        type: str
        default: latest
"""


def _chosen(what: str) -> str:
    """Which snapshot, and what it may replace."""
    return f"""{CHOICE[:-1]}
      overwrite:
        description: Replace {what} that are there.
        type: bool
        default: false
"""


class ModuleDocFragment:
    """Options of the backup modules."""

    STORE = r"""
options:
  endpoint:
    description: Address of the S3 service, such as V(https://s3.example.org:9000). Objects are addressed path-style.
    type: str
    required: true
  bucket:
    description: The bucket. The repository of a bot lies in it at C({fleet}/bots/{name}/), that of a VM at
      C({fleet}/vms/{name}/), that of a space at C({fleet}/spaces/{name}/).
    type: str
    required: true
  region:
    description: Region of the bucket.
    type: str
    default: us-east-1
  ca_cert:
    description: Path, on the managed host, of the PEM file with the authority that signed the endpoint's certificate,
      where that is not one that the host trusts anyway.
    type: path
  fleet:
    description: Name of the fleet.
    type: str
    required: true
"""

    BOTS, VMS, SPACES = map(_listed, ("bot", "VM", "space"))

    SAFETY = r"""
options:
  safety:
    description:
      - Where data get replaced, take a snapshot of them first, when nothing runs any more, right before the switch.
        Nothing is replaced when it can't be taken.
      - It is restored by its id alone; V(latest) and times pass over it.
    type: bool
    default: true
  host:
    description: Name of this host or cluster in that snapshot. The default is that of the machine that this runs on.
    type: str
"""

    CLUSTER = r"""
options:
  kubeconfig:
    description:
      - Path of a kubeconfig, or its content as a mapping. Without it C(KUBECONFIG) counts, then C(~/.kube/config), and
        inside a pod its service account.
      - Can also be given by the environment variable E(K8S_AUTH_KUBECONFIG).
    type: raw
  context:
    description: The context to use. Can also be given by E(K8S_AUTH_CONTEXT).
    type: str
  namespace:
    description: Where bots of the profile V(desktop) live.
    type: str
    default: claworc
  gateway_namespace:
    description: Where bots of the profile V(gateway) live.
    type: str
    default: claworc-gateway
  image:
    description: The image of the Job, which needs restic, python3 and a shell. The default is the bot's own.
    type: str
requirements:
  - kubernetes >= 28
"""

    ENGINE = r"""
options:
  docker_host:
    description: Address of the engine, by default C(unix:///var/run/docker.sock).
    type: str
requirements:
  - docker >= 5.0.3 (Python)
"""

    LIBVIRT = r"""
options:
  libvirt_uri:
    description: Address of libvirt on the managed host.
    type: str
    default: qemu:///system
requirements:
  - python3-libvirt >= 9.0
  - python3-libnbd
  - qemu-utils
  - libvirt-clients
"""


# Options and suboptions of fragments are not merged: those that ask more go on from the common text.
ModuleDocFragment.DOCUMENTATION = ModuleDocFragment.STORE + r"""
  access_key:
    description: Access key for those that have none of their own.
    type: str
  secret_key:
    description: Secret key for those that have none of their own.
    type: str
  password:
    description: Password of the repositories of those that have none of their own. An empty one is refused.
      Without it nobody can ever read the backups.
    type: str
  restic:
    description: The restic program, 0.17.1 or newer.
    type: path
    default: restic
  timeout:
    description: Seconds that one step of one bot, VM or space may take.
    type: int
    default: 14400
  parallel:
    description: How many are worked on at a time.
    type: int
    default: 2
requirements:
  - restic >= 0.17.1
  - boto3
"""
ModuleDocFragment.SOURCES = ModuleDocFragment.BOTS + r"""
      version:
        description: Release of OpenClaw that the bot runs, for the manifest.
        type: str
        default: ""
      paths:
        description: What to back up. No path may contain another one.
        type: list
        elements: dict
        required: true
        suboptions:
          role:
            description: What the directory is to the bot; restoring goes by it.
            type: str
            required: true
            choices: [config, state, workspace, browser, homebrew, volume]
          path:
            description: The directory, absolute.
            type: str
            required: true
          exclude:
            description: Patterns below the directory to leave out, in restic's notation. What can be made again is
              left out of a V(state) when nothing is said.
            type: list
            elements: str
"""
ModuleDocFragment.TARGETS = ModuleDocFragment.BOTS + _chosen("data") + r"""
      units:
        description: The bot's systemd units; while one is active nothing is restored.
          The default is the unit of a bot of that name.
        type: list
        elements: str
      paths:
        description: What to restore and where it goes.
        type: list
        elements: dict
        required: true
        suboptions:
          role:
            description: What the directory is to the bot.
            type: str
            required: true
            choices: [config, state, workspace, browser, homebrew, volume]
          path:
            description: The directory on this host, absolute.
            type: str
            required: true
          owner:
            description: User of this host that takes the place of the owner in the snapshot.
            type: str
            required: true
          group:
            description: Group of this host; the default is the user's own.
            type: str
"""


def _either(more: str = "") -> str:
    """Bots, VMs or spaces, each with these suboptions besides."""
    three = (ModuleDocFragment.BOTS, ModuleDocFragment.VMS, ModuleDocFragment.SPACES)
    return "\noptions:\n" + "".join(fragment[len("\noptions:\n"):] + more for fragment in three).replace(
        "    required: true\n    suboptions", "    suboptions")


ModuleDocFragment.EITHER = _either()
ModuleDocFragment.FOLDERS = "\noptions:\n" + "".join(
    fragment[len("\noptions:\n"):] + CHOICE[1:] + r"""
      into:
        description: Folder of this host, absolute, for this one alone. It is made, and holds a directory for each role.
          It must be empty, or be what this module made of the same snapshot. A link is refused, and a folder that
          others than root may write to or exchange.
        type: str
        required: true
      roles:
        description: What to take out of the snapshot. The default is all that it holds.
        type: list
        elements: str
        choices: [config, state, workspace, browser, homebrew, volume]
      owner:
        description: User of this host, by name or number, who gets what is not root's.
        type: str
        default: root
      group:
        description: Group of this host. The default is the user's own; for a number the same number.
        type: str
"""[1:] for fragment in (ModuleDocFragment.BOTS, ModuleDocFragment.SPACES)).replace(
        "    required: true\n    suboptions", "    suboptions")
ModuleDocFragment.PASSWORDS = _either(r"""
      previous_password:
        description: The old one, instead of O(previous_password). Without any the new one has to open the repository.
        type: str
"""[1:])
ModuleDocFragment.POD_SOURCES = ModuleDocFragment.BOTS + r"""
      exclude:
        description: Patterns below the state to leave out, in restic's notation. What can be made again is left out
          when nothing is said.
        type: list
        elements: str
"""
ModuleDocFragment.SPACE_SOURCES = ModuleDocFragment.SPACES + r"""
      exclude:
        description: Patterns below the workspace to leave out, in restic's notation.
        type: list
        elements: str
        default: []
"""
ModuleDocFragment.POD_TARGETS = ModuleDocFragment.BOTS + _chosen("data")
ModuleDocFragment.SPACE_TARGETS = ModuleDocFragment.SPACES + _chosen("data")
ModuleDocFragment.VM_TARGETS = ModuleDocFragment.VMS + _chosen("disks")
