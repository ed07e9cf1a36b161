# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Desired against observed: the plan that feeds changed, the diff, check mode and the apply step alike.

Every module goes observe -> normalise -> plan -> apply. What is not in the plan is not done,
and what is in the plan is what check mode reports, so the two cannot disagree.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import FleetError

HIDDEN = "(hidden)"


class Warner(t.Protocol):
    """The part of AnsibleModule that run() needs."""

    check_mode: bool

    def warn(self, warning: str) -> None: ...
    def exit_json(self, **kwargs: t.Any) -> t.Any: ...
    def fail_json(self, msg: str, **kwargs: t.Any) -> t.Any: ...


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference: what it concerns, the verb, the value before and the value after (JSON-able, no secrets)."""

    subject: str
    action: str
    before: t.Any = None
    after: t.Any = None


@dataclasses.dataclass
class Plan:
    """An ordered list of changes; incomplete when something could not be observed."""

    changes: list[Change] = dataclasses.field(default_factory=list)
    unseen: list[str] = dataclasses.field(default_factory=list)

    def add(self, subject: str, action: str, before: t.Any = None, after: t.Any = None) -> None:
        self.changes.append(Change(subject, action, before, after))

    def compare(self, subject: str, desired: t.Any, observed: t.Any, secret: bool = False) -> bool:
        """Adds create, update or delete when the normalised values differ; None means absent. True when they differ."""
        if desired == observed:
            return False
        action = "create" if observed is None else "delete" if desired is None else "update"
        before, after = (None if value is None else f"{HIDDEN} {when}" if secret else value
                         for value, when in ((observed, "old"), (desired, "new")))
        self.add(subject, action, before, after)
        return True

    def cannot_see(self, reason: str) -> None:
        """Marks the plan as incomplete: legitimate in check mode only, where an earlier step was not really taken."""
        self.unseen.append(reason)

    def touches(self, subject: str) -> bool:
        return any(change.subject == subject for change in self.changes)

    @property
    def changed(self) -> bool:
        return bool(self.changes or self.unseen)

    @property
    def complete(self) -> bool:
        return not self.unseen

    def diff(self) -> dict[str, t.Any]:
        before = {c.subject: c.before for c in self.changes if c.before is not None}
        after = {c.subject: c.after for c in self.changes if c.after is not None}
        return {"before": before, "after": after}

    def result(self) -> dict[str, t.Any]:
        """The keys that every module returns."""
        actions = [{"subject": c.subject, "action": c.action} for c in self.changes]
        return {"changed": self.changed, "plan_complete": self.complete, "actions": actions, "diff": self.diff()}


def run(module: Warner, observe_and_plan: t.Callable[[], Plan], apply: t.Callable[[Plan], dict[str, t.Any]],
        facts: t.Callable[[], dict[str, t.Any]] = dict) -> None:
    """Runs one module to its end.

    observe_and_plan reads and decides, apply writes and returns the module's own values, facts returns
    the same keys without writing (unchanged and check mode). FleetError becomes one fail_json.
    """
    try:
        plan = observe_and_plan()
        if not plan.complete and not module.check_mode:
            raise FleetError("cannot_observe", "; ".join(plan.unseen))
        for reason in plan.unseen:
            module.warn(f"The plan is not complete: {reason}")
        values = apply(plan) if plan.changed and not module.check_mode else facts()
    except FleetError as error:
        module.fail_json(**error.result())
        return
    module.exit_json(**{**plan.result(), **values})
