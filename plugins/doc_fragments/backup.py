# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """Options of the backup modules."""

    DOCUMENTATION = r"""
options:
  endpoint:
    description: Address of the S3 service, such as V(https://s3.example.org:9000). Objects are addressed path-style.
    type: str
    required: true
  bucket:
    description: The bucket. The repository of a bot lies in it at C({fleet}/bots/{name}/).
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
  access_key:
    description: Access key for bots that have none of their own.
    type: str
  secret_key:
    description: Secret key for bots that have none of their own.
    type: str
  password:
    description: Password of the repositories of bots that have none of their own. An empty one is refused.
      Without it nobody can ever read the backups.
    type: str
  restic:
    description: The restic program, 0.17.1 or newer.
    type: path
    default: restic
  timeout:
    description: Seconds that one step of one bot may take.
    type: int
    default: 14400
  parallel:
    description: How many bots are worked on at a time.
    type: int
    default: 2
requirements:
  - restic >= 0.17.1
  - boto3
"""
