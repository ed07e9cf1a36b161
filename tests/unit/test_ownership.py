# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names, labels and the guard before every change."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._ownership import (
    MANAGED,
    check_name,
    digest,
    guard,
    is_ours,
    labels,
    short_hash,
)


@pytest.mark.parametrize("name", ["a", "alpha", "a1", "a-b", "a--b", "a" * 28])
def test_good_names(name: str) -> None:
    assert check_name("name", name) == name


@pytest.mark.parametrize("name", ["", "1a", "-a", "a-", "A", "aB", "a_b", "a.b", "..", "a/../b", "a b", "a\n", "ä",
                                  "a" * 29, None, 7, ["a"]])
def test_bad_names_are_refused_by_parameter_and_value(name: t.Any) -> None:
    with pytest.raises(FleetError) as caught:
        check_name("bots[0].name", name)
    assert caught.value.code == "bad_value"
    assert caught.value.message.startswith("bots[0].name: ")


def test_digest_sees_meaning_and_not_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert digest({"a": "1"}) != digest({"a": 1})


def test_labels_are_the_four_of_the_contract() -> None:
    found = labels("home", "bot", "alpha", {"memory": 1})
    assert set(found) == {"clawops.fleet/managed", "clawops.fleet/fleet", "clawops.fleet/bot", "clawops.fleet/spec"}
    assert found["clawops.fleet/managed"] == "true"
    assert found["clawops.fleet/fleet"] == "home"
    assert found["clawops.fleet/bot"] == "alpha"
    assert found["clawops.fleet/spec"] != labels("home", "bot", "alpha", {"memory": 2})["clawops.fleet/spec"]


@pytest.mark.parametrize(("found", "ours"), [(None, False), ({}, False), ({"other": "true"}, False),
                                             ({MANAGED: "false"}, False), ({MANAGED: "true"}, True)])
def test_only_the_label_makes_it_ours(found: dict[str, str] | None, ours: bool) -> None:
    assert is_ours(found) is ours


def test_guard_lets_our_own_pass() -> None:
    guard("container bot-alpha", labels("home", "bot", "alpha", {}), "bot", "alpha")


@pytest.mark.parametrize(("found", "whose"), [
    (None, "is not managed by this collection"),
    ({}, "is not managed by this collection"),
    ({"com.example": "x"}, "is not managed by this collection"),
    (labels("home", "bot", "bravo", {}), "belongs to bot bravo"),
    (labels("home", "space", "alpha", {}), "is not managed by this collection"),
    ({"clawops.fleet/bot": "alpha"}, "belongs to bot alpha"),
])
def test_guard_stops_at_what_is_foreign_unless_adopted(found: dict[str, str] | None, whose: str) -> None:
    with pytest.raises(FleetError) as caught:
        guard("container bot-alpha", found, "bot", "alpha")
    assert caught.value.code == "foreign_object"
    assert caught.value.message == f"container bot-alpha exists and {whose}."
    guard("container bot-alpha", found, "bot", "alpha", adopt=True)


def test_short_hash_fits_a_bridge_name() -> None:
    assert short_hash("alpha") == "8ed3f6ad"
    assert len(f"cb-{short_hash('a' * 28)}") <= 15
