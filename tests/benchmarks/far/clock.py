# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Times shell commands against each other, in rounds: clock.py PLAN. The order of the sides alternates.

No side pays for what the one before it left to be written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def shell(command: str) -> str:
    done = subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", command], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


with open(sys.argv[1], encoding="utf-8") as file:
    plan = json.load(file)
order = list(plan["sides"])
times: dict[str, list[float]] = {name: [] for name in order}
last: dict[str, str] = {}
for _round in range(plan["rounds"]):
    shell(plan["before"])
    for name in order:
        shell(plan["sides"][name].get("before", ""))
        os.sync()
        began = time.perf_counter()
        last[name] = shell(plan["sides"][name]["run"])
        took = time.perf_counter() - began
        reads = plan["sides"][name].get("reads")
        times[name].append(json.loads(last[name])[reads] if reads else took)
    order.reverse()
json.dump({"times": times, "last": last}, sys.stdout)
