# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The arithmetic of the benchmarks, and what they run on the host."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import sqlite3
import subprocess
import sys
import typing as t

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> t.Any:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


measure = load("measure")


def far(name: str, *arguments: object) -> t.Any:
    argv = [sys.executable, BENCHMARKS / "far" / name, *map(str, arguments)]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def test_what_counts_is_the_median_of_the_ratios_of_the_pairs() -> None:
    assert measure.median_ratio([10, 40, 90], [1, 2, 3]) == 20


def test_goals_are_bounds_that_belong_to_them() -> None:
    assert measure.faster("", [1.0], [25.0], 25).met is True
    assert measure.faster("", [1.0], [24.9], 25).met is False
    assert measure.longer("", [1.1], [1.0], 1.1).met is True
    assert measure.longer("", [1.2], [1.0], 1.1).met is False
    assert measure.more("", [0.3], [0.25], 0.1).met is True
    assert measure.more("", [0.4], [0.25], 0.1).met is False
    assert measure.longer("", [5.0], [1.0]).met is None


def test_the_table_is_aligned() -> None:
    rows = [measure.faster("short", [0.018], [1.8], 20), measure.count("a longer name", "x", "x", True)]
    lines = measure.table(rows).splitlines()
    assert lines[1].split() == ["short", "1", "18", "ms", "1.80", "s", "100.00", "x", "faster", ">=", "20", "met"]
    assert lines[0].index("PAIRS") == lines[1].index("1") == len("a longer name  ")


def test_the_clock_alternates_and_prepares(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    say = {name: f"echo {name} >> {log}" for name in ("round", "ready", "a", "b")}
    sides = {"a": {"before": say["ready"], "run": f"{say['a']}; echo done"}, "b": {"run": say["b"]}}
    (tmp_path / "plan").write_text(json.dumps({"rounds": 2, "before": say["round"], "sides": sides}))
    found = far("clock.py", tmp_path / "plan")
    assert log.read_text().split() == ["round", "ready", "a", "b", "round", "b", "ready", "a"]
    assert {name: len(times) for name, times in found["times"].items()} == {"a": 2, "b": 2}
    assert found["last"]["a"] == "done\n"


def test_the_clock_takes_a_time_that_is_told(tmp_path: pathlib.Path) -> None:
    sides = {"a": {"run": """echo '{"seconds": 0.25}'""", "reads": "seconds"}}
    (tmp_path / "plan").write_text(json.dumps({"rounds": 2, "before": "", "sides": sides}))
    assert far("clock.py", tmp_path / "plan")["times"] == {"a": [0.25, 0.25]}


def test_the_data_of_a_bot_grow_and_keep_their_log(tmp_path: pathlib.Path) -> None:
    made, top = load("far/made"), tmp_path / "said.sqlite"
    for count in (1, 2):
        made.say(top, made.Maker(1), 200)
        assert (tmp_path / "said.sqlite-wal").stat().st_size
        with contextlib.closing(sqlite3.connect(f"file:{top}?mode=ro", uri=True)) as database:
            assert database.execute("SELECT count(*) FROM said").fetchone() == (200 * count,)


def test_the_trace_names_programs_and_written_files(tmp_path: pathlib.Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("""import contextlib, subprocess, sys
subprocess.run(["/bin/echo", "seen"], stdout=subprocess.DEVNULL)
with contextlib.suppress(OSError):
    open("/proc/not-there", "w")
open("/proc/self/stat").close()
print('{"changed": false}')
sys.exit(0)
""")
    assert far("trace.py", module) == {"result": {"changed": False}, "programs": [["echo", "seen"]],
                                       "written": ["open /proc/not-there"]}


def test_rounds_alternate_and_end_when_patience_does() -> None:
    said: list[str] = []

    def side(name: str) -> t.Callable[[], dict[str, float]]:
        return lambda: said.append(name) or {"create": 1.0, "remove": 2.0}

    found = measure.rounds(2, {"a": side("a"), "b": side("b")})
    assert said == ["a", "b", "b", "a"]
    assert found["a"] == {"create": [1.0, 1.0], "remove": [2.0, 2.0]}
    assert measure.rounds(9, {"a": side("a")}, patience=0)["a"]["create"] == [1.0]


def test_a_ratio_of_sides_with_unlike_counts_says_the_smaller_count() -> None:
    row = measure.faster("", [1.0, 1.0, 1.0], [8.0], 8, "less")
    assert (row.pairs, row.ratio, row.met) == ("1", "8.00 x less", True)


def test_a_body_is_timed_without_imports(tmp_path: pathlib.Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.5)\n")
    (tmp_path / "program.py").write_text("""import json
def main():
    import slow
    print(json.dumps({"changed": False}))
""")
    first, second = (far("body.py", tmp_path, "program") for _run in range(2))
    assert first["seconds"] >= 0.5 > second["seconds"]
    assert second["changed"] is False


def test_a_body_that_fails_has_no_time(tmp_path: pathlib.Path) -> None:
    (tmp_path / "program.py").write_text("""import json
def main():
    print(json.dumps({"failed": True, "msg": "no engine"}))
""")
    done = subprocess.run([sys.executable, BENCHMARKS / "far/body.py", tmp_path, "program"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1 and done.stderr.strip() == "no engine"


def test_the_bare_client_sees_what_differs() -> None:
    covers = load("far/bare_kubernetes").covers
    assert covers({"a": [{"b": 1}]}, {"a": [{"b": 1, "made": "up"}], "more": 2})
    assert not covers({"a": [{"b": 1}]}, {"a": [{"b": 2}]})
    assert not covers({"a": [{"b": 1}]}, {"a": []})


def test_within_is_a_factor_and_some_seconds() -> None:
    row = measure.within("what", [3.0, 3.2, 9.0], [2.0, 2.0, 2.0], 1.1, 1)
    assert (row.goal, row.ratio, row.met) == ("<= 1.1 x + 1 s", "1.60 x as long", True)
    assert not measure.within("what", [3.3], [2.0], 1.1, 1).met
