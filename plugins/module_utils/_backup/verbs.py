# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the four modules do: the same plan and apply for one bot or for all bots of a host."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import os
import platform
import time
import typing as t

from .._errors import FleetError
from .._plan import Plan
from .bucket import Bucket, policy, prune_policy
from .model import KINDS, Manifest, Safety, Snapshot, Source, Staged, Store, Target, moment
from .restic import Repository
from .rights import History, Rights

# What an earlier step of the same play would have made: in check mode the plan is then incomplete, not wrong.
NOT_YET = ("missing_library", "restic_missing", "bucket_missing", "repository_missing", "snapshot_missing",
           "path_missing", "owner_missing", "libvirt_unreachable", "engine_unreachable")
Item = t.TypeVar("Item")
Value = t.TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Access:
    """One bot's way to its repository."""

    bot: str
    bucket: t.Callable[[], Bucket]
    repository: Repository

    @property
    def store(self) -> Store:
        return self.repository.store

    @property
    def subject(self) -> str:
        """How messages call it."""
        return self.store.subject(self.bot)

    def check(self) -> None:
        """Asks the bucket first, then restic: each failure gets its own name within seconds."""
        if not self.bucket().has_repository(self.bot):
            raise FleetError("repository_missing", f"{self.subject} has no repository at "
                                                   f"{self.store.url(self.bot)}.",
                             "backup_repository makes it.", bot=self.bot)


class Each(t.Generic[Value]):
    """Does the same for many bots, some at a time; the failure of one does not stop the others."""

    def __init__(self, parallel: int, kind: str = "bot") -> None:
        self.parallel, self.kind = parallel, kind
        self.done: dict[str, Value] = {}
        self.failed: dict[str, FleetError] = {}

    def run(self, items: t.Mapping[str, Item], work: t.Callable[[Item], Value]) -> None:
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            futures = {bot: pool.submit(work, item) for bot, item in items.items()}
        for bot, future in futures.items():
            error = future.exception()
            if error is None:
                self.done[bot] = future.result()
            elif isinstance(error, (FleetError, OSError)):
                self.failed[bot] = _foreseen(error, bot)
            else:
                raise error

    def check(self, **results: t.Any) -> None:
        """Raises one error for all bots that failed; it tells what became of every one, with the others' results."""
        if not self.failed:
            return
        first = next(iter(self.failed.values()))
        if len(self.failed) == 1 and not self.done:
            first.details.update(results)
            raise first
        table = "\n".join(f"{bot}: {error.message} {error.hint}".rstrip() for bot, error in self.failed.items())
        codes = {error.code for error in self.failed.values()}
        raise FleetError(first.code if len(codes) == 1 else f"{self.kind}s_failed",
                         f"{len(self.failed)} of {len(self.failed) + len(self.done)} {KINDS[self.kind]}s failed:\n"
                         f"{table}", "",
                         failed=[{self.kind: bot, "code": error.code, "message": error.message}
                                 for bot, error in self.failed.items()],
                         done=sorted(self.done), **results)


def _foreseen(error: FleetError | OSError, bot: str) -> FleetError:
    if isinstance(error, FleetError):
        return error
    code = "disk_full" if error.errno == 28 else "os_failed"
    return FleetError(code, f"{bot}: {error}.", "Make room on this host." if code == "disk_full" else "", bot=bot)


def sift(seen: Each[t.Any], plan: Plan, check_mode: bool, unmade_keys: bool = True) -> None:
    """In check mode, turns failures that an earlier step would have prevented into gaps of the plan."""
    for bot, error in list(seen.failed.items()):
        unmade = unmade_keys and is_unknown_key(error)
        if check_mode and (unmade or error.code in NOT_YET):
            del seen.failed[bot]
            plan.cannot_see(f"{seen.kind} {bot}: {error.message}" + (f" {error.hint}" if unmade else ""))


def is_unknown_key(error: FleetError) -> bool:
    """Whether the service has never heard of the key: backup_keys may be yet to make it."""
    return error.details.get("s3") == "InvalidAccessKeyId"


class Repositories:
    """backup_repository: the bucket, its keys, and each bot's repository, which opens with the password."""

    def __init__(self, accesses: t.Sequence[Access], store: Store, create_bucket: bool, check_mode: bool,
                 parallel: int = 4, rights: Rights | None = None, history: History | None = None,
                 owner: t.Callable[[], Bucket] | None = None, repositories: bool = True) -> None:
        self.accesses = {access.bot: access for access in accesses}
        self.store, self.create_bucket, self.check_mode = store, create_bucket, check_mode
        self.rights, self.history, self.repositories = rights, history, repositories
        # Who makes the bucket, and looks into it for those whose key is not made yet.
        self.owner = owner or t.cast("t.Callable[[], Bucket]", accesses[0].bucket if accesses else None)
        self.seen, self.made = Each[t.Optional[str]](parallel, store.kind), Each[str](parallel, store.kind)
        self.bucket_missing = False
        self.pending: set[str] = set()

    def plan(self) -> Plan:
        plan = Plan()
        if not (self.accesses or self.rights or self.history):
            return plan
        try:
            self._plan_bucket(plan)
        except FleetError as error:
            # In check mode a gap; else each bot will tell, in its own words.
            unmade = self.check_mode and not self.rights and is_unknown_key(error)
            if error.code not in NOT_YET[:2] and not unmade:
                raise
            if self.check_mode:
                plan.cannot_see(error.message)
        if not self.repositories:
            self.seen.done = dict.fromkeys(self.accesses)
            return plan
        self.seen.run(self.accesses, self._observe)
        # Who makes the keys in this call knows which ones are to come.
        sift(self.seen, plan, self.check_mode, unmade_keys=not self.rights)
        for bot, found in self.seen.done.items():
            plan.compare(f"repository {bot}", self.store.url(bot), None if found is None else self.store.url(bot))
        return plan

    def _plan_bucket(self, plan: Plan) -> None:
        self.bucket_missing = not self._bucket_exists()
        if self.bucket_missing:
            plan.add(f"bucket {self.store.bucket}", "create", after=self.store.endpoint)
        if self.history:
            self.history.plan(plan, self.bucket_missing)
        if self.rights:
            self.pending = self.rights.plan(plan)

    def _bucket_exists(self) -> bool:
        try:
            found = self.owner().exists()
        except FleetError as error:
            if error.code != "wrong_key" or self.rights or self.history:
                raise
            return True
        if not (found or self.create_bucket):
            raise FleetError("bucket_missing", f"There is no bucket {self.store.bucket} at {self.store.endpoint}.",
                             "Create it, or set create_bucket: true.")
        return found

    def _observe(self, access: Access) -> str | None:
        access.repository.check_version()
        if self.bucket_missing:
            return None
        if f"{self.store.kind} {access.bot}" in self.pending:
            return "" if self.owner().has_repository(access.bot) else None
        return access.repository.identify() if access.bucket().has_repository(access.bot) else None

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        if self.bucket_missing:
            self.owner().create(lock=bool(self.history and self.history.keep.lock_mode))
        if self.history:
            self.history.apply(plan)
        if self.rights:
            self.rights.apply(plan)
        if self.repositories:
            self.made.run({bot: self.accesses[bot] for bot, found in self.seen.done.items() if not found}, self._open)
        return self.facts()

    def _open(self, access: Access) -> str:
        if self.seen.done[access.bot] is not None:
            return access.repository.identify()
        (self.owner() if self.rights else access.bucket()).clear_unfinished(access.bot)
        return access.repository.init()

    def facts(self) -> dict[str, t.Any]:
        ids: dict[str, str | None] = {**self.seen.done, **self.made.done}
        listed = [{self.store.kind: bot, "id": found or None, "url": self.store.url(bot),
                   "policy": policy(self.store, bot)} for bot, found in ids.items() if bot not in self.made.failed]
        done = Each[t.Any](1, self.store.kind)
        done.done = dict.fromkeys(set(ids) - set(self.made.failed))
        done.failed = {**self.seen.failed, **self.made.failed}
        done.check(repositories=listed)
        return {"repositories": listed, "prune_policy": prune_policy(self.store)}


@dataclasses.dataclass(frozen=True)
class Job:
    """One bot to back up."""

    access: Access
    source: Source


class Snapshots:
    """backup_snapshot: one snapshot of every bot."""

    def __init__(self, jobs: t.Sequence[Job], host: str, check_mode: bool, parallel: int = 2) -> None:
        self.jobs, self.host, self.check_mode = {job.access.bot: job for job in jobs}, host, check_mode
        kind = kind_of(job.access for job in jobs)
        self.seen = Each[dict[str, t.Any]](parallel, kind)
        self.taken = Each[dict[str, t.Any]](parallel, kind)

    def plan(self) -> Plan:
        plan = Plan()
        self.seen.run(self.jobs, self._observe)
        sift(self.seen, plan, self.check_mode)
        for bot, roles in self.seen.done.items():
            plan.add(f"snapshot {bot}", "create", after=roles)
        return plan

    def _observe(self, job: Job) -> dict[str, t.Any]:
        roles = job.source.observe()
        job.access.repository.check_version()
        job.access.check()
        return roles

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        self.taken.run({bot: self.jobs[bot] for bot in self.seen.done}, self._take)
        self.taken.failed.update(self.seen.failed)
        taken = list(self.taken.done.values())
        self.taken.check(snapshots=taken)
        return {"snapshots": taken}

    def _take(self, job: Job) -> dict[str, t.Any]:
        access, began = job.access, time.monotonic()
        with job.source.open() as staged:
            summary = _back_up(access, staged, self.host)
            databases = sum(len(part.databases) for part in staged.manifest.parts)
        return {access.store.kind: access.bot, "snapshot": summary["snapshot_id"],
                "files": summary["total_files_processed"], "bytes": summary["total_bytes_processed"],
                "databases": databases, "bytes_added": summary.get("data_added_packed", summary["data_added"]),
                "duration": round(time.monotonic() - began, 1), **staged.facts}

    def facts(self) -> dict[str, t.Any]:
        self.seen.check()
        return {"snapshots": []}


def _back_up(access: Access, staged: Staged, host: str) -> dict[str, t.Any]:
    if staged.unconfirmed:
        access.repository.forget_run(staged.unconfirmed)
    return access.repository.backup(staged, host)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The snapshot that a target shall hold, with its manifest; without one when it holds it already."""

    snapshot: Snapshot
    manifest: Manifest | None


@dataclasses.dataclass(frozen=True)
class Wish:
    """One bot to restore: from a snapshot or the newest, of those until a time; with a snapshot of what it replaces."""

    access: Access
    target: Target
    snapshot: str = "latest"
    overwrite: bool = False
    until: datetime.datetime | None = None
    safety: bool = False


class Restores:
    """backup_restore: every target holds its snapshot. Nothing is written unless all of them can be served."""

    def __init__(self, wishes: t.Sequence[Wish], check_mode: bool, parallel: int = 2, host: str = "") -> None:
        self.wishes, self.check_mode, self.host = wishes, check_mode, host or platform.node()
        kind = kind_of(wish.access for wish in wishes)
        self.seen, self.restored = Each[Choice](parallel, kind), Each[dict[str, t.Any]](parallel, kind)

    def plan(self) -> Plan:
        plan = Plan()
        self.seen.run({wish.access.bot: wish for wish in self.wishes}, self._observe)
        sift(self.seen, plan, self.check_mode)
        self.seen.check()
        self._check_room()
        for wish in self.wishes:
            choice = self.seen.done.get(wish.access.bot)
            if choice and choice.manifest:
                record = wish.target.record()
                plan.add(f"{wish.access.store.kind} {wish.access.bot}", "restore",
                         before={"snapshot": record.snapshot if record else None},
                         after={"snapshot": choice.snapshot.id, **wish.target.places()})
        return plan

    def _observe(self, wish: Wish) -> Choice:
        access, target = wish.access, wish.target
        access.repository.check_version()
        access.check()
        snapshot = access.repository.choose(wish.snapshot, wish.until)
        record, occupied = target.record(), target.occupied()
        if not wish.overwrite and target.holds(snapshot.id):
            return Choice(snapshot, None)
        # Half of an own restore is not worth protecting: it was allowed to be there.
        if occupied and not wish.overwrite and (record is None or record.done):
            raise FleetError("target_not_empty", f"{access.subject}: {', '.join(occupied)} holds data.",
                             "Set overwrite: true (restore_overwrite for playbooks) to replace it, or leave "
                             f"{access.bot} out.", bot=access.bot)
        manifest = access.repository.manifest(snapshot)
        target.check(manifest, snapshot.size)
        return Choice(snapshot, manifest)

    def _check_room(self) -> None:
        """Each one alone has room; what comes to the same file system must have it together."""
        coming: dict[str, list[tuple[str, int]]] = {}
        free: dict[str, int] = {}
        for wish in self.wishes:
            choice = self.seen.done.get(wish.access.bot)
            for system, room in wish.target.room().items() if choice and choice.manifest else ():
                coming.setdefault(system, []).append((wish.access.bot, choice.snapshot.size if choice else 0))
                free[system] = room
        for system, bots in coming.items():
            needed = sum(size for _bot, size in bots)
            if needed > free[system]:
                names = ", ".join(bot for bot, _size in bots)
                raise FleetError("disk_full", f"{names} need {needed} bytes on one file system, and {free[system]} are "
                                              "free.", "Make room on this host, or restore fewer at once.",
                                 needed=needed, free=free[system])

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        self.restored.run({wish.access.bot: wish for wish in self.wishes}, self._restore)
        restored = list(self.restored.done.values())
        self.restored.check(restored=restored)
        return {"restored": restored}

    def _restore(self, wish: Wish) -> dict[str, t.Any]:
        choice = self.seen.done[wish.access.bot]
        if choice.manifest is None:
            return self._told(wish, False)
        began, saved = time.monotonic(), list[str]()
        staging = os.path.dirname(choice.snapshot.manifest)
        with wish.target.open(choice.manifest) as scratches:
            for scratch in scratches:
                parts = [choice.manifest.part(role) for role in scratch.roles]
                paths = [part.path for part in parts]
                paths += [f"{staging}/{database.copy}" for part in parts for database in part.databases]
                wish.access.repository.restore(choice.snapshot, scratch.directory, paths)
            kept = wish.target.switch(scratches, choice.manifest, choice.snapshot.id, staging,
                                      self._safety(wish, saved) if wish.safety else None)
        return {**self._told(wish, True), "kept": kept, "safety": saved[0] if saved else None,
                "duration": round(time.monotonic() - began, 1)}

    def _safety(self, wish: Wish, saved: list[str]) -> Safety:
        """Leaves the snapshot's id in saved."""

        def take(staged: Staged) -> None:
            saved.append(_back_up(wish.access, staged, self.host)["snapshot_id"])

        return Safety(wish.access.subject, self.host, take)

    def facts(self) -> dict[str, t.Any]:
        return {"restored": [self._told(wish, False) for wish in self.wishes if wish.access.bot in self.seen.done]}

    def _told(self, wish: Wish, changed: bool) -> dict[str, t.Any]:
        snapshot = self.seen.done[wish.access.bot].snapshot
        return {wish.access.store.kind: wish.access.bot, "snapshot": snapshot.id, "time": snapshot.time,
                "host": snapshot.host, "places": wish.target.places(), "files": snapshot.files, "bytes": snapshot.size,
                "changed": changed, "kept": [], "safety": None, "duration": 0.0}


def info(accesses: t.Sequence[Access], parallel: int = 4) -> dict[str, t.Any]:
    """backup_info: what is there for every bot. A bot without a repository is an answer, not a failure."""
    kind = kind_of(accesses)
    seen = Each[dict[str, t.Any]](parallel, kind)
    seen.run({access.bot: access for access in accesses}, _info)
    seen.check()
    return {f"{kind}s": list(seen.done.values())}


def kind_of(accesses: t.Iterable[Access]) -> str:
    return next((access.store.kind for access in accesses), "bot")


def _info(access: Access) -> dict[str, t.Any]:
    access.repository.check_version()
    exists = access.bucket().has_repository(access.bot)
    found = access.repository.listed() if exists else []
    listed = [{"id": one.id, "time": one.time, "host": one.host, "tags": list(one.tags), "bytes": one.size,
               "files": one.files, "safety": one.safety} for one in found]
    newest = next((_age(one.time) for one in reversed(found) if not one.safety), None)
    return {access.store.kind: access.bot, "repository": access.store.url(access.bot), "exists": exists,
            "snapshots": listed, "newest_age": newest}


def _age(stamp: str) -> int:
    """Seconds since a time as restic writes it."""
    return int((datetime.datetime.now(datetime.timezone.utc) - moment(stamp)).total_seconds())
