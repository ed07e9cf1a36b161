# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs benchmarks on a host of the test bed: every figure is a ratio against a peer in the same run.

Sides alternate, and what counts is the median of the ratios of the pairs. A benchmark leaves the host as it found it,
and what was not up before goes down again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
import tempfile
import time
import typing as t

import backup
import firewall
import kubernetes
import playbook
import spaces
import vms
from box import Box
from measure import Row, table
from place import Broken

BENCHMARKS: dict[str, t.Callable[[Box], list[Row]]] = {
    "firewall": firewall.run, "backup": backup.run, "playbook": playbook.run, "kubernetes": kubernetes.run,
    "spaces": spaces.run, "vms": vms.run}


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def benchmark(name: str, box: Box) -> list[Row]:
    before, began = load(), time.monotonic()
    print(f"=== {name} on {box.host}", file=sys.stderr, flush=True)
    try:
        rows = BENCHMARKS[name](box)
        if box.quick:
            rows = [dataclasses.replace(row, met=None) for row in rows]
    finally:
        box.undo()
    took = time.monotonic() - began
    print(f"\n{name}: {box.host}, {took:.0f} s, load {before} before and {load()} after")
    print(table(rows), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/benchmarks/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="alder", help="a host of the test bed with Debian 13 (default: alder)")
    parser.add_argument("--quick", action="store_true",
                        help="few bots or spaces and one round, to see that it works: no goal is judged")
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    chosen = parser.parse_args()
    for name in chosen.name:
        if name not in BENCHMARKS:
            parser.error(f"no such benchmark: {name}; there are {', '.join(BENCHMARKS)}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="clawops-bench-") as work:
        try:
            with Box(chosen.host, pathlib.Path(work), chosen.quick) as box:
                for name in chosen.name or BENCHMARKS:
                    rows += benchmark(name, box)
        except Broken as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 2
    missed = sum(row.met is False for row in rows)
    print(f"\n{sum(row.met is True for row in rows)} goals met, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
