#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_manifest
short_description: What a fleet consists of, written beside its backups
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Writes what runs where as JSON into the bucket, at C({fleet}/manifest/{time}.json), and once more at
    C({fleet}/manifest/latest.json). The time is the bucket's.
  - What is the same as the latest is not written again.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup.store
attributes:
  idempotent:
    support: full
options:
  access_key:
    description: Access key that may write there. Those of single bots may not.
    type: str
    required: true
  secret_key:
    description: Its secret key.
    type: str
    required: true
  content:
    description: What to write. It must hold no secrets.
    type: dict
    required: true
requirements:
  - boto3
"""

EXAMPLES = r"""
- name: Write down what runs where
  clawops.fleet.backup_manifest:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    content: {bots: {alpha: {host: alder, version: 2026.9.6}}}
"""

RETURN = r"""
key:
  description: The object with this content that has a time in its name; empty in check mode when it would be written.
  returned: success
  type: str
  sample: home/manifest/20260102T030405Z.json
plan_complete:
  description: Whether everything could be observed; false only in check mode, where an earlier step was not taken.
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
      sample: manifest of fleet home
    action:
      description: What was done to it, such as V(create).
      type: str
      sample: create
"""

import typing as t

from ..module_utils._backup import fleet
from ..module_utils._backup.bucket import connect
from ..module_utils._backup.model import Store
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def manifest(params: t.Mapping[str, t.Any]) -> fleet.Written:
    store = Store(params["endpoint"].rstrip("/"), params["bucket"], params["fleet"], params["region"],
                  params["ca_cert"]).check()
    return fleet.Written(connect(store, params["access_key"], params["secret_key"]), params["content"])


def main() -> None:
    module = QuietModule(argument_spec={
        "endpoint": {"type": "str", "required": True}, "bucket": {"type": "str", "required": True},
        "region": {"type": "str", "default": "us-east-1"}, "ca_cert": {"type": "path"},
        "fleet": {"type": "str", "required": True},
        "access_key": {"type": "str", "required": True, "no_log": True},
        "secret_key": {"type": "str", "required": True, "no_log": True},
        "content": {"type": "dict", "required": True}}, supports_check_mode=True)
    try:
        verb = manifest(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
