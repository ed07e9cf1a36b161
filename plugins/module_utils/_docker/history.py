# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What was typed in the shells of spaces, once each, as events space.shell with the time that bash stamped.

The space owns the file and may do anything to it, so it is opened without following links, read up to a cap, and
found again by what was read last. It is a help for people, no proof: who wants to hide a command can.
Lines go first into a journal, then into the log, so that a worker that is killed repeats and misses none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import stat
import time
import typing as t
import uuid

from .. import _audit
from .._files import read_json, write
from .client import Engine
from .names import STATE, WORKSPACE
from .worker import Found, alone, spaces

FILE = ".bash_history"
ANCHOR = 1024
#: Read at most this much at a time, pass over a backlog that is longer, and record no more of a space in one day.
CHUNK, BACKLOG, DAY = 256 * 1024, 4 * 1024**2, 4 * 1024**2
ENTRIES = 1000
STAMP = re.compile(rb"#(\d{9,11})")
_NEXT = re.compile(rb"\n(?=#\d{9,11}\n)")


class Entry(t.NamedTuple):
    """One command as it was typed, and when; stamped says whether bash said so."""

    when: int
    text: bytes
    stamped: bool = True

    def hashed(self) -> str:
        return hashlib.sha256(self.text).hexdigest()[:16]


@dataclasses.dataclass
class Cursor:
    """How far a file was read: up to offset, where the bytes of anchor stood before; latest entries by their hash."""

    offset: int = 0
    anchor: str = ""
    version: list[int] = dataclasses.field(default_factory=list)
    stamp: int = 0
    latest: list[str] = dataclasses.field(default_factory=list)
    day: int = 0
    spent: int = 0


@dataclasses.dataclass
class News:
    """What a file has that was not seen, and bytes that were passed over."""

    entries: list[Entry] = dataclasses.field(default_factory=list)
    dropped: int = 0


class Ingest:
    """One pass over the spaces of a host."""

    def __init__(self, engine: Engine, say: t.Callable[[str], None], state: pathlib.Path = STATE, log: str = _audit.LOG,
                 clock: t.Callable[[], float] = time.time):
        self.engine, self.say, self.state, self.log, self.clock = engine, say, state, log, clock
        self.path = state / "history.json"

    def run(self) -> int:
        """The number of commands that were recorded."""
        with alone("history", self.state) as mine:
            if not mine:
                self.say("another pass is running")
                return 0
            return self._pass()

    def _pass(self) -> int:
        saved = read_json(self.path)
        saved = saved if isinstance(saved, dict) else {}
        if saved.get("pending"):
            self._finish(saved["pending"])
        cursors = _cursors(saved.get("cursors"))
        before = {source: dataclasses.replace(cursor) for source, cursor in cursors.items()}
        lines: list[_audit.Entry] = []
        for source, name in self._sources().items():
            news = look(source, cursors.setdefault(source, Cursor()), int(self.clock()))
            lines += self._lines(name, news)
        kept = {source: cursor for source, cursor in cursors.items() if os.path.isdir(source)}
        if lines or kept != before or saved.get("pending"):
            self._commit(kept, lines)
        return len(lines)

    def _sources(self) -> dict[str, str]:
        """Directory on the host -> the space that has it as its workspace."""
        found: dict[str, str] = {}
        for name, summary in spaces(self.engine):
            source = _source(summary)
            if source:
                found.setdefault(source, name)
        return found

    def _lines(self, name: str, news: News) -> list[_audit.Entry]:
        origin = _audit.Origin(f"space:{name}")
        lines = [_audit.line("space.shell", name, origin, entry.when, outcome="recorded", command=entry.text)
                 for entry in news.entries]
        if news.dropped:
            lines.append(_audit.line("space.shell", name, origin, self.clock(), outcome="dropped", bytes=news.dropped))
            self.say(f"{name}: {news.dropped} bytes of history were too much to record")
        if news.entries:
            self.say(f"{name}: {len(news.entries)} commands recorded")
        return lines

    def _commit(self, cursors: t.Mapping[str, Cursor], lines: list[_audit.Entry]) -> None:
        saved: dict[str, t.Any] = {"cursors": {key: dataclasses.asdict(value) for key, value in cursors.items()}}
        if lines:
            batch = uuid.uuid4().hex
            numbered = [{**entry, "ref": f"{batch}.{number}"} for number, entry in enumerate(lines)]
            pending = {"batch": batch, "time": self.clock(), "lines": numbered}
            write(self.path, _audit.dumps({**saved, "pending": pending}), 0o600)
            _audit.append(numbered, self.log)
        write(self.path, _audit.dumps(saved), 0o600)

    def _finish(self, pending: dict[str, t.Any]) -> None:
        """Writes what a killed pass did not: the log says how far it came."""
        ours = f"{pending['batch']}."
        done = {entry["ref"] for entry in _audit.read(self.log, pending["time"] - 60)
                if str(entry.get("ref", "")).startswith(ours)}
        left = [entry for entry in pending["lines"] if entry["ref"] not in done]
        if left:
            _audit.append(left, self.log)


def _source(summary: Found) -> str:
    return next((mount.get("Source") or "" for mount in summary.get("Mounts") or []
                 if mount.get("Destination") == WORKSPACE), "")


def _cursors(values: t.Any) -> dict[str, Cursor]:
    known = {}
    for source, value in (values if isinstance(values, dict) else {}).items():
        with contextlib.suppress(TypeError):
            known[source] = Cursor(**value)
    return known


def look(source: str, cursor: Cursor, now: int) -> News:
    """What is new in the history file of a workspace; the cursor is moved behind it."""
    handle = _open(source)
    if handle is None:
        return News()
    try:
        found = os.fstat(handle)
        version = [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        if version == cursor.version:
            return News()
        news, end = _news(handle, found, cursor, now)
        # Not all of it was read: the same version is looked at again.
        cursor.version = version if end == found.st_size else []
        cursor.offset = end
        cursor.anchor = os.pread(handle, min(ANCHOR, end), max(0, end - ANCHOR)).decode("latin-1")
        return news
    finally:
        os.close(handle)


def _open(source: str) -> int | None:
    """The file itself: no link, pipe or device that was put in its place is opened."""
    try:
        folder = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        file = os.open(FILE, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(file)


def _news(handle: int, found: os.stat_result, cursor: Cursor, now: int) -> tuple[News, int]:
    """What is new, and where the reading ended."""
    start, known = _resume(handle, found.st_size, cursor)
    dropped = 0
    if found.st_size - start > BACKLOG:
        dropped = found.st_size - start - CHUNK
        start += dropped
    data = os.pread(handle, CHUNK, start)
    if dropped:
        cut = data.find(b"\n") + 1
        start, data, dropped = start + cut, data[cut:], dropped + cut
    taken = _whole(data, start + len(data) < found.st_size)
    if not taken and len(data) == CHUNK:
        return News(dropped=dropped + CHUNK), start + CHUNK  # one endless line
    entries, length = parse(taken, min(int(found.st_mtime), now), now)
    if not known:
        entries = [entry for entry in entries if _unseen(entry, cursor)]
    _remember(cursor, entries)
    entries, dropped = _budget(cursor, entries, dropped, now)
    return News(entries, dropped), start + length


def _resume(handle: int, size: int, cursor: Cursor) -> tuple[int, bool]:
    """Where to go on, and whether all from there on is new: the file may have been cut, rotated or written anew."""
    anchor = cursor.anchor.encode("latin-1")
    if not anchor:
        return 0, not cursor.stamp
    if cursor.offset <= size and os.pread(handle, len(anchor), cursor.offset - len(anchor)) == anchor:
        return cursor.offset, True
    base = max(0, size - BACKLOG)
    tail = os.pread(handle, BACKLOG, base)
    at = tail.rfind(anchor)
    while at > 0 and tail[at - 1:at] != b"\n" and len(anchor) < ANCHOR:
        at = tail.rfind(anchor, 0, at + len(anchor) - 1)
    return (base + at + len(anchor), True) if at >= 0 else (0, False)


def _whole(data: bytes, more: bool) -> bytes:
    """Up to the end of the last whole line; where there is more to read, of the last whole entry."""
    data = data[:data.rfind(b"\n") + 1]
    if more:
        ends = [match.end() for match in _NEXT.finditer(data)]
        return data[:ends[-1]] if ends else data
    return data


def parse(data: bytes, modified: int, now: int) -> tuple[list[Entry], int]:
    """The first entries and the length that they have. Lines before the first stamp have the file's own time."""
    entries: list[Entry] = []
    when: int | None = None
    length = 0
    for line in data.splitlines(keepends=True):
        text = line.rstrip(b"\n")
        match = STAMP.fullmatch(text)
        begins = match is not None or when is None
        if begins and len(entries) >= ENTRIES:
            break
        length += len(line)
        if match:
            when = min(int(match[1]), now)
            entries.append(Entry(when, b""))
        elif when is None:
            entries.append(Entry(modified, text, False))
        else:
            last = entries[-1]
            entries[-1] = last._replace(text=last.text + b"\n" + text if last.text else text)
    return [entry for entry in entries if entry.text.strip()], length


def _unseen(entry: Entry, cursor: Cursor) -> bool:
    return entry.when > cursor.stamp or (entry.when == cursor.stamp and entry.hashed() not in cursor.latest)


def _remember(cursor: Cursor, entries: t.Sequence[Entry]) -> None:
    if not entries:
        return
    newest = max(entry.when for entry in entries)
    if newest > cursor.stamp:
        cursor.stamp, cursor.latest = newest, []
    cursor.latest += [entry.hashed() for entry in entries if entry.when == cursor.stamp]
    cursor.latest = cursor.latest[-100:]


def _budget(cursor: Cursor, entries: list[Entry], dropped: int, now: int) -> tuple[list[Entry], int]:
    """A space must not push what others did out of the log."""
    if cursor.day != now // 86400:
        cursor.day, cursor.spent = now // 86400, 0
    kept = []
    for entry in entries:
        size = len(entry.text) + 200
        if cursor.spent + size > DAY:
            dropped += len(entry.text)
        else:
            cursor.spent += size
            kept.append(entry)
    return kept, dropped
