# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was measured, as rows of a table."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
import typing as t

HEAD = ("WHAT", "PAIRS", "OURS", "PEER", "RATIO", "GOAL", "")
Times = t.Sequence[float]
Side = t.Callable[[], float]
Step = t.TypeVar("Step")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line; met is None where there is no goal."""

    what: str
    pairs: str
    ours: str
    peer: str
    ratio: str
    goal: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        verdict = "" if self.met is None else "met" if self.met else "MISSED"
        return (self.what, self.pairs, self.ours, self.peer, self.ratio, self.goal, verdict)


def seconds(times: Times) -> str:
    middle = statistics.median(times)
    return f"{middle:.2f} s" if middle >= 1 else f"{middle * 1000:.0f} ms"


def median_ratio(above: Times, below: Times) -> float:
    return statistics.median(one / other for one, other in zip(above, below))


def pairs(most: int, ours: Side, peer: Side, patience: float = 120) -> tuple[list[float], list[float]]:
    """Up to so many pairs; none begins after so many seconds, because some sides are slow."""
    times: list[tuple[float, float]] = []
    began = time.monotonic()
    while len(times) < most and time.monotonic() - began < patience:
        times.append((ours(), peer()))
        print("pair {}: {:.1f} s, {:.1f} s".format(len(times), *times[-1]), file=sys.stderr, flush=True)
    return [pair[0] for pair in times], [pair[1] for pair in times]


def rounds(most: int, sides: t.Mapping[str, t.Callable[[], t.Mapping[str, Step]]], patience: float = 1800
           ) -> dict[str, dict[str, list[Step]]]:
    """Side -> step -> what up to so many rounds gave; none begins after so many seconds. The order alternates."""
    order, began = list(sides), time.monotonic()
    found: dict[str, dict[str, list[Step]]] = {name: {} for name in order}
    done = 0
    while done < most and (not done or time.monotonic() - began < patience):
        for name in order:
            since = time.monotonic()
            for step, value in sides[name]().items():
                found[name].setdefault(step, []).append(value)
            print(f"round {done + 1}, {name}: {time.monotonic() - since:.1f} s", file=sys.stderr, flush=True)
        order.reverse()
        done += 1
    return found


def faster(what: str, ours: Times, peer: Times, least: float | None = None, word: str = "faster") -> Row:
    """How many times faster we are than the peer."""
    ratio = median_ratio(peer, ours)
    goal, met = ("", None) if least is None else (f">= {least:g}", ratio >= least)
    return Row(what, str(min(len(ours), len(peer))), seconds(ours), seconds(peer), f"{ratio:.2f} x {word}", goal, met)


def longer(what: str, ours: Times, peer: Times, most: float | None = None) -> Row:
    """How many times as long as the peer we take."""
    ratio = median_ratio(ours, peer)
    goal, met = ("", None) if most is None else (f"<= {most:g}", ratio <= most)
    return Row(what, str(len(ours)), seconds(ours), seconds(peer), f"{ratio:.2f} x as long", goal, met)


def within(what: str, ours: Times, peer: Times, times: float, plus: float) -> Row:
    """Whether we take at most so many times as long as the peer, and so many seconds."""
    row = longer(what, ours, peer)
    beyond = statistics.median(one - times * other for one, other in zip(ours, peer))
    return dataclasses.replace(row, goal=f"<= {times:g} x + {plus:g} s", met=beyond <= plus)


def more(what: str, ours: Times, peer: Times, most: float) -> Row:
    """How many seconds more than the peer we take."""
    added = statistics.median(one - other for one, other in zip(ours, peer))
    return Row(what, str(len(ours)), seconds(ours), seconds(peer), f"+{added * 1000:.0f} ms",
               f"<= {most * 1000:.0f} ms", added <= most)


def count(what: str, found: str, goal: str, met: bool) -> Row:
    """What noise does not touch."""
    return Row(what, "", found, "", "", goal, met)


def table(rows: t.Sequence[Row]) -> str:
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
