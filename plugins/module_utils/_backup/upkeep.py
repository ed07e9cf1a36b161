# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What keeps repositories small and sound: forgetting and pruning, checks, and repairs. No machine of a bot is needed.

The key for this may delete what bots' keys may not. What it last knew of a bot's history stands in the bucket where
the bot's key does not reach, so that a history which a compromised host has tampered with is not pruned for good.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import time
import typing as t

from .._errors import FleetError, bad_value
from .._plan import Plan
from .bucket import Bucket
from .model import KINDS, Snapshot, Store, moment
from .restic import SAFETY
from .verbs import Access, Each, kind_of, sift

SPANS = ("all", "hourly", "daily", "weekly", "monthly", "yearly")
AHEAD, BEHIND = datetime.timedelta(hours=1), datetime.timedelta(days=1)
# A restic that lives renews its lock every five minutes, and gives up when it could not.
STALE = datetime.timedelta(minutes=30)
Tree = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is kept, and what the sanity check is told: ids to forget by name, and ids that a person vouches for."""

    keep_within: t.Mapping[str, str]
    keep_last: int = 3
    trust_dates: bool = False
    forget: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()

    def check(self) -> Rules:
        unknown = next((kind for kind in self.keep_within if kind not in SPANS), None)
        if unknown:
            raise bad_value("keep_within", unknown, f"Use {', '.join(SPANS)}.")
        if not self.keep_within:
            raise bad_value("keep_within", dict(self.keep_within), "Say how long snapshots are kept, such as all: 7d.")
        for kind, span in self.keep_within.items():
            if not re.fullmatch(r"(\d+[ymdh])+", str(span)):
                raise bad_value(f"keep_within.{kind}", span, "Write years, months, days and hours as in 1y6m14d12h.")
        if self.keep_last < 1:
            raise bad_value("keep_last", self.keep_last, "Give 1 or more.")
        for name in ("forget", "accept"):
            short = next((one for one in getattr(self, name) if not re.fullmatch("[0-9a-f]{8,64}", one)), None)
            if short is not None:
                raise bad_value(name, short, "Give 8 or more digits of a snapshot's id.")
        return self

    def arguments(self) -> list[str]:
        spans = [f"--keep-within{'' if kind == 'all' else '-' + kind}={self.keep_within[kind]}"
                 for kind in SPANS if kind in self.keep_within]
        return [*spans, f"--keep-last={self.keep_last}"]


@dataclasses.dataclass
class Record:
    """What pruning knew of a bot's history when it last left it."""

    known: list[str] = dataclasses.field(default_factory=list)
    accepted: list[str] = dataclasses.field(default_factory=list)
    pruned: bool = True

    @staticmethod
    def key(store: Store, bot: str) -> str:
        return f"{store.fleet}/admin/{store.kind}s/{bot}.json"

    @classmethod
    def read(cls, bucket: Bucket, bot: str) -> Record:
        key = cls.key(bucket.store, bot)
        found = bucket.read_json(key)
        try:
            return cls(**(found or {}))
        except TypeError:
            raise FleetError("record_damaged", f"{key} in bucket {bucket.store.bucket} can't be understood.",
                             "Remove it, and look at what wrote there.") from None

    def write(self, bucket: Bucket, bot: str) -> None:
        bucket.write_json(self.key(bucket.store, bot), dataclasses.asdict(self))


@dataclasses.dataclass
class History:
    """One bot's snapshots, and which of them go."""

    snapshots: list[Snapshot]
    rejected: set[str]
    record: Record
    remove: list[str]
    bytes: int

    @property
    def keep(self) -> list[str]:
        return [snapshot.id for snapshot in self.snapshots if snapshot.id not in self.remove]


class Retentions:
    """backup_retention: forgets what the rules don't keep, and frees its room. A suspect history is left alone."""

    def __init__(self, accesses: t.Sequence[Access], rules: Rules, check_mode: bool, parallel: int = 2) -> None:
        self.accesses, self.rules, self.check_mode = {access.bot: access for access in accesses}, rules, check_mode
        self.kind = kind_of(accesses)
        self.seen, self.done = Each[t.Optional[History]](parallel, self.kind), Each[Tree](parallel, self.kind)

    def plan(self) -> Plan:
        plan = Plan()
        self.seen.run(self.accesses, self._observe)
        sift(self.seen, plan, self.check_mode)
        for bot, history in self.seen.done.items():
            if history and (history.remove or not history.record.pruned):
                plan.add(f"snapshots of {bot}", "prune", before=len(history.snapshots), after=len(history.keep))
        return plan

    def _observe(self, access: Access) -> History | None:
        access.repository.check_version()
        bucket = access.bucket()
        if not bucket.has_repository(access.bot):
            return None
        marks, record = access.repository.rejected(), Record.read(bucket, access.bot)
        snapshots = access.repository.all_snapshots()
        objects = bucket.objects(bucket.store.prefix(access.bot))
        by_name = [one.id for one in snapshots if one.id.startswith(self.rules.forget)] if self.rules.forget else []
        rejected = [one.id for one in snapshots if one.tag("run") in marks]
        judged = [one for one in snapshots if one.id not in by_name]
        self._doubt(access, judged, rejected, record, objects, bucket.now())
        # What goes by name could still stand in the place of a sound one: the rules come to their turn in the next run.
        chosen = [] if by_name or rejected else self._forgettable(access, snapshots)
        remove = [one.id for one in snapshots if one.id in {*by_name, *rejected, *chosen}]
        history = History(snapshots, marks, record, remove, _size(objects))
        sound = {one.id for one in snapshots if not one.safety} - {*by_name, *rejected}
        kept = len(sound & {*history.keep})
        if kept < min(self.rules.keep_last, len(sound)):
            raise FleetError("too_much", f"{access.subject}: of {len(sound)} snapshots only {kept} would stay.",
                             "This is a fault of the rules or of restic; nothing was forgotten.", bot=access.bot)
        return history

    def _forgettable(self, access: Access, snapshots: list[Snapshot]) -> list[str]:
        """What restores replaced is kept by the same spans, but in the place of nothing else."""
        rules = self.rules.arguments()
        chosen = access.repository.forgettable(rules)
        if any(one.safety for one in snapshots):
            spans = [rule for rule in rules if not rule.startswith("--keep-last=")]
            chosen += access.repository.forgettable(spans, SAFETY)
        return chosen

    def _doubt(self, access: Access, snapshots: list[Snapshot], rejected: list[str], record: Record,
               objects: list[Tree], now: datetime.datetime) -> None:
        """Refuses a history that would make retention forget what it should keep."""
        vouched = (*self.rules.accept, *record.accepted, "-")
        stored = {entry["Key"].rsplit("/", 1)[1]: entry.get("LastModified") for entry in objects
                  if "/snapshots/" in entry["Key"]}
        wrong = {one.id: why for one in snapshots if not one.id.startswith(vouched)
                 for why in [self._misdated(one, stored.get(one.id), now)] if why}
        present = {one.id for one in snapshots}
        gone = [known for known in record.known if known not in present
                and not known.startswith((*self.rules.accept, *self.rules.forget, "-"))]
        wrong.update(dict.fromkeys(gone, "is gone, and pruning did not remove it"))
        wrong.update(dict.fromkeys({*rejected} & {*record.known} & present, "counted before, and is marked incomplete"))
        if wrong:
            table = "; ".join(f"{one[:8]} {why}" for one, why in wrong.items())
            raise FleetError("history_suspect", f"{access.subject}: nothing was forgotten, because of snapshots "
                                                f"{table}.",
                             "Look at who had this bot's key. Then name what is to go in forget, and what is right in "
                             "accept; a bucket with versioning still has what is gone.", snapshots=wrong)

    def _misdated(self, snapshot: Snapshot, stored: datetime.datetime | None, now: datetime.datetime) -> str:
        dated = moment(snapshot.time)
        if dated > now + AHEAD:
            return f"is dated in the future, {snapshot.time[:19]}"
        if stored is None or self.rules.trust_dates or stored - BEHIND <= dated <= stored + AHEAD:
            return ""
        return f"is dated {snapshot.time[:19]}, but came at {stored:%Y-%m-%dT%H:%M:%S}"

    def apply(self, plan: Plan) -> Tree:
        work = {bot: self.accesses[bot] for bot in self.seen.done if plan.touches(f"snapshots of {bot}")}
        self.done.run(work, self._prune)
        return self.facts()

    def _prune(self, access: Access) -> Tree:
        began, bucket = time.monotonic(), access.bucket()
        history = t.cast(History, self.seen.done[access.bot])
        record = Record(history.keep, [one for one in {*history.record.accepted, *self.rules.accept}
                                       if any(kept.startswith(one) for kept in history.keep)], pruned=False)
        # First, so that after a crash the next run neither misses what this one has removed nor forgets to prune.
        record.write(bucket, access.bot)
        if history.remove:
            access.repository.forget(history.remove)
        for snapshot in history.snapshots:
            if snapshot.tag("run") in history.rejected and access.repository.marks:
                access.repository.marks.remove(snapshot.tag("run"))
        access.repository.prune()
        dataclasses.replace(record, pruned=True).write(bucket, access.bot)
        size = _size(bucket.objects(bucket.store.prefix(access.bot)))
        return {**self._facts(access.bot, history), "bytes": size, "bytes_freed": history.bytes - size,
                "duration": round(time.monotonic() - began, 1)}

    def _facts(self, bot: str, history: History | None) -> Tree:
        if history is None:
            return {self.kind: bot, "exists": False, "kept": 0, "removed": [], "bytes": 0, "bytes_freed": 0,
                    "duration": 0.0}
        return {self.kind: bot, "exists": True, "kept": len(history.keep), "removed": history.remove,
                "bytes": history.bytes, "bytes_freed": 0, "duration": 0.0}

    def facts(self) -> Tree:
        bots = [self.done.done.get(bot) or self._facts(bot, history) for bot, history in self.seen.done.items()
                if bot not in self.done.failed]
        return _verdict(self.kind, bots, {**self.seen.failed, **self.done.failed})


def _verdict(kind: str, bots: list[Tree], failed: dict[str, FleetError]) -> Tree:
    """The results of all, or an error that brings them along."""
    each, results = Each[Tree](1, kind), {f"{kind}s": bots}
    each.done, each.failed = {entry[kind]: entry for entry in bots if entry[kind] not in failed}, failed
    each.check(**results)
    return results


def _size(objects: t.Iterable[Tree]) -> int:
    return sum(int(entry.get("Size", 0)) for entry in objects)


def part_of_day(parts: int, today: datetime.date) -> int:
    """Another part each day, all of them in turn."""
    return today.toordinal() % parts + 1


@dataclasses.dataclass(frozen=True)
class Reading:
    """How much of the data a check reads: nothing, one part of several, or all."""

    read_data: str
    parts: int = 30
    part: int | None = None

    def check(self) -> Reading:
        if not 1 <= self.parts <= 255:
            raise bad_value("parts", self.parts, "Give 1 to 255.")
        if self.part is not None and not 1 <= self.part <= self.parts:
            raise bad_value("part", self.part, f"Give 1 to {self.parts}, or leave it out.")
        return self

    @property
    def subset(self) -> str | None:
        """As restic takes it; None for the structure alone."""
        if self.read_data == "none":
            return None
        today = datetime.datetime.now(datetime.timezone.utc).date()
        return "1/1" if self.read_data == "all" else f"{self.part or part_of_day(self.parts, today)}/{self.parts}"


class Checks:
    """backup_check: whether what is in the bucket is what restic once put there."""

    def __init__(self, accesses: t.Sequence[Access], reading: Reading, parallel: int = 2) -> None:
        self.accesses, self.reading = {access.bot: access for access in accesses}, reading
        self.kind = kind_of(accesses)
        self.done = Each[Tree](parallel, self.kind)

    def run(self) -> Tree:
        self.done.run(self.accesses, self._check)
        bots = list(self.done.done.values())
        damaged = {one[self.kind]: _damage(self.kind, one) for one in bots if not one["sound"]}
        return _verdict(self.kind, bots, {**self.done.failed, **damaged})

    def _check(self, access: Access) -> Tree:
        began = time.monotonic()
        access.repository.check_version()
        exists = access.bucket().has_repository(access.bot)
        subset = self.reading.subset
        problems, packs, files = access.repository.verify(subset) if exists else ([], [], [])
        return {access.store.kind: access.bot, "exists": exists, "sound": not problems, "read": subset or "",
                "problems": problems, "packs": packs, "files": files, "duration": round(time.monotonic() - began, 1)}


def _damage(kind: str, found: Tree) -> FleetError:
    hit = "; ".join(found["files"][:5])
    return FleetError("repository_damaged", f"{KINDS[kind]} {found[kind]}: {'; '.join(found['problems'])[:1500]}."
                      + (f" It hits {hit}." if hit else ""),
                      "Bring the objects back if the bucket has older versions of them, else see backup_repair.",
                      packs=found["packs"], files=found["files"])


@dataclasses.dataclass(frozen=True)
class Change:
    """One object as it shall be again: an older version of it, or none."""

    key: str
    version: str | None

    def make(self, bucket: Bucket) -> None:
        if self.version is None:
            bucket.call("delete_object", Key=self.key)
        else:
            source = {"Bucket": bucket.store.bucket, "Key": self.key, "VersionId": self.version}
            bucket.call("copy_object", Key=self.key, CopySource=source, MetadataDirective="REPLACE")


def _changes(bucket: Bucket, prefix: str, until: datetime.datetime) -> list[Change]:
    """What has to be done for the objects to be what they were. Locks have no past that is of use."""
    found: dict[str, list[Tree]] = {}
    for entry in bucket.versions(prefix):
        found.setdefault(entry["Key"], []).append(entry)
    changes = [_undo(key, versions, until) for key, versions in found.items() if not key.startswith(f"{prefix}locks/")]
    return [change for change in changes if change]


def _undo(key: str, versions: list[Tree], until: datetime.datetime) -> Change | None:
    """What has to be done to one object; an entry without an ETag says that it was deleted."""
    versions.sort(key=lambda entry: (entry["LastModified"], bool(entry.get("IsLatest"))))
    now, past = versions[-1], [entry for entry in versions if entry["LastModified"] <= until]
    if not past or "ETag" not in past[-1]:
        return Change(key, None) if "ETag" in now else None
    return None if now.get("ETag") == past[-1]["ETag"] else Change(key, past[-1]["VersionId"])


def _point(text: str) -> datetime.datetime:
    try:
        found = moment(text)
    except ValueError:
        found = datetime.datetime.min
    if found.tzinfo is None:
        raise bad_value("rewind", text, "Write a time with its zone, such as 2026-11-21T07:00:00Z.")
    return found


class Repairs:
    """backup_repair: brings back what the bucket still has, removes locks that nobody holds, and repairs the rest."""

    def __init__(self, accesses: t.Sequence[Access], steps: t.Sequence[str], packs: t.Sequence[str], place: str,
                 parallel: int = 1, rewind: str | None = None, check_mode: bool = False) -> None:
        bad = next((pack for pack in packs if not re.fullmatch("[0-9a-f]{64}", pack)), None)
        if bad is not None:
            raise bad_value("packs", bad, "Give the ids that backup_check has named.")
        if ("packs" in steps) != bool(packs):
            raise bad_value("packs", list(packs), "Give ids together with the step packs.")
        if ("rewind" in steps) != bool(rewind):
            raise bad_value("rewind", rewind, "Give a time together with the step rewind.")
        self.accesses, self.steps, self.packs, self.place = {one.bot: one for one in accesses}, steps, packs, place
        self.rewind, self.check_mode = _point(rewind) if rewind else None, check_mode
        self.past: dict[str, list[Change]] = {}
        self.kind = kind_of(accesses)
        self.seen, self.done = Each[t.Optional[list[Tree]]](parallel, self.kind), Each[Tree](parallel, self.kind)

    def plan(self) -> Plan:
        plan = Plan()
        self.seen.run(self.accesses, self._observe)
        sift(self.seen, plan, self.check_mode)
        for bot, locks in self.seen.done.items():
            if locks is None:
                continue
            stale = [lock["id"] for lock in locks if lock["stale"]]
            if "unlock" in self.steps and stale:
                plan.add(f"locks of {bot}", "delete", before=stale)
            if self.past.get(bot):
                plan.add(f"objects of {bot}", "rewind", after=len(self.past[bot]))
            for step in ("index", "packs", "snapshots"):
                if step in self.steps:
                    plan.add(f"{step} of {bot}", "repair", after=list(self.packs) if step == "packs" else None)
        return plan

    def _observe(self, access: Access) -> list[Tree] | None:
        access.repository.check_version()
        bucket = access.bucket()
        if self.rewind:
            self.past[access.bot] = _changes(bucket, bucket.store.prefix(access.bot), self.rewind)
        return self._locks(access) if self.past.get(access.bot) or bucket.has_repository(access.bot) else None

    def _locks(self, access: Access) -> list[Tree]:
        """By the service's clock alone: neither host names, nor process numbers, nor clocks of hosts count."""
        bucket, prefix = access.bucket(), access.store.prefix(access.bot)
        now, found = bucket.now(), []
        for entry in bucket.objects(f"{prefix}locks/"):
            age = now - entry["LastModified"]
            found.append({"id": entry["Key"].rsplit("/", 1)[1], "age": int(age.total_seconds()), "stale": age > STALE})
        return found

    def apply(self, plan: Plan) -> Tree:
        self.done.run({bot: self.accesses[bot] for bot, locks in self.seen.done.items() if locks is not None},
                      self._repair)
        return self.facts()

    def _repair(self, access: Access) -> Tree:
        bucket, said = access.bucket(), []
        # Looked at again: the one that was stale a moment ago may be another one by now.
        stale = [lock["id"] for lock in self._locks(access) if lock["stale"]] if "unlock" in self.steps else []
        for lock in stale:
            bucket.call("delete_object", Key=f"{bucket.store.prefix(access.bot)}locks/{lock}")
        past = self.past.get(access.bot, [])
        for change in past:
            change.make(bucket)
        before = {one.id for one in access.repository.all_snapshots()}
        for step in ("index", "packs", "snapshots"):
            if step in self.steps:
                said.append(access.repository.repair(step, self.packs, f"{self.place}/{access.bot}"))
        after = {one.id for one in access.repository.all_snapshots()}
        brought = {change.key.rsplit("/", 1)[1] for change in past if change.version and "/snapshots/" in change.key}
        self._remember(access, bucket, before - after, (after - before) | brought)
        return {access.store.kind: access.bot, "exists": True, "removed_locks": stale, "locks": self._locks(access),
                "rewound": len(past), "repaired": sorted(after - before),
                "output": [line for text in said for line in text.splitlines() if line.strip()]}

    @staticmethod
    def _remember(access: Access, bucket: Bucket, gone: set[str], came: set[str]) -> None:
        """What a repair puts into the bucket has an old date and came today: pruning shall not call that tampering."""
        if gone or came:
            record = Record.read(bucket, access.bot)
            record.known = [one for one in record.known if one not in gone]
            record.accepted = sorted({*record.accepted, *came})
            record.write(bucket, access.bot)

    def facts(self) -> Tree:
        bots = [self.done.done.get(bot) or {self.kind: bot, "exists": locks is not None, "removed_locks": [],
                                            "locks": locks or [], "rewound": 0, "repaired": [], "output": []}
                for bot, locks in self.seen.done.items() if bot not in self.done.failed]
        return _verdict(self.kind, bots, {**self.seen.failed, **self.done.failed})


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One bot's password as it shall be, and as it was."""

    access: Access
    previous: Access | None


class Passwords:
    """backup_password: each repository opens with the new password and no longer with the one of before.

    Keys that neither of them opens belong to somebody else, and stay.
    """

    def __init__(self, changes: t.Sequence[Exchange], parallel: int = 2, check_mode: bool = False) -> None:
        self.changes, self.check_mode = {change.access.bot: change for change in changes}, check_mode
        self.kind = kind_of([change.access for change in changes])
        self.seen, self.done = Each[t.Optional[tuple[str, str]]](parallel, self.kind), Each[Tree](parallel, self.kind)

    def plan(self) -> Plan:
        plan = Plan()
        self.seen.run(self.changes, self._observe)
        sift(self.seen, plan, self.check_mode)
        for bot, keys in self.seen.done.items():
            if keys is None:
                continue
            new, old = keys
            if not new:
                plan.add(f"new key of {bot}", "create")
            if old and old != new:
                plan.add(f"old key of {bot}", "delete", before=old)
        return plan

    def _observe(self, change: Exchange) -> tuple[str, str] | None:
        access = change.access
        access.repository.check_version()
        if not access.bucket().has_repository(access.bot):
            return None
        new = access.repository.opening_key()
        old = change.previous.repository.opening_key() if change.previous else ""
        if not (new or old):
            raise FleetError("wrong_password", f"{access.subject}: neither the password nor the previous one opens "
                                               f"{access.repository.store.url(access.bot)}.",
                             "Give the one that the repository has as previous_password.", bot=access.bot)
        return new, old

    def apply(self, plan: Plan) -> Tree:
        self.done.run({bot: self.changes[bot] for bot, keys in self.seen.done.items() if keys}, self._change)
        return self.facts()

    def _change(self, change: Exchange) -> Tree:
        access, keys = change.access, self.seen.done[change.access.bot]
        new, old = keys or ("", "")
        if not new and change.previous:
            change.previous.repository.add_key(access.repository.password)
            new = access.repository.opening_key()
            if not new:
                raise FleetError("key_failed", f"{access.subject}: the new password does not open the repository.",
                                 "The old one still does. Try again.", bot=access.bot)
        if old and old != new:
            access.repository.remove_key(old)
        return {access.store.kind: access.bot, "exists": True, "key": new}

    def facts(self) -> Tree:
        bots = [self.done.done.get(bot) or {self.kind: bot, "exists": keys is not None, "key": keys[0] if keys else ""}
                for bot, keys in self.seen.done.items() if bot not in self.done.failed]
        return _verdict(self.kind, bots, {**self.seen.failed, **self.done.failed})
