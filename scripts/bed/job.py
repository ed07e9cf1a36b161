# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One part's work: progress lines on stderr, a log file, and a failure that shows the log's end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import typing as t

from . import cache

HEARTBEAT = 20
TAIL = 25
START = time.monotonic()
_print = threading.Lock()


class BedError(Exception):
    """A part can't be brought up or down; the text says why."""


class Job:
    """What one part does, told to the operator and written to its log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log = cache.folder("log") / f"{name.replace(':', '-')}.log"
        self._doing = ""

    def say(self, text: str) -> None:
        """One line of progress: what begins now."""
        self._doing = text.split(" (")[0]
        self._line(text)

    def _line(self, text: str) -> None:
        with _print:
            print(f"[bed {time.monotonic() - START:6.1f}s] {self.name}: {text}", file=sys.stderr, flush=True)
        with self.log.open("a") as log:
            log.write(f"--- {time.strftime('%F %T')} {text}\n")

    def run(self, argv: t.Sequence[object], env: dict[str, str] | None = None, data: bytes | None = None) -> None:
        """Run a program with its output in the log; raise with the log's end when it fails."""
        words = [str(word) for word in argv]
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(words)}\n".encode())
            log.flush()
            start = log.tell()
            stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
            child = subprocess.Popen(words, stdin=stdin, stdout=log, stderr=log, env=env)
            began = time.monotonic()
            while True:
                try:
                    child.communicate(data, timeout=HEARTBEAT)
                    break
                except subprocess.TimeoutExpired:
                    data = None
                    self._line(f"{self._doing} ... {time.monotonic() - began:.0f} s")
        if child.returncode:
            raise BedError(f"`{words[0]}` ended with {child.returncode}; the end of {self.log}:\n{self._tail(start)}")

    def _tail(self, start: int) -> str:
        with self.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TAIL:])

    def wait(self, what: str, ready: t.Callable[[], bool], timeout: float = 60) -> None:
        """Poll until ready() is true."""
        end = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > end:
                raise BedError(f"waited {timeout:.0f} s for {what}")
            time.sleep(0.2)


def output(*argv: object) -> str | None:
    """What a program prints, or None when it fails or doesn't exist."""
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
