#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_image
short_description: The container image of spaces, built on the host
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Builds an image of the distribution's packages with Python, Node.js, git and common tools, for the user C(sandbox)
    with the ids 1001, whose home is C(/workspace). All of it works with a read-only root.
  - The shell writes its history with times to C(/workspace/.bash_history), and a login shell reads the secret
    variables of the space. Caches and what npm and pip install are in the workspace.
  - The tag is the hash of what goes in, so an image that is there is left alone. The tag C(clawops-sandbox:latest)
    is what spaces have by default, and follows. Then former images and their bases go that no container has.
  - It trusts what the host trusts by C(/usr/local/share/ca-certificates).
extends_documentation_fragment:
  - clawops.fleet.attributes
requirements:
  - docker and mmdebstrap on the host, and root there
options:
  suite:
    description: Suite of the distribution.
    type: str
    default: trixie
  sources:
    description: File of package sources on the host. By default the distribution's own mirrors.
    type: path
  packages:
    description: More packages of the distribution, such as V(build-essential).
    type: list
    elements: str
    default: []
  ca_certificates:
    description: PEM texts of more certificate authorities to trust.
    type: list
    elements: str
    default: []
  serial:
    description: Any word. Another word makes the image anew, with what the distribution has now.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Build the image of spaces, with a compiler
  clawops.fleet.sandbox_image:
    packages: [build-essential]
"""

RETURN = r"""
image:
  description: Tag of the image.
  returned: success
  type: str
  sample: clawops-sandbox:trixie-0123456789ab
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
      sample: image clawops-sandbox:latest
    action:
      description: The verb.
      type: str
      sample: update
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker.sandbox_image import SandboxImage
from ..module_utils._errors import FleetError
from ..module_utils._plan import run
from ..module_utils._process import run as run_program


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "suite": {"type": "str", "default": "trixie"},
            "sources": {"type": "path"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "ca_certificates": {"type": "list", "elements": "str", "default": []},
            "serial": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    p = module.params
    try:
        image = SandboxImage(run_program, p["suite"], p["sources"], p["packages"], p["ca_certificates"], p["serial"])
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, image.plan, image.apply, image.facts)


if __name__ == "__main__":
    main()
