# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The data of a bot, always the same: made.py make DIR, and one percent of it changed: made.py change DIR.

About 1 GiB: 20 000 small files as npm leaves them, SQLite databases whose logs are not empty, transcripts in JSON
Lines, and a browser's profile with databases of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import sqlite3
import sys

PACKAGES, FILES = 200, 100
DATABASES, ROWS, ROW = 4, 25_000, 1_000
TRANSCRIPTS, BLOBS, SETTINGS = 150, 380, 24
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

    def turn(self, size: int) -> bytes:
        return json.dumps({"role": "user", "text": self.text(size).decode()}).encode() + b"\n"


def say(path: pathlib.Path, maker: Maker, count: int) -> None:
    """Changes the last hundred rows and adds some, as a writer that dies: what it wrote last stays in the log."""
    rows = [[maker.row()] for _number in range(count)]
    writer = os.fork()
    if writer:
        if os.waitpid(writer, 0)[1]:
            sys.exit(f"{path} could not be written.")
        return
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS said (id INTEGER PRIMARY KEY, text TEXT)")
    database.execute("UPDATE said SET text = ? WHERE id > (SELECT max(id) - 100 FROM said)", rows[0])
    for begin in range(0, count, 200):
        database.executemany("INSERT INTO said(text) VALUES (?)", rows[begin:begin + 200])
        database.commit()
    os._exit(0)


def make(root: pathlib.Path) -> None:
    maker = Maker(1)
    for package in range(PACKAGES):
        for number in range(FILES):
            folder = root / f"node_modules/package-{package}" / ("lib", "dist/esm", "test/unit")[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            size = min(int(maker.random.lognormvariate(9.4, 1.1)) + 20, 500_000)
            (folder / f"module-{number}.js").write_bytes(maker.text(size))
    for name in ("memory", "sessions", "browser/profile/Storage"):
        (root / name).mkdir(parents=True)
    for number in range(DATABASES):
        say(root / f"memory/{number}.sqlite", maker, ROWS)
    for number in range(SETTINGS):
        with contextlib.closing(sqlite3.connect(root / f"browser/profile/Settings {number}")) as database:
            database.execute("CREATE TABLE kept (name TEXT, value TEXT)")
            database.executemany("INSERT INTO kept VALUES (?, ?)", ((maker.row(), "") for _number in range(200)))
            database.commit()
    for number in range(TRANSCRIPTS):
        with (root / f"sessions/{number}.jsonl").open("wb") as file:
            file.writelines(maker.turn(size) for size in range(200, 1000, 10))
    for number in range(BLOBS):
        (root / f"browser/profile/Storage/{number}").write_bytes(maker.blob(number))


def change(root: pathlib.Path) -> None:
    """Every call changes something else: what was said last, a few transcripts, a few new files of the browser."""
    storage = root / "browser/profile/Storage"
    begin = len(os.listdir(storage))
    maker = Maker(begin)
    for number in range(DATABASES):
        say(root / f"memory/{number}.sqlite", maker, 200)
    for number in maker.random.sample(range(TRANSCRIPTS), 20):
        with (root / f"sessions/{number}.jsonl").open("ab") as file:
            file.writelines(maker.turn(1000) for _number in range(10))
    for number in range(begin, begin + 8):
        (storage / str(number)).write_bytes(maker.blob(number))


if __name__ == "__main__":
    {"make": make, "change": change}[sys.argv[1]](pathlib.Path(sys.argv[2]))
