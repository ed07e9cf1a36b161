#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_image
short_description: The container image of an OpenClaw release, built on the host
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Builds an image of a base that is made from the distribution's packages,
    and the unpacked artefact of M(clawops.fleet.openclaw_artifact).
  - The tag is the hash of what goes in, so an image that is there is left alone.
    Nothing is pulled, unless O(base) is in a registry.
extends_documentation_fragment:
  - clawops.fleet.attributes
requirements:
  - docker and, without O(base), mmdebstrap on the host
options:
  prefix:
    description: Directory on the host where the artefact was unpacked.
    type: path
    required: true
  base:
    description: An image to build on instead, local or from a registry. It needs glibc and CA certificates.
    type: str
  suite:
    description: Suite of the distribution that the base is made of.
    type: str
    default: trixie
  sources:
    description: File of package sources on the host for the base. By default the distribution's own mirrors.
    type: path
"""

EXAMPLES = r"""
- name: Build the image
  clawops.fleet.openclaw_image:
    prefix: /opt/clawops/openclaw/2026.9.6
"""

RETURN = r"""
image:
  description: Tag of the image.
  returned: success
  type: str
  sample: clawops/openclaw:0123456789abcdef
base:
  description: Tag of the image it is built on.
  returned: success
  type: str
  sample: clawops/base:trixie-0123456789ab
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
      sample: openclaw@alpha.service
    action:
      description: The verb.
      type: str
      sample: create
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._openclaw.image import Image
from ..module_utils._plan import Plan, run
from ..module_utils._process import run as run_program


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "base": {"type": "str"},
            "suite": {"type": "str", "default": "trixie"},
            "sources": {"type": "path"},
        },
        supports_check_mode=True,
    )
    p = module.params
    image = Image(run_program, p["prefix"], p["base"], p["suite"], p["sources"])

    def apply(plan: Plan) -> dict:
        image.build()
        return image.facts()

    run(module, image.plan, apply, image.facts)


if __name__ == "__main__":
    main()
