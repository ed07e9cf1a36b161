# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Looks whether SQLite databases are sound; runs as a program of its own, as the user to whom they were restored.

Standard input: JSON [uid, [[path, question]]]. Standard output: for each what is wrong with it, "" for nothing, and the
rows that answer the question, null where there is none or no such table.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import urllib.parse


def examine(path: str, question: str) -> tuple[str, list[list[object]] | None]:
    uri = f"file:{urllib.parse.quote(os.fsencode(path))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as base:
            verdict = [str(row[0]) for row in base.execute("PRAGMA integrity_check(3)")]
            if verdict != ["ok"]:
                return "; ".join(verdict)[:300], None
            return "", _ask(base, question) if question else None
    except sqlite3.Error as error:
        return str(error), None


def _ask(base: sqlite3.Connection, question: str) -> list[list[object]] | None:
    try:
        return [list(row) for row in base.execute(question)]
    except sqlite3.OperationalError:
        return None


if __name__ == "__main__":
    owner, questions = json.load(sys.stdin)
    # After the imports, which the user may not be allowed to read.
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    json.dump([examine(*one) for one in questions], sys.stdout)
