#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_artifact
short_description: The OpenClaw installation as one archive
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Makes one archive with OpenClaw, the Node.js that this release demands (its C(engines.node)), npm and pnpm,
    all from the npm registry.
  - Hosts, images and guests unpack it and need no registry of their own.
  - An archive that is there for the same release is left alone.
extends_documentation_fragment:
  - clawops.fleet.attributes
requirements:
  - npm, tar and zstd on the machine that builds
options:
  version:
    description: Release of OpenClaw, exact.
    type: str
    required: true
  dest:
    description: Directory of the archives; made when missing.
    type: path
    required: true
  node_version:
    description: Release of Node.js. By default the newest of the oldest major line that C(engines.node) accepts.
    type: str
  platform:
    description: Where the installation is to run.
    type: str
    choices: [linux-x64, linux-arm64]
    default: linux-x64
  npm:
    description: The npm client, a name on the path or a path.
    type: str
    default: npm
"""

EXAMPLES = r"""
- name: Make the archive on the controller
  clawops.fleet.openclaw_artifact:
    version: 2026.9.6
    dest: ~/.cache/clawops-fleet/artifacts
  delegate_to: localhost
"""

RETURN = r"""
artifact:
  description: The archive. In check mode, before it exists, only RV(artifact.path).
  returned: success
  type: dict
  contains:
    path:
      description: Path of the archive.
      type: str
      returned: always
      sample: /root/.cache/clawops-fleet/artifacts/openclaw-2026.9.6-linux-x64.tar.zst
    openclaw:
      description: Release of OpenClaw.
      type: str
      returned: when it exists
      sample: 2026.9.6
    node:
      description: Release of Node.js.
      type: str
      returned: when it exists
      sample: 24.21.0
    platform:
      description: Where it runs.
      type: str
      returned: when it exists
      sample: linux-x64
    sha256:
      description: Checksum of the archive.
      type: str
      returned: when it exists
      sample: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    size:
      description: Bytes of the archive.
      type: int
      returned: when it exists
      sample: 190000000
plan_complete:
  description: Whether everything could be observed.
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
      sample: artefact openclaw-2026.9.6-linux-x64.tar.zst
    action:
      description: The verb.
      type: str
      sample: create
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._openclaw.artifact import Artifact
from ..module_utils._plan import Plan, run
from ..module_utils._process import run as run_program


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "node_version": {"type": "str"},
            "platform": {"type": "str", "choices": ["linux-x64", "linux-arm64"], "default": "linux-x64"},
            "npm": {"type": "str", "default": "npm"},
        },
        supports_check_mode=True,
    )
    p = module.params
    artifact = Artifact(run_program, p["npm"], p["dest"], p["version"], p["platform"], p["node_version"])

    def apply(plan: Plan) -> dict:
        artifact.build()
        return artifact.facts()

    run(module, artifact.plan, apply, artifact.facts)


if __name__ == "__main__":
    main()
