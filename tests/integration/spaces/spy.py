# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looks for words in arguments and environment of all processes, until its input ends; JSON lines in and out."""

from __future__ import annotations

import json
import pathlib
import select
import sys

words, seen = json.loads(sys.stdin.readline()), set()
print("looking", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        for part in ("cmdline", "environ"):
            try:
                text = (process / part).read_bytes()
            except OSError:
                continue
            seen.update((part, word) for word in words if word.encode() in text)
print(json.dumps(sorted(seen)))
