# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The fleet's manifest: what runs where, beside the data, so that the bucket tells what a rebuilt fleet is to have."""

from __future__ import annotations

import typing as t

from .._plan import Plan
from .bucket import Bucket

VERSION = 1


class Written:
    """One content in the bucket: under the time of its writing, and as the latest."""

    def __init__(self, bucket: Bucket, content: t.Mapping[str, t.Any]) -> None:
        self.bucket, self.content = bucket, dict(content)
        self.prefix = f"{bucket.store.fleet}/manifest/"
        self.found: dict[str, t.Any] = {}

    def plan(self) -> Plan:
        plan = Plan()
        self.found = self.bucket.read_json(f"{self.prefix}latest.json") or {}
        known = self.found if self.found.get("version") == VERSION else {}
        plan.compare(f"manifest of fleet {self.bucket.store.fleet}", self.content, known.get("content"))
        return plan

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        written = self.bucket.now().strftime("%Y%m%dT%H%M%SZ")
        key = f"{self.prefix}{written}.json"
        self.found = {"version": VERSION, "written": written, "content": self.content}
        for name in (key, f"{self.prefix}latest.json"):
            self.bucket.write_json(name, self.found)
        return self.facts(key)

    def facts(self, key: str = "") -> dict[str, t.Any]:
        same = self.found.get("content") == self.content
        return {"key": key or (f"{self.prefix}{self.found['written']}.json" if same else "")}
