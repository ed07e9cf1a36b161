# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The S3 bucket, asked before restic runs: restic retries for minutes where one short request knows the answer."""

from __future__ import annotations

import os
import ssl
import typing as t

from .._errors import FleetError
from .model import Keys, Store

SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"


class Bucket:
    """One bucket with one bot's keys."""

    def __init__(self, store: Store, client: t.Any) -> None:
        self.store, self.client = store, client

    def has_repository(self, bot: str) -> bool:
        """Whether the bot's repository exists. Needs no more than the rights of policy()."""
        key = self.store.prefix(bot) + "config"
        found = self._call("list_objects_v2", Prefix=key, MaxKeys=1).get("Contents", [])
        return any(entry["Key"] == key for entry in found)

    def exists(self, bot: str) -> bool:
        try:
            self._call("list_objects_v2", Prefix=self.store.prefix(bot), MaxKeys=1)
        except FleetError as error:
            if error.code != "bucket_missing":
                raise
            return False
        return True

    def create(self) -> None:
        where = {} if self.store.region == "us-east-1" else {
            "CreateBucketConfiguration": {"LocationConstraint": self.store.region}}
        self._call("create_bucket", **where)

    def clear_unfinished(self, bot: str) -> None:
        """Removes what an interrupted init left: a key without a config makes every later init fail."""
        prefix = self.store.prefix(bot)
        found = [entry["Key"] for entry in self._call("list_objects_v2", Prefix=prefix).get("Contents", [])]
        if any(not key.startswith((f"{prefix}keys/", f"{prefix}locks/")) for key in found):
            raise FleetError("repository_damaged", f"Bot {bot}: {self.store.url(bot)} holds data but no config object.",
                             "Bring the config object back, or move what is there out of the way.", bot=bot)
        for key in found:
            self._call("delete_object", Key=key)

    def _call(self, method: str, **arguments: t.Any) -> t.Any:
        try:
            return getattr(self.client, method)(Bucket=self.store.bucket, **arguments)
        except Exception as error:
            raise explain(error, self.store) from None


def connect(store: Store, keys: Keys) -> Bucket:
    """A client with short timeouts, path-style addresses, and the certificates that restic will trust."""
    check_ca(store.ca_cert)
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        from ansible.module_utils.basic import missing_required_lib

        raise FleetError("library_missing", missing_required_lib("boto3")) from None
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=15,
                    retries={"total_max_attempts": 2})
    trusted = store.ca_cert or (SYSTEM_CA if os.access(SYSTEM_CA, os.R_OK) else None)
    session = boto3.session.Session()
    client = session.client("s3", endpoint_url=store.endpoint, region_name=store.region, verify=trusted, config=config,
                            aws_access_key_id=keys.access_key, aws_secret_access_key=keys.secret_key)
    return Bucket(store, client)


def check_ca(path: str | None) -> None:
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise FleetError("ca_unreadable", f"ca_cert: {path} is no readable file of PEM certificates: {error}.",
                         "Give the path, on the managed host, of the authority that signed the endpoint's certificate.",
                         ) from None


_WRONG_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")
_UNREACHABLE = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
                "ProxyConnectionError", "HTTPClientError", "IncompleteReadError")


def explain(error: Exception, store: Store) -> FleetError:
    """The one foreseen failure behind an SDK error; judged by names, so that it needs no SDK."""
    kind = type(error).__name__
    answer = getattr(error, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    where = f"bucket {store.bucket} at {store.endpoint}"
    if kind == "SSLError":
        return FleetError("wrong_certificate", f"The certificate of {store.endpoint} is not trusted: {error}.",
                          "Give the authority that signed it as ca_cert, or correct the endpoint's name.")
    if kind in _UNREACHABLE or code in ("ServiceUnavailable", "SlowDown", "XMinioServerNotInitialized", "502", "503"):
        return FleetError("unreachable", f"No S3 service answers for {where}: {error}.",
                          "Check endpoint, name resolution, firewall, and that the service runs.")
    if code in ("NoSuchBucket",):
        return FleetError("bucket_missing", f"There is no {where}.", "Create it, or set create_bucket: true.")
    if code in _WRONG_KEY:
        return FleetError("wrong_key", f"The S3 keys are not accepted for {where}: {code}.",
                          "Check access_key and secret_key.")
    if code in ("AccessDenied", "403"):
        return FleetError("wrong_key", f"These S3 keys may not use {where}: {code}.",
                          "Check the keys, and that their policy is the one that backup_repository returns.")
    if code == "RequestTimeTooSkewed":
        return FleetError("wrong_clock", f"The clocks of this host and of {store.endpoint} differ too much.",
                          "Synchronise both.")
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return FleetError("wrong_region", f"{where} is not in region {store.region}: {error}.", "Set region.")
    if code in ("XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"):
        return FleetError("bucket_full", f"{where} takes no more data: {code}.", "Make room there.")
    if code in ("404", "405"):
        return FleetError("not_s3", f"What answers at {store.endpoint} is no S3 service: {code}.", "Check endpoint.")
    return FleetError("s3_failed", f"S3 request for {where} failed: {kind}: {error}.")


def policy(store: Store, bot: str) -> dict[str, t.Any]:
    """The least that a bot's key needs: its own prefix, deleting no more than locks and half-done snapshots."""
    prefix, bucket = store.prefix(bot), f"arn:aws:s3:::{store.bucket}"
    return {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket],
         "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*"]}}},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
         "Resource": [f"{bucket}/{prefix}*"]},
        {"Effect": "Allow", "Action": ["s3:DeleteObject"],
         "Resource": [f"{bucket}/{prefix}locks/*", f"{bucket}/{prefix}snapshots/*"]},
    ]}
