# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Who did what, when, from which job, and how it ended: one JSON line per event.

Nothing secret belongs in here. An argument vector is recorded as it is (up to a cap), because nobody can tell
which of its words is a secret: secrets travel by standard input, environment or files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import gzip
import json
import os
import pathlib
import pwd
import re
import time
import typing as t

from ._errors import FleetError

LOG = "/var/log/clawops/audit.jsonl"
TEXT, ITEMS = 4096, 128
ACTOR, JOB = "CLAWOPS_ACTOR", "CLAWOPS_JOB"
Entry = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Origin:
    """Who acts, and the job of the controller that it belongs to."""

    actor: str
    job: str = ""

    @classmethod
    def of(cls, actor: str | None = None, job: str | None = None) -> Origin:
        """Where the caller did not say: what this program was told, who became root, or whose process this is."""
        told = os.environ.get
        return cls(actor or told(ACTOR) or told("SUDO_USER") or _login(), job or told(JOB) or "")


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def now() -> float:
    return time.time()


def stamp(seconds: float) -> str:
    """2026-11-21T03:53:34.123Z"""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@contextlib.contextmanager
def event(name: str, subject: str, origin: Origin, path: str = LOG, /, **fields: t.Any) -> t.Iterator[Entry]:
    """Records what the body does, whether or not it succeeds; what the body puts in the entry is recorded, too.

    When the log can't be written nothing is done at all. entry["outcome"] replaces "ok".
    """
    os.close(_open(path))
    begun, clock = now(), time.monotonic()
    entry: Entry = dict(fields)
    try:
        yield entry
    except FleetError as error:
        entry.update(outcome="failed", error=error.code, reason=error.message)
        raise
    except Exception as error:
        entry.update(outcome="failed", error=type(error).__name__)
        raise
    except BaseException:
        entry["outcome"] = "interrupted"
        raise
    finally:
        outcome = entry.pop("outcome", "ok")
        took = round((time.monotonic() - clock) * 1000)
        append([line(name, subject, origin, begun, outcome=outcome, duration_ms=took, **entry)], path)


def line(name: str, subject: str, origin: Origin, when: float, /, **fields: t.Any) -> Entry:
    """An entry as it stands in the log."""
    known = {"time": stamp(when), "event": name, "subject": subject, "actor": origin.actor, "job": origin.job}
    return {**known, **{key: _capped(value) for key, value in fields.items() if key not in known}}


def dumps(value: t.Any) -> str:
    """One line of plain ASCII: nothing in it can steer a terminal."""
    return json.dumps(value, default=str) + "\n"


def append(entries: t.Iterable[Entry], path: str = LOG) -> None:
    """Adds whole lines: all of them, or FleetError. Safe with other writers and with a rotation in between."""
    raw = "".join(dumps(entry) for entry in entries).encode()
    handle = _locked(path)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            raw = b"\n" + raw
        _write(handle, raw, size)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        os.close(handle)


def _write(handle: int, raw: bytes, size: int) -> None:
    try:
        sent = 0
        while sent < len(raw):
            sent += os.write(handle, raw[sent:])
    except OSError:
        os.ftruncate(handle, size)
        raise


def _open(path: str) -> int:
    try:
        folder = os.path.dirname(path)
        os.makedirs(folder, mode=0o750, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise _failed(path, error) from error


def _locked(path: str) -> int:
    """The file that has the name now: a rotation may take it away while we wait for the lock."""
    while True:
        handle = _open(path)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def _failed(path: str, error: OSError) -> FleetError:
    return FleetError("audit_failed", f"The audit log {path} can't be written: {error.strerror or error}.",
                      "Make room or mend its permissions; what isn't recorded isn't done.")


def _capped(value: t.Any) -> t.Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value if len(value) <= TEXT else f"{value[:TEXT]}… ({len(value)} characters)"
    if isinstance(value, t.Mapping):
        return {str(key): _capped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        more = [f"… ({len(value)} items)"] if len(value) > ITEMS else []
        return [_capped(item) for item in value[:ITEMS]] + more
    return value


def files(path: str = LOG) -> list[pathlib.Path]:
    """The log and what rotation made of it, newest first."""
    current = pathlib.Path(path)
    known = re.compile(re.escape(current.name) + r"\.(\d+)(\.gz)?")
    numbered = [(int(match[1]), file) for file in current.parent.glob(f"{current.name}.*")
                if (match := known.fullmatch(file.name))]
    return [current, *(file for _number, file in sorted(numbered))]


def read(path: str = LOG, since: float = 0.0) -> t.Iterator[Entry]:
    """All entries, oldest file first, without torn lines; files last written before `since` are not opened."""
    with contextlib.ExitStack() as stack:
        # Newest first: a rotation in between may show us a file twice, but can't hide one.
        opened: dict[tuple[int, int], t.Any] = {}
        for file in files(path):
            with contextlib.suppress(FileNotFoundError):
                found = file.stat()
                if found.st_mtime >= since:
                    stream = stack.enter_context(_reader(file))
                    opened.setdefault((found.st_dev, found.st_ino), stream)
        for stream in reversed(list(opened.values())):
            yield from _parsed(stream)


def _reader(file: pathlib.Path) -> t.Any:
    opener: t.Any = gzip.open if file.suffix == ".gz" else open
    return opener(file, "rt", encoding="utf-8", errors="replace")


def _parsed(stream: t.Iterable[str]) -> t.Iterator[Entry]:
    for text in stream:
        with contextlib.suppress(ValueError):
            entry = json.loads(text)
            if isinstance(entry, dict):
                yield entry
