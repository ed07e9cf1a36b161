# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import textwrap


class ModuleDocFragment:
    """Options of the modules for guests."""

    DOCUMENTATION = r"""
options:
  libvirt_uri:
    description: Address of libvirt, by default C(qemu:///system).
    type: str
  actor:
    description: Who acts, for the audit log. By default the user who became root, or else the login user.
    type: str
  job:
    description: The controller's job, for the audit log.
    type: str
requirements:
  - libvirt-python >= 9.0 (Python)
"""

    FLEET = r"""
options:
  fleet:
    description: Name of the fleet.
    type: str
    required: true
  share_paths:
    description: Directories of the VM host below which guests may share directories. By default there are none.
    type: list
    elements: path
    default: []
  purge_data:
    description: Delete the disks, the firmware's variables, the TPM and the host key of guests that are or become
      absent, the files of disks that a guest no longer has, and base images that nothing stands on then.
    type: bool
    default: false
  timeout:
    description: Seconds for an orderly shutdown before the power is cut, for the restart of libvirt, and for whoever
      else works on a guest.
    type: int
    default: 120
"""

    DESCRIPTION = r"""
options:
  name:
    description: Name of the guest and of its domain, 1 to 28 of C(a-z0-9-).
    type: str
    required: true
  state:
    description:
      - V(running) defines and starts it, V(stopped) defines it and shuts it down.
      - V(paused) stops its processors.
      - V(restarted) restarts it each time.
      - V(absent) removes the domain and keeps its disks unless O(purge_data).
    type: str
    choices: [running, stopped, paused, restarted, absent]
    default: running
  generation:
    description: Which installation this is, by default 1. With a higher one cloud-init sets up the guest anew, on the
      disk that it has.
    type: int
  image:
    description: The cloud image (qcow2) that the root disk begins as. It is needed unless the guest is V(absent), and
      kept on the VM host by its digest.
    type: dict
    suboptions:
      path:
        description: A file of the VM host.
        type: path
      url:
        description: Where it is fetched from, by HTTP or HTTPS. It needs C(sha256).
        type: str
      sha256:
        description: Its SHA-256 digest.
        type: str
  memory:
    description: Memory, such as V(2Gi), which is the default.
    type: str
  memory_max:
    description: The most memory that the guest can get while it runs. By default that is C(memory).
    type: str
  cpus:
    description: Processors, by default 2.
    type: int
  cpus_max:
    description: The most processors that the guest can get while it runs, which takes KVM. By default these are
      C(cpus).
    type: int
  disk:
    description: Size of the root disk, by default V(10Gi). It grows, also while the guest runs, and never shrinks.
    type: str
  disk_mode:
    description: Whether a new root disk stands on the base image (V(overlay), the default), or is a V(full) copy.
    type: str
    choices: [overlay, full]
  firmware:
    description: Firmware, by default V(bios).
    type: str
    choices: [bios, uefi]
  secure_boot:
    description: Start only what is signed with keys that the firmware knows. It needs the firmware V(uefi).
    type: bool
  tpm:
    description: Whether it has a TPM 2.0, which C(swtpm) emulates.
    type: bool
  machine:
    description: Machine type of QEMU, by default V(q35). A guest keeps the version that it was made with.
    type: str
  cpu:
    description: Its processor.
    type: dict
    suboptions:
      mode:
        description: By default V(host-model) where there is KVM, and V(maximum) elsewhere.
        type: str
        choices: [host-model, host-passthrough, maximum]
      disable:
        description: Features that it doesn't have. By default that is C(cx16) without KVM, of which recent kernels die
          there, and none with it.
        type: list
        elements: str
  networks:
    description: Its network cards. By default it has one on the network V(clawops).
    type: list
    elements: dict
    suboptions:
      network:
        description: Network of libvirt, by default V(clawops), which the role C(vm_host) makes.
        type: str
      bridge:
        description: Bridge of the VM host, instead of a network.
        type: str
      address:
        description: Fixed address with prefix, such as V(192.168.213.7/24). By default it is from DHCP.
        type: str
      gateway:
        description: Gateway of a fixed address.
        type: str
      nameservers:
        description: Name servers.
        type: list
        elements: str
  disks:
    description: Extra disks, empty at first. In the guest they are C(/dev/disk/by-id/virtio-NAME). One that is no
      longer listed is detached, and its file is kept unless O(purge_data).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name, 1 to 20 of C(a-z0-9-).
        type: str
        required: true
      size:
        description: Size, such as V(20Gi). It grows and never shrinks.
        type: str
        required: true
  shares:
    description: Directories of the VM host that the guest sees by virtiofs.
    type: list
    elements: dict
    suboptions:
      path:
        description: The directory, below one of O(share_paths).
        type: path
        required: true
      tag:
        description: What the guest mounts it by. By default the last part of the path.
        type: str
      mount:
        description: Where the guest mounts it. By default C(/mnt/TAG).
        type: str
      read_only:
        description: Whether the guest can only read it, which takes libvirt 11.0. By default it can write.
        type: bool
  devices:
    description: PCI devices of the VM host that are handed to the guest, such as V(0000:01:00.0).
    type: list
    elements: str
  autostart:
    description: Whether it starts with its host, as long as it is to run. By default it does.
    type: bool
  user:
    description: Who logs in by SSH, and may become root.
    type: dict
    suboptions:
      name:
        description: Name of the user, by default V(clawops).
        type: str
      authorized_keys:
        description: Public SSH keys.
        type: list
        elements: str
  user_data:
    description: More for cloud-init at the first boot, as in C(#cloud-config). It may hold secrets.
    type: dict
  wait:
    description: Until when the task waits after a start.
    type: dict
    suboptions:
      until:
        description: V(cloud_init), the default, is the end of the first boot. V(ssh) is an answer with the pinned host
          key, V(address) an address that answers.
        type: str
        choices: [none, address, ssh, cloud_init]
      timeout:
        description: Seconds, by default 600.
        type: int
  restart:
    description: Shut the guest down and start it where a change takes that. Without it such changes are written to its
      definition, and RV(restart_required) says that they wait.
    type: bool
    default: false
"""


# The same, in a list.
ModuleDocFragment.VMS = r"""
options:
  vms:
    description: The guests of this host.
    type: list
    elements: dict
    required: true
    suboptions:
""" + textwrap.indent(ModuleDocFragment.DESCRIPTION.partition("options:\n")[2], "    ")
