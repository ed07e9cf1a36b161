# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The data of a bot, always the same: made.py make DIR, and one percent of it changed: made.py change DIR.

About 350 MB: many small files as npm leaves them, SQLite databases (an eighth), transcripts, a browser's profile.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import sqlite3
import sys

PACKAGES, FILES = 200, 60
DATABASES, ROWS, ROW = 4, 10_000, 1_000
TRANSCRIPTS, BLOBS = 150, 150
BLOB = 1 << 20


class Maker:
    """Draws text and noise from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - nothing secret
        words = [self.random.randbytes(self.random.randint(1, 8)).hex() for _number in range(5000)]
        self._text = " ".join(self.random.choices(words, k=1_500_000)).encode()

    def text(self, size: int) -> bytes:
        """Compresses about as well as source code does; no two pieces are alike."""
        begin = self.random.randrange(len(self._text) - size)
        return self.random.randbytes(8).hex().encode() + self._text[begin:begin + size - 16]

    def blob(self, number: int) -> bytes:
        """A browser's files: most are compressed already."""
        return self.text(BLOB) if number % 5 < 2 else self.random.randbytes(BLOB)

    def row(self) -> str:
        return self.text(ROW).decode()


def make(root: pathlib.Path) -> None:
    maker = Maker(1)
    for package in range(PACKAGES):
        for number in range(FILES):
            folder = root / f"node_modules/package-{package}" / ("lib", "dist/esm", "test/unit")[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            size = min(int(maker.random.lognormvariate(8.7, 1.1)) + 20, 500_000)
            (folder / f"module-{number}.js").write_bytes(maker.text(size))
    for name in ("memory", "sessions", "browser/profile/Storage"):
        (root / name).mkdir(parents=True)
    for number in range(DATABASES):
        with contextlib.closing(sqlite3.connect(root / f"memory/{number}.sqlite")) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE said (id INTEGER PRIMARY KEY, text TEXT)")
            database.executemany("INSERT INTO said(text) VALUES (?)", ([maker.row()] for _number in range(ROWS)))
            database.commit()
    for number in range(TRANSCRIPTS):
        (root / f"sessions/{number}.jsonl").write_bytes(maker.text(60_000))
    for number in range(BLOBS):
        (root / f"browser/profile/Storage/{number}").write_bytes(maker.blob(number))


def change(root: pathlib.Path) -> None:
    """Every call changes something else: what was said last, a few transcripts, a few new files of the browser."""
    storage = root / "browser/profile/Storage"
    begin = len(os.listdir(storage))
    maker = Maker(begin)
    for number in range(DATABASES):
        with contextlib.closing(sqlite3.connect(root / f"memory/{number}.sqlite")) as database:
            database.execute("UPDATE said SET text = ? WHERE id > (SELECT max(id) - 100 FROM said)", [maker.row()])
            database.executemany("INSERT INTO said(text) VALUES (?)", ([maker.row()] for _number in range(200)))
            database.commit()
    for number in maker.random.sample(range(TRANSCRIPTS), 20):
        with (root / f"sessions/{number}.jsonl").open("ab") as file:
            file.write(maker.text(10_000))
    for number in range(begin, begin + 2):
        (storage / str(number)).write_bytes(maker.blob(number))


{"make": make, "change": change}[sys.argv[1]](pathlib.Path(sys.argv[2]))
