# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the bucket knows of drills: one object for each bot and space, which only who may prune can write."""

from __future__ import annotations

import datetime
import typing as t

from .._errors import FleetError, bad_value
from .._ownership import check_name
from .bucket import Bucket

VERSION = 1
Row = dict[str, t.Any]
#: Of a row what is written: nothing that tells what is in a bot's files or says.
WRITTEN = ("ok", "code", "host", "snapshot", "time", "files", "bytes", "databases", "ready", "sessions", "turn",
           "duration")


def _key(bucket: Bucket, kind: str, name: str) -> str:
    return f"{bucket.store.fleet}/drills/{kind}s/{name}.json"


def checked(rows: t.Iterable[t.Mapping[str, t.Any]]) -> list[t.Mapping[str, t.Any]]:
    """Rows as they can be recorded: keys in the bucket are made of their names."""
    found = list(rows)
    for row in found:
        kind = _kind(row)
        check_name(f"results.{kind}", row.get(kind))
        if not isinstance(row.get("ok"), bool):
            raise bad_value("results.ok", row.get("ok"), "Give true or false.")
    return found


def _kind(row: t.Mapping[str, t.Any]) -> str:
    return "space" if "space" in row else "bot"


def record(bucket: Bucket, rows: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """Writes what became of each; when it passed last is kept over failures. Returns the keys."""
    now = bucket.now().isoformat(timespec="seconds")
    return [_record(bucket, _kind(row), row, now) for row in rows]


def _record(bucket: Bucket, kind: str, row: t.Mapping[str, t.Any], now: str) -> str:
    key = _key(bucket, kind, row[kind])
    known = bucket.read_json(key) or {}
    last = {"drilled": now, **{name: row[name] for name in WRITTEN if row.get(name) is not None}}
    bucket.write_json(key, {"version": VERSION, kind: row[kind], "last": last,
                            "passed": last if row["ok"] else known.get("passed")})
    return key


def proofs(bucket: Bucket, names: t.Iterable[str], days: float) -> list[Row]:
    """When each was proved last. One without a repository has nothing to prove, and a new one has some time."""
    now = bucket.now()
    return [_proof(bucket, name, now, days) for name in names]


def _proof(bucket: Bucket, name: str, now: datetime.datetime, days: float) -> Row:
    kind = bucket.store.kind
    known = bucket.read_json(_key(bucket, kind, name)) or {}
    last, passed = known.get("last") or {}, (known.get("passed") or {}).get("drilled")
    config = bucket.store.prefix(name) + "config"
    made = next((entry["LastModified"] for entry in bucket.objects(config) if entry["Key"] == config), None)
    since = datetime.datetime.fromisoformat(passed) if passed else made
    late = bool(days and since and (now - since).total_seconds() > days * 86400)
    return {kind: name, "drilled": last.get("drilled"), "ok": last.get("ok"), "code": last.get("code"),
            "passed": passed, "age": int((now - since).total_seconds()) if passed and since else None, "late": late}


def check(rows: t.Sequence[Row], kind: str, days: float) -> None:
    """The alarm."""
    late = [f"{row[kind]} ({_since(row)})" for row in rows if row["late"]]
    if late:
        raise FleetError("drill_overdue", f"No restore drill has passed within {days:g} days for {', '.join(late)}.",
                         "Run restore_drill, and see why it fails; schedule_backups runs it by a timer.",
                         **{f"{kind}s": list(rows)})


def _since(row: Row) -> str:
    return "never" if row["age"] is None else f"{row['age'] // 86400} days ago"
