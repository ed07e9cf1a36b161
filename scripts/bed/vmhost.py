# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Managed hosts for guests: systemd containers like dockerhost's, in which the role vm_host installs libvirt and QEMU.

A guest runs without KVM. It yields to the rest of the machine. The cloud image is at /srv/cloudimage on each host.
"""

from __future__ import annotations

from . import cloudimage, dockerhost, engine, net
from .job import Job

INSTANCES = ["oak", "maple"]
DEFAULT = INSTANCES[:1]
SUITE = "trixie"
# What the role vm_host installs: in the host's package cache, not installed.
FETCHED = """qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-clients python3-libvirt dnsmasq-base ovmf swtpm
    swtpm-tools virtiofsd iptables"""
DOCKERFILE = f"""FROM {{base}}
RUN apt-get -q update && apt-get -qy -d install --no-install-recommends {' '.join(FETCHED.split())}
"""
IMAGES = "/srv/cloudimage"
WEIGHT = 512  # of 1024: the engine's own share is all that its containers have together


def image_path() -> str:
    """The cloud image, on a host."""
    return f"{IMAGES}/{cloudimage.NAME}"


def up(job: Job, host: str) -> None:
    """The host, with systemd settled and SSH answering."""
    tag = engine.build_image(job, "vmhost", DOCKERFILE.format(base=dockerhost.image(job, SUITE)))
    extra = ["--device=/dev/net/tun", f"--cpu-shares={WEIGHT}", "-v", f"{cloudimage.folder()}:{IMAGES}:ro"]
    dockerhost.start(job, host, dockerhost.options(host, tag, "/var/lib/clawops", extra))
    engine.forget_images("vmhost")


def down(_job: Job, host: str) -> None:
    """No host, and nothing of what was on it."""
    ident = engine.inspect("container", net.container(host), "{{.Id}}")
    engine.discard(net.container(host), net.container(host))
    engine.remove_cgroups([ident] if ident else [])


status = dockerhost.status
