#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_drill_record
short_description: What became of drills, written beside the backups
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Writes what became of the drill of each bot and space as JSON into the bucket, at C({fleet}/drills/bots/{name}.json)
    and C({fleet}/drills/spaces/{name}.json), with the time of the bucket, the last one that passed beside the last one.
  - No names of files and no words of a conversation are written.
extends_documentation_fragment:
  - clawops.fleet.attributes
attributes:
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - Each call tells of drills of now.
options:
  endpoint:
    description: Address of the S3 service, such as V(https://s3.example.org:9000). Objects are addressed path-style.
    type: str
    required: true
  bucket:
    description: The bucket.
    type: str
    required: true
  region:
    description: Region of the bucket.
    type: str
    default: us-east-1
  ca_cert:
    description: Path of the PEM file with the authority that signed the endpoint's certificate.
    type: path
  fleet:
    description: Name of the fleet.
    type: str
    required: true
  access_key:
    description: Access key that may write there. Those of single bots may not.
    type: str
    required: true
  secret_key:
    description: Its secret key.
    type: str
    required: true
  results:
    description: What became of each, as the filter P(clawops.fleet.drill_rows#filter) makes it.
    type: list
    elements: dict
    required: true
requirements:
  - boto3
"""

EXAMPLES = r"""
- name: Write down what became of the drills
  clawops.fleet.backup_drill_record:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_prune_access_key }}"
    secret_key: "{{ fleet_backup_prune_secret_key }}"
    results: "{{ ['alpha'] | clawops.fleet.drill_rows('alder', drill_result) }}"
"""

RETURN = r"""
keys:
  description: The objects. None in check mode.
  returned: success
  type: list
  elements: str
  sample: [home/drills/bots/alpha.json]
"""

import typing as t

from ..module_utils._backup import proof
from ..module_utils._backup.bucket import connect
from ..module_utils._backup.model import Store
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule


def record(params: t.Mapping[str, t.Any], check_mode: bool) -> list[str]:
    store = Store(params["endpoint"].rstrip("/"), params["bucket"], params["fleet"], params["region"],
                  params["ca_cert"]).check()
    rows = proof.checked(params["results"])
    return [] if check_mode else proof.record(connect(store, params["access_key"], params["secret_key"]), rows)


def main() -> None:
    module = QuietModule(argument_spec={
        "endpoint": {"type": "str", "required": True}, "bucket": {"type": "str", "required": True},
        "region": {"type": "str", "default": "us-east-1"}, "ca_cert": {"type": "path"},
        "fleet": {"type": "str", "required": True},
        "access_key": {"type": "str", "required": True, "no_log": True},
        "secret_key": {"type": "str", "required": True, "no_log": True},
        "results": {"type": "list", "elements": "dict", "required": True}}, supports_check_mode=True)
    try:
        keys = record(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    module.exit_json(changed=bool(module.params["results"]), keys=keys)


if __name__ == "__main__":
    main()
