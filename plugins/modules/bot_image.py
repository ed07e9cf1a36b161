#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_image
short_description: The images of bots in a cluster
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Builds the slim gateway image and the desktop image of an OpenClaw release from the distribution's packages
    and the archive of M(clawops.fleet.openclaw_artifact), and pushes them to a registry.
  - The desktop has systemd, two X displays by noVNC (a browser on port 6081, a terminal on port 6082), sshd
    (keys only), the gateway, and Python with pip, pipx, uv and poetry.
  - No image has a host key or a machine-id inside.
  - The tag is the release and the hash of what was ordered. An image that the registry has, or without a registry the
    engine, is left alone, and nothing needs to be fetched to know that.
extends_documentation_fragment:
  - clawops.fleet.attributes
requirements:
  - docker, mmdebstrap and zstd on the host that builds, and root there
  - a way to a Python package index for the desktop; pip's settings are taken from the environment
options:
  version:
    description: Release of OpenClaw.
    type: str
    required: true
  archive:
    description: The archive of the release on the host. It must be there when an image is to be built.
    type: path
    required: true
  profiles:
    description: Which images.
    type: list
    elements: str
    choices: [gateway, desktop]
    default: [gateway, desktop]
  registry:
    description:
      - Registry, and optionally a path in it, to push to with the credentials that C(docker login) left.
      - Empty leaves the images in the engine of the host.
    type: str
    default: ""
  suite:
    description: Suite of the distribution.
    type: str
    default: trixie
  sources:
    description: File of package sources on the host. By default the distribution's own mirrors.
    type: path
  packages:
    description: More packages of the distribution for the images, such as V(ffmpeg) or V(ffmpeg=7:7.1*).
    type: list
    elements: str
    default: []
  ca_certificates:
    description: PEM texts of certificate authorities that the bots are to trust.
    type: list
    elements: str
    default: []
  homebrew:
    description:
      - A release of Homebrew on the host (C(.tar.gz)). The desktop gets it in C(/opt/homebrew), to fill a volume with.
    type: path
  homebrew_sha256:
    description: Checksum of O(homebrew).
    type: str
  serial:
    description: Any word. Another word makes the images anew, with what the distribution has now.
    type: str
    default: ""
  cache:
    description: Directory on the host for the root file systems, which take the longest; made when missing.
    type: path
"""

EXAMPLES = r"""
- name: Build and push both images
  clawops.fleet.bot_image:
    version: 2026.9.6
    archive: ~/.cache/clawops-fleet/artifacts/openclaw-2026.9.6-linux-x64.tar.zst
    registry: registry.example.org/bots
"""

RETURN = r"""
images:
  description: Profile and name of each image.
  returned: success
  type: dict
  contains:
    gateway:
      description: The gateway image.
      type: str
      returned: when it was asked for
      sample: registry.example.org/bots/openclaw-gateway:2026.9.6-0123456789ab
    desktop:
      description: The desktop image.
      type: str
      returned: when it was asked for
      sample: registry.example.org/bots/openclaw-desktop:2026.9.6-0123456789ab
plan_complete:
  description: Whether everything could be observed; false only in check mode.
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
      sample: image registry.example.org/bots/openclaw-gateway:2026.9.6-0123456789ab
    action:
      description: The verb.
      type: str
      sample: create
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._openclaw.bot_image import PROFILES, BotImages, Order
from ..module_utils._plan import run
from ..module_utils._process import run as run_program


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "archive": {"type": "path", "required": True},
            "profiles": {"type": "list", "elements": "str", "choices": list(PROFILES), "default": list(PROFILES)},
            "registry": {"type": "str", "default": ""},
            "suite": {"type": "str", "default": "trixie"},
            "sources": {"type": "path"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "ca_certificates": {"type": "list", "elements": "str", "default": []},
            "homebrew": {"type": "path"},
            "homebrew_sha256": {"type": "str"},
            "serial": {"type": "str", "default": ""},
            "cache": {"type": "path"},
        },
        required_together=[("homebrew", "homebrew_sha256")],
        supports_check_mode=True,
    )
    lists = {name: tuple(module.params[name]) for name in ("profiles", "packages")}
    certificates = tuple(module.params.pop("ca_certificates"))
    try:
        images = BotImages(run_program, Order(certificates=certificates, **{**module.params, **lists}))
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, images.plan, images.apply, images.facts)


if __name__ == "__main__":
    main()
