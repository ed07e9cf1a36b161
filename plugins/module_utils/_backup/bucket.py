# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The S3 bucket, asked before restic runs: restic retries for minutes where one short request knows the answer."""

from __future__ import annotations

import datetime
import email.utils
import functools
import json
import os
import ssl
import threading
import typing as t

from .._errors import FleetError
from .model import Store

SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
_ONE_AT_A_TIME = threading.Lock()


class Bucket:
    """One bucket with one bot's keys."""

    def __init__(self, store: Store, client: t.Any) -> None:
        self.store, self.client = store, client

    def has_repository(self, bot: str) -> bool:
        """Whether the bot's repository exists. Needs no more than the rights of policy()."""
        key = self.store.prefix(bot) + "config"
        found = self.call("list_objects_v2", Prefix=key, MaxKeys=1).get("Contents", [])
        return any(entry["Key"] == key for entry in found)

    def exists(self) -> bool:
        """Whether there is such a bucket; a key that may not list it must have found it, first."""
        try:
            self.call("list_objects_v2", Prefix=f"{self.store.fleet}/", MaxKeys=1)
        except FleetError as error:
            if error.details.get("s3") != "AccessDenied" and error.code != "bucket_missing":
                raise
            return error.code != "bucket_missing"
        return True

    def accepts_key(self) -> bool:
        """Whether the service knows this key and its secret, whatever they may do."""
        try:
            self.call("list_objects_v2", Prefix=f"{self.store.fleet}/", MaxKeys=1)
        except FleetError as error:
            if error.details.get("s3") in _WRONG_KEY:
                return False
            if error.code not in ("wrong_key", "bucket_missing"):
                raise
        return True

    def create(self, lock: bool = False) -> None:
        """The bucket; with lock, one whose objects can be locked, which must be said at its birth."""
        more: dict[str, t.Any] = {} if self.store.region == "us-east-1" else {
            "CreateBucketConfiguration": {"LocationConstraint": self.store.region}}
        self.call("create_bucket", **more, **({"ObjectLockEnabledForBucket": True} if lock else {}))

    def clear_unfinished(self, bot: str) -> None:
        """Removes what an interrupted init left: a key without a config makes every later init fail."""
        prefix = self.store.prefix(bot)
        found = [entry["Key"] for entry in self.call("list_objects_v2", Prefix=prefix).get("Contents", [])]
        if any(not key.startswith((f"{prefix}keys/", f"{prefix}locks/")) for key in found):
            raise FleetError("repository_damaged", f"{self.store.subject(bot)}: {self.store.url(bot)} holds data but "
                                                   "no config object.",
                             "Bring the config object back, or move what is there out of the way.", bot=bot)
        for key in found:
            self.call("delete_object", Key=key)

    def objects(self, prefix: str) -> list[dict[str, t.Any]]:
        """All objects below a prefix of the bucket."""
        found: list[dict[str, t.Any]] = []
        more: dict[str, str] = {}
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, **more)
            found += page.get("Contents", [])
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def versions(self, prefix: str) -> list[dict[str, t.Any]]:
        """All versions of objects below a prefix; those without an ETag say that it was deleted."""
        found: list[dict[str, t.Any]] = []
        more: dict[str, str] = {}
        while True:
            page = self.call("list_object_versions", Prefix=prefix, **more)
            found += [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if not page.get("IsTruncated"):
                return found
            more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def read_json(self, key: str) -> t.Any:
        """An object's value; None when it is missing."""
        try:
            return json.loads(self.call("get_object", Key=key)["Body"].read())
        except FleetError as error:
            if error.details.get("s3") != "NoSuchKey":
                raise
            return None
        except ValueError:
            raise FleetError("record_damaged", f"{key} in bucket {self.store.bucket} is no JSON.",
                             "Remove it, and look at what wrote there.") from None

    def write_json(self, key: str, value: t.Any) -> None:
        self.call("put_object", Key=key, Body=json.dumps(value, indent=1).encode())

    def now(self) -> datetime.datetime:
        """The time as the service has it: this host's clock is not what dates objects."""
        answer = self.call("list_objects_v2", Prefix=f"{self.store.fleet}/", MaxKeys=1)
        stamp = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        try:
            return email.utils.parsedate_to_datetime(stamp)
        except (TypeError, ValueError):
            return datetime.datetime.now(datetime.timezone.utc)

    def call(self, method: str, **arguments: t.Any) -> t.Any:
        try:
            return getattr(self.client, method)(Bucket=self.store.bucket, **arguments)
        except Exception as error:
            raise explain(error, self.store) from None


class Marks:
    """The runs of a bot whose snapshots do not count.

    A bot's key can't delete a snapshot that turned out incomplete, so it says so beside; pruning removes both.
    """

    def __init__(self, bucket: t.Callable[[], Bucket], bot: str) -> None:
        self.bucket, self.bot = bucket, bot

    def runs(self) -> set[str]:
        bucket = self.bucket()
        return {entry["Key"].rsplit("/", 1)[1] for entry in bucket.objects(self._key(bucket, ""))}

    def put(self, run: str) -> None:
        bucket = self.bucket()
        bucket.call("put_object", Key=self._key(bucket, run), Body=b"")

    def remove(self, run: str) -> None:
        bucket = self.bucket()
        bucket.call("delete_object", Key=self._key(bucket, run))

    def _key(self, bucket: Bucket, run: str) -> str:
        return f"{bucket.store.prefix(self.bot)}rejected/{run}"


def connect(store: Store, access_key: str, secret_key: str) -> Bucket:
    """A client with short timeouts, path-style addresses, and the certificates that restic will trust."""
    check_ca(store.ca_cert)
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        from ansible.module_utils.basic import missing_required_lib

        raise FleetError("missing_library", missing_required_lib("boto3")) from None
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=15,
                    retries={"total_max_attempts": 2})
    with _ONE_AT_A_TIME:
        client = _session(boto3).client("s3", endpoint_url=store.endpoint, region_name=store.region,
                                        verify=trusted(store), config=config, aws_access_key_id=access_key,
                                        aws_secret_access_key=secret_key)
    return Bucket(store, client)


@functools.lru_cache(maxsize=1)
def _session(boto3: t.Any) -> t.Any:
    """It reads the description of the service once. Several threads must not make clients of it at a time."""
    return boto3.session.Session()


def trusted(store: Store) -> str | None:
    return store.ca_cert or (SYSTEM_CA if os.access(SYSTEM_CA, os.R_OK) else None)


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
    """The one foreseen failure behind an SDK error, with the service's own word for it as detail s3."""
    found = _explain(error, store)
    answer = getattr(error, "response", None) or {}
    found.details["s3"] = str(answer.get("Error", {}).get("Code", ""))
    return found


def _explain(error: Exception, store: Store) -> FleetError:
    """Judged by names, so that it needs no SDK."""
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
                          "Check access_key and secret_key; backup_keys makes those of the inventory.")
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
    """The least that a bot's key needs: its own prefix, adding without end, deleting no more than locks."""
    prefix, bucket = store.prefix(bot), f"arn:aws:s3:::{store.bucket}"
    return {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket],
         "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*"]}}},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
         "Resource": [f"{bucket}/{prefix}*"]},
        {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [f"{bucket}/{prefix}locks/*"]},
    ]}


def prune_policy(store: Store) -> dict[str, t.Any]:
    """What pruning, checks and repairs need: the fleet's part of the bucket. Old versions are for reading only."""
    bucket = f"arn:aws:s3:::{store.bucket}"
    return {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListBucketVersions"], "Resource": [bucket],
         "Condition": {"StringLike": {"s3:prefix": [f"{store.fleet}/*"]}}},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject",
                                       "s3:AbortMultipartUpload"],
         "Resource": [f"{bucket}/{store.fleet}/*"]},
    ]}
