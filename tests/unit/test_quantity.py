# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One notation for sizes and processors."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._quantity import parse_bytes, parse_cpus


@pytest.mark.parametrize(("value", "size"), [
    ("1", 1), (1024, 1024), ("1k", 1000), ("1Ki", 1024), ("500M", 500_000_000), ("512Mi", 536_870_912),
    ("1.5Gi", 1_610_612_736), ("2G", 2_000_000_000), ("1Ti", 1_099_511_627_776),
])
def test_bytes(value: t.Any, size: int) -> None:
    assert parse_bytes("memory", value) == size


@pytest.mark.parametrize("value", ["", "0", "0Gi", "-1", "2 Gb", "2 Gi", "2Gb", "2GB", "2gi", "2KI", "1e3", ".5Gi",
                                   "1.Gi", "Gi", "2Gi\n", None, True, [1]])
def test_bad_bytes(value: t.Any) -> None:
    with pytest.raises(FleetError) as caught:
        parse_bytes("memory", value)
    assert caught.value.message == f"memory: {value!r} is not accepted."
    assert "2Gi" in caught.value.hint


@pytest.mark.parametrize(("value", "cpus"), [
    ("2", 2.0), (1, 1.0), ("0.5", 0.5), (1.5, 1.5), ("500m", 0.5), ("1m", 0.001),
])
def test_cpus(value: t.Any, cpus: float) -> None:
    assert parse_cpus("cpus", value) == cpus


@pytest.mark.parametrize("value", ["", "0", "0m", "-1", "two", "1 m", "1M", "0.0001", "inf", "nan", None, True])
def test_bad_cpus(value: t.Any) -> None:
    with pytest.raises(FleetError) as caught:
        parse_cpus("cpus", value)
    assert caught.value.message.startswith("cpus: ")
