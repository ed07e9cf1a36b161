# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan, and the frame that runs every module."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError, bad_value
from ansible_collections.clawops.fleet.plugins.module_utils._plan import Plan, run


class Module:
    """The part of AnsibleModule that run() uses."""

    def __init__(self, check_mode: bool = False) -> None:
        self.check_mode = check_mode
        self.warnings: list[str] = []
        self.exit: dict[str, t.Any] | None = None
        self.fail: dict[str, t.Any] | None = None

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def exit_json(self, **kwargs: t.Any) -> None:
        self.exit = kwargs

    def fail_json(self, msg: str, **kwargs: t.Any) -> None:
        self.fail = {"msg": msg, **kwargs}


def plan_with(*changes: tuple[str, t.Any, t.Any]) -> Plan:
    plan = Plan()
    for subject, desired, observed in changes:
        plan.compare(subject, desired, observed)
    return plan


@pytest.mark.parametrize(("desired", "observed", "action"), [
    ({"a": 1}, None, "create"),
    ({"a": 1}, {"a": 2}, "update"),
    (None, {"a": 2}, "delete"),
])
def test_a_difference_becomes_one_change(desired: t.Any, observed: t.Any, action: str) -> None:
    plan = Plan()
    assert plan.compare("thing", desired, observed)
    assert plan.changed
    assert plan.complete
    assert plan.touches("thing")
    assert [(c.subject, c.action, c.before, c.after) for c in plan.changes] == [("thing", action, observed, desired)]


@pytest.mark.parametrize("value", [None, "", 0, {"a": [1, 2]}])
def test_equal_values_change_nothing(value: t.Any) -> None:
    plan = Plan()
    assert not plan.compare("thing", value, value)
    assert not plan.changed
    assert plan.result() == {"changed": False, "plan_complete": True, "actions": [],
                             "diff": {"before": {}, "after": {}}}


def test_changes_keep_their_order() -> None:
    plan = plan_with(("b", 1, None), ("a", 1, None))
    plan.add("c", "restart")
    assert [(action["subject"], action["action"]) for action in plan.result()["actions"]] == [
        ("b", "create"), ("a", "create"), ("c", "restart")]


def test_the_diff_has_both_sides() -> None:
    plan = plan_with(("new", 1, None), ("old", None, 2), ("both", 3, 4))
    assert plan.diff() == {"before": {"old": 2, "both": 4}, "after": {"new": 1, "both": 3}}


@pytest.mark.parametrize(("desired", "observed"), [("hunter2", None), ("hunter2", "hunter1"), (None, "hunter1")])
def test_a_secret_shows_that_it_changes_and_not_what_it_is(desired: t.Any, observed: t.Any) -> None:
    plan = Plan()
    assert plan.compare("password", desired, observed, secret=True)
    assert "hunter" not in repr(plan.changes) + repr(plan.result())
    assert plan.diff()["before"] != plan.diff()["after"]


def test_an_unseen_part_counts_as_a_change() -> None:
    plan = Plan()
    plan.cannot_see("no engine yet")
    assert plan.changed
    assert not plan.complete
    assert plan.result()["plan_complete"] is False


@pytest.mark.parametrize(("check_mode", "applied"), [(False, True), (True, False)])
def test_run_applies_a_plan_except_in_check_mode(check_mode: bool, applied: bool) -> None:
    module, seen = Module(check_mode), []

    def apply(plan: Plan) -> dict[str, t.Any]:
        seen.append(plan)
        return {"thing": "after"}

    run(module, lambda: plan_with(("thing", 1, None)), apply, lambda: {"thing": "before"})
    assert bool(seen) is applied
    assert module.exit is not None
    assert module.exit["changed"] is True
    assert module.exit["thing"] == ("after" if applied else "before")
    assert module.fail is None


def test_check_mode_reports_what_the_real_run_reports() -> None:
    real, dry = Module(), Module(check_mode=True)
    for module in (real, dry):
        run(module, lambda: plan_with(("thing", 1, None), ("other", None, 2)), lambda plan: {})
    assert real.exit == dry.exit


def test_run_writes_nothing_without_a_change() -> None:
    def apply(plan: Plan) -> dict[str, t.Any]:
        raise AssertionError("nothing was to be written")

    module = Module()
    run(module, Plan, apply, lambda: {"thing": 1})
    assert module.exit is not None
    assert module.exit["changed"] is False
    assert module.exit["thing"] == 1


def blind() -> Plan:
    plan = Plan()
    plan.cannot_see("no engine yet")
    return plan


def test_what_cannot_be_seen_is_a_warning_in_check_mode() -> None:
    module = Module(check_mode=True)
    run(module, blind, lambda plan: {})
    assert module.exit is not None
    assert (module.exit["changed"], module.exit["plan_complete"]) == (True, False)
    assert len(module.warnings) == 1
    assert "no engine yet" in module.warnings[0]


def test_what_cannot_be_seen_is_an_error_otherwise() -> None:
    module = Module()
    run(module, blind, lambda plan: {})
    assert module.exit is None
    assert module.fail is not None
    assert module.fail["failure"]["code"] == "cannot_observe"


@pytest.mark.parametrize("where", ["observe", "apply", "facts"])
def test_a_foreseen_failure_becomes_one_error(where: str) -> None:
    def fail(*args: t.Any) -> t.Any:
        raise FleetError("full", "The disk is full.", "Make room.", free=0)

    module = Module()
    run(module,
        fail if where == "observe" else lambda: plan_with(("thing", 1, None)) if where == "apply" else Plan(),
        fail, fail)
    assert module.exit is None
    assert module.fail == {"msg": "The disk is full. Make room.",
                           "failure": {"code": "full", "message": "The disk is full.", "hint": "Make room.",
                                       "details": {"free": 0}}}


def test_an_unforeseen_failure_keeps_its_trace() -> None:
    def fail() -> Plan:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Module(), fail, lambda plan: {})


def test_bad_value_names_parameter_value_and_remedy() -> None:
    result = bad_value("memory", "2 Gb", "Write 2Gi.").result()
    assert result["msg"] == "memory: '2 Gb' is not accepted. Write 2Gi."
    assert result["failure"]["details"] == {"parameter": "memory"}
