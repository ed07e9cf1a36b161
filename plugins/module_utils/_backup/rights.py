# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Who may do what in the bucket: the keys with their policies, and what the bucket keeps against its own users."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from .._errors import FleetError, bad_value
from .._plan import Plan
from .bucket import Bucket, policy, prune_policy
from .minio import Admin
from .model import Store

Tree = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who shall have a key: a bot or the verbs that prune; with the bucket as this key sees it."""

    name: str
    access_key: str = dataclasses.field(repr=False)
    secret_key: str = dataclasses.field(repr=False)
    policy_name: str
    policy: Tree
    bucket: t.Callable[[], Bucket]


def holder(store: Store, bot: str, access_key: str, secret_key: str, bucket: t.Callable[[], Bucket]) -> Holder:
    return Holder(f"{store.kind} {bot}", access_key, secret_key, _policy_name(store, f"{store.kind}.{bot}"),
                  policy(store, bot), bucket)


def pruner(store: Store, access_key: str, secret_key: str, bucket: t.Callable[[], Bucket]) -> Holder:
    return Holder("pruning", access_key, secret_key, _policy_name(store, "prune"), prune_policy(store), bucket)


def _policy_name(store: Store, who: str) -> str:
    """One name for each in each fleet and bucket: names of fleets and bots have no dots."""
    return f"clawops.{store.fleet}.{who}.{store.bucket}"


class Rights:
    """MinIO's users and policies: each holder's key works, and reaches what its policy says."""

    def __init__(self, admin: Admin, holders: t.Sequence[Holder], revoke: t.Sequence[str] = ()) -> None:
        self.admin, self.holders, self.revoke = admin, holders, revoke
        keys = [holder.access_key for holder in holders]
        if any(keys.count(key) > 1 for key in keys):
            raise bad_value("access_key", "(hidden)", "Give each one, and pruning, an access key of its own.")
        if {admin.access_key, *revoke} & set(keys) or admin.access_key in revoke:
            raise bad_value("access_key", "(hidden)", "The admin's key, keys in use and keys to revoke are different.")

    def plan(self, plan: Plan) -> set[str]:
        """What is to be done; returns whose keys do not work yet."""
        pending = set()
        for holder in self.holders:
            name = holder.policy_name
            changed = plan.compare(f"policy {name}", _sorted(holder.policy), _sorted(self.admin.policy(name)))
            wanted = {"accepted": True, "status": "enabled", "policy": name}
            if plan.compare(self._subject(holder), wanted, self._observed(holder)) or changed:
                pending.add(holder.name)
        for at, key in enumerate(self.revoke):
            if self.admin.user(key) is not None:
                plan.add(f"revoked S3 key {at + 1}", "delete", before="accepted")
        return pending

    def apply(self, plan: Plan) -> None:
        """Keys before their policies would be keys without rights: policies come first."""
        for holder in self.holders:
            name = holder.policy_name
            if plan.touches(f"policy {name}"):
                self.admin.put_policy(name, holder.policy)
            if plan.touches(self._subject(holder)):
                self.admin.put_user(holder.access_key, holder.secret_key)
                self.admin.attach(holder.access_key, name)
        for at, key in enumerate(self.revoke):
            if plan.touches(f"revoked S3 key {at + 1}"):
                self.admin.remove_user(key)

    @staticmethod
    def _subject(holder: Holder) -> str:
        return f"S3 key of {holder.name}"

    def _observed(self, holder: Holder) -> Tree | None:
        user = self.admin.user(holder.access_key)
        if user is None:
            return None
        return {"accepted": holder.bucket().accepts_key(), "status": user.get("status", ""),
                "policy": user.get("policyName", "")}


def _sorted(document: Tree | None) -> t.Any:
    """A policy as a value to compare: the service keeps its lists as sets."""
    if document is None:
        return None
    statements = [{key: sorted(value) if isinstance(value, list) else value for key, value in statement.items()}
                  for statement in document.get("Statement", [])]
    return {"Version": document.get("Version"), "Statement": sorted(statements, key=json.dumps)}


@dataclasses.dataclass(frozen=True)
class Keep:
    """What the bucket keeps of what is deleted or overwritten; None leaves a setting as it is."""

    versioning: bool | None = None
    keep_deleted: int | None = None
    lock_mode: str | None = None
    lock_days: int = 0

    def check(self) -> Keep:
        if self.keep_deleted is not None and (self.keep_deleted < 1 or self.versioning is not True):
            raise bad_value("keep_deleted", self.keep_deleted, "Give 1 or more days, together with versioning: true.")
        if self.lock_mode and (self.lock_days < 1 or self.versioning is False):
            raise bad_value("object_lock.days", self.lock_days, "Give 1 or more; versioning can't be off then.")
        return self

    @property
    def versions(self) -> bool:
        return bool(self.versioning or self.lock_mode)


class History:
    """Versioning, object lock, and the rule that ends the life of deleted versions."""

    def __init__(self, bucket: t.Callable[[], Bucket], store: Store, keep: Keep) -> None:
        self.bucket, self.store, self.keep = bucket, store, keep
        self.rule_id = f"clawops.{store.fleet}"

    def plan(self, plan: Plan, bucket_missing: bool) -> None:
        keep = self.keep
        if keep.versions or keep.versioning is False:
            found = None if bucket_missing else self.bucket().call("get_bucket_versioning").get("Status")
            wanted = "Enabled" if keep.versions else "Suspended" if found else None
            plan.compare(self._subject("versioning"), wanted, found)
        if keep.lock_mode:
            plan.compare(self._subject("object lock"), self._retention(), None if bucket_missing else self._locked())
        if keep.keep_deleted:
            rules = [] if bucket_missing else self._rules()
            mine = next((rule for rule in rules if rule.get("ID") == self.rule_id), None)
            plan.compare(self._subject("lifecycle"), self._rule(), mine)

    def apply(self, plan: Plan) -> None:
        if plan.touches(self._subject("versioning")):
            status = "Enabled" if self.keep.versions else "Suspended"
            self.bucket().call("put_bucket_versioning", VersioningConfiguration={"Status": status})
        if plan.touches(self._subject("object lock")):
            self._lock()
        if plan.touches(self._subject("lifecycle")):
            rules = [rule for rule in self._rules() if rule.get("ID") != self.rule_id]
            self.bucket().call("put_bucket_lifecycle_configuration",
                               LifecycleConfiguration={"Rules": [*rules, self._rule()]})

    def _subject(self, what: str) -> str:
        return f"{what} of bucket {self.store.bucket}"

    def _retention(self) -> Tree:
        return {"Mode": str(self.keep.lock_mode).upper(), "Days": self.keep.lock_days}

    def _locked(self) -> Tree | None:
        try:
            found = self.bucket().call("get_object_lock_configuration")["ObjectLockConfiguration"]
        except FleetError as error:
            if error.details.get("s3") != "ObjectLockConfigurationNotFoundError":
                raise
            return None
        return found.get("Rule", {}).get("DefaultRetention")  # type: ignore[no-any-return]

    def _lock(self) -> None:
        settings = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": self._retention()}}
        try:
            self.bucket().call("put_object_lock_configuration", ObjectLockConfiguration=settings)
        except FleetError as error:
            if error.details.get("s3") not in ("InvalidBucketState", "ObjectLockConfigurationNotFoundError",
                                               "InvalidRequest", "InvalidBucketObjectLockConfiguration"):
                raise
            raise FleetError("no_object_lock", f"Bucket {self.store.bucket} was made without object lock: "
                                               f"{error.details['s3']}.",
                             "Name a new bucket; this service locks objects only in buckets made for it.") from None

    def _rules(self) -> list[Tree]:
        try:
            return list(self.bucket().call("get_bucket_lifecycle_configuration").get("Rules", []))
        except FleetError as error:
            if error.details.get("s3") != "NoSuchLifecycleConfiguration":
                raise
            return []

    def _rule(self) -> Tree:
        return {"ID": self.rule_id, "Status": "Enabled", "Filter": {"Prefix": f"{self.store.fleet}/"},
                "NoncurrentVersionExpiration": {"NoncurrentDays": self.keep.keep_deleted},
                "Expiration": {"ExpiredObjectDeleteMarker": True}}
