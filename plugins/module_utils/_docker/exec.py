# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Programs in a space: their pipes, their end, and the end of everything they began when their time is over.

Nothing secret is in an argument vector. What an exec gets as environment is in no inspection of the engine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import select
import signal
import struct
import threading
import time
import typing as t

from .._errors import FleetError, bad_value
from . import processes
from .client import Engine
from .state import Record
from .work import Container, awake

LIMIT = 1024**2
CHUNK = 65536
OUT, ERR = 1, 2
#: Seconds between two questions whether the main process still runs, and for which others may still write after it.
ASK, LINGER = 1.0, 2.0
LAUNCH = 'ulimit -w "$1" 2>/dev/null || ulimit -x "$1" 2>/dev/null; shift; exec "$@"'
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
Env = t.Mapping[str, str]
Source = t.Iterable[bytes]
Sink = t.Callable[[int, bytes], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """A program that has ended. killed: how many processes were, at the end of its time."""

    rc: int
    out: bytes
    err: bytes
    truncated: bool = False
    timed_out: bool = False
    killed: int = 0

    @property
    def last_words(self) -> str:
        """The end of what it said, for an error message."""
        return (self.err.strip() or self.out.strip())[-2000:].decode("utf-8", "replace")


class Collector:
    """Keeps the beginning of each stream and lets the rest pass, so that the program is not held up."""

    def __init__(self, limit: int) -> None:
        self.limit, self.truncated = limit, False
        self.kept = {OUT: bytearray(), ERR: bytearray()}

    def __call__(self, stream: int, data: bytes) -> None:
        room = self.limit - len(self.kept[stream])
        self.truncated = self.truncated or len(data) > room
        self.kept[stream] += data[:room]


class Exec:
    """One program in a running space, attached to us."""

    def __init__(self, engine: Engine, container: Container, argv: t.Sequence[str], env: Env | None = None,
                 workdir: str | None = None, user: str | None = None, tty: bool = False) -> None:
        self.engine, self.init, self.tty = engine, container["State"]["Pid"], tty
        self.mark = str(secrets.randbits(62))
        self.fed: threading.Thread | None = None
        begin = ["/bin/sh", "-c", LAUNCH, "sh", self.mark, *_argv(argv)]
        with engine.doing("begin a program"):
            self.ident = engine.api.exec_create(
                container["Id"], begin, stdin=True, tty=tty, user=user or "", workdir=workdir or None,
                environment={**_env(env or {}), processes.MARK: self.mark})["Id"]
            self.stream = engine.api.exec_start(self.ident, tty=tty, socket=True)
        self.socket = getattr(self.stream, "_sock", self.stream)
        self.early = _early(self.stream, self.socket)

    def feed(self, source: Source) -> None:
        """Sends what the program reads, beside everything else, and then its end."""
        self.fed = threading.Thread(target=self._feed, args=(source,), daemon=True)
        self.fed.start()

    def _feed(self, source: Source) -> None:
        # A program may end before it has read everything: that is its affair.
        with contextlib.suppress(OSError, ValueError):
            for data in source:
                self.socket.sendall(data)
            self.socket.shutdown(1)

    def read(self, sink: Sink, timeout: float | None = None, enough: t.Callable[[], bool] = lambda: False) -> bool:
        """Hands on what the program writes, until its end (True), the end of its time, or when there is enough."""
        end = None if timeout is None else time.monotonic() + timeout
        frames = _Raw(sink) if self.tty else _Frames(sink)
        frames(self.early)
        self.early = b""
        asked, gone = time.monotonic(), 0.0
        while not enough():
            now = time.monotonic()
            if end is not None and now >= end:
                return not self.look()["Running"]
            if gone and now >= gone + LINGER:
                return True
            if now - asked >= ASK and not gone:
                # A child that it left behind may keep the pipes open.
                asked, gone = now, 0.0 if self.look()["Running"] else now
            wait = ASK if end is None else min(ASK, end - now)
            if select.select([self.socket], [], [], max(wait, 0))[0]:
                data = self.socket.recv(CHUNK)
                if not data:
                    return True
                frames(data)
        return False

    def look(self) -> dict[str, t.Any]:
        try:
            with self.engine.doing("look at a program"):
                return t.cast("dict[str, t.Any]", self.engine.api.exec_inspect(self.ident))
        except FleetError as error:
            if error.code != "not_found":
                raise
            raise FleetError("interrupted", "The space or its engine ended while a program ran in it.",
                             "Whether the program had ended before is not known; look, and run it again.") from None

    def code(self) -> int:
        """The exit code; the engine knows it a moment after the pipes are closed."""
        end = time.monotonic() + LINGER
        while True:
            found = self.look()
            if not found["Running"] and found["ExitCode"] is not None:
                return int(found["ExitCode"])
            if time.monotonic() > end:
                raise FleetError("not_ended", "The engine doesn't say how a program ended.")
            time.sleep(0.02)

    def kill(self) -> int:
        """Ends it with everything it began, and returns how many processes that were."""
        found = self.look()
        killed = processes.kill(self.init, self.mark, found.get("Pid") or 0 if found["Running"] else 0)
        # The engine answers no question about it before somebody has taken what it wrote.
        end = time.monotonic() + 2 * LINGER
        while select.select([self.socket], [], [], max(end - time.monotonic(), 0))[0] and self.socket.recv(CHUNK):
            pass
        self.code()
        return killed

    def close(self) -> None:
        # The library's response first: closing it later, it would complain.
        for one in (getattr(self.stream, "_response", None), self.stream, self.socket):
            with contextlib.suppress(OSError, ValueError):
                if one is not None:
                    one.close()


class _Frames:
    """Takes the two streams apart: each piece has a head of eight bytes, the first of which says whose it is."""

    def __init__(self, sink: Sink) -> None:
        self.sink, self.rest = sink, bytearray()

    def __call__(self, data: bytes) -> None:
        self.rest += data
        start = 0
        while len(self.rest) - start >= 8:
            stream, size = struct.unpack_from(">BxxxL", self.rest, start)
            if len(self.rest) - start - 8 < size:
                break
            self.sink(stream or OUT, bytes(self.rest[start + 8:start + 8 + size]))
            start += 8 + size
        del self.rest[:start]


class _Raw:
    """A terminal has one stream."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def __call__(self, data: bytes) -> None:
        if data:
            self.sink(OUT, data)


def _early(stream: t.Any, socket: t.Any) -> bytes:
    """What came with the engine's answer and was read with it; the library leaves it in a buffer of its own."""
    response = getattr(stream, "_response", None)
    try:
        socket.setblocking(False)
        return bytes(response.raw._fp.fp.peek()) if response is not None else b""
    except (AttributeError, ValueError, BlockingIOError):
        return b""
    finally:
        socket.setblocking(True)


def _argv(argv: t.Sequence[str]) -> list[str]:
    if isinstance(argv, str) or not argv or not argv[0] or any("\0" in word for word in argv):
        raise bad_value("argv", argv, "Give the program and its arguments as a list.")
    return list(argv)


def _env(env: Env) -> dict[str, str]:
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise bad_value("env", name, "Use letters, digits and '_', first no digit, and no zero byte in the value.")
    return dict(env)


def environment(name: str, env: Env | None = None, secret: bool = True) -> dict[str, str]:
    """The secret variables of a space, under those of this exec."""
    return {**(Record(name).secret_env() if secret else {}), **(env or {})}


def run_in(engine: Engine, container: Container, argv: t.Sequence[str], stdin: bytes | Source = b"",
           env: Env | None = None, workdir: str | None = None, user: str | None = None, timeout: float | None = None,
           limit: int = LIMIT, sink: Sink | None = None) -> Result:
    """Runs a program in a space that somebody keeps awake. With a sink, nothing is kept of what it writes."""
    kept = Collector(limit)
    program = Exec(engine, container, argv, env, workdir, user)
    try:
        program.feed([stdin] if isinstance(stdin, bytes) else stdin)
        ended = program.read(sink or kept, timeout)
        killed = 0 if ended else program.kill()
        result = Result(program.code(), bytes(kept.kept[OUT]), bytes(kept.kept[ERR]), kept.truncated, not ended, killed)
    except BaseException:
        with contextlib.suppress(FleetError):
            program.kill()
        raise
    finally:
        program.close()
    words = result.out + result.err
    if result.rc in (126, 127, 128) and words.startswith((b"OCI runtime exec failed", b"unable to find user")):
        raise FleetError("not_begun", f"The engine can't begin {argv[0]}: {result.last_words}",
                         "Look at workdir and user, and whether the image has /bin/sh.")
    return result


def run(engine: Engine, name: str, argv: t.Sequence[str], stdin: bytes | Source = b"", env: Env | None = None,
        workdir: str | None = None, user: str | None = None, timeout: float | None = None, limit: int = LIMIT,
        secret_env: bool = True) -> Result:
    """Runs a program in a space, which is woken for it."""
    with awake(engine, name) as container:
        return run_in(engine, container, argv, stdin, environment(name, env, secret_env), workdir, user, timeout, limit)


def stream(engine: Engine, name: str, argv: t.Sequence[str], stdin: int = 0, stdout: int = 1, stderr: int = 2,
           env: Env | None = None, workdir: str | None = None, user: str | None = None, tty: bool = False,
           timeout: float | None = None, secret_env: bool = True) -> int:
    """Connects a program in a space with our own descriptors, or with our terminal, and returns its exit code.

    When we are told to end, or nobody reads any more, everything that it began ends, too. 124: its time was over.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_told_to_end())
        container = stack.enter_context(awake(engine, name))
        program = Exec(engine, container, argv, environment(name, env, secret_env), workdir, user, tty)
        stack.callback(program.close)
        try:
            if tty:
                stack.enter_context(_terminal(program, stdin))
            program.feed(iter(lambda: os.read(stdin, CHUNK), b""))
            if not program.read(lambda which, data: _write(stdout if which == OUT else stderr, data), timeout):
                program.kill()
                return 124
            return program.code()
        except BaseException:
            with contextlib.suppress(FleetError):
                program.kill()
            raise


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data):]


@contextlib.contextmanager
def _told_to_end() -> t.Iterator[None]:
    """Makes an exception of the signals that would otherwise end us at once."""
    def leave(number: int, _frame: t.Any) -> None:
        raise SystemExit(128 + number)

    kinds = (signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(kind, leave) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)


@contextlib.contextmanager
def _terminal(program: Exec, descriptor: int) -> t.Iterator[None]:
    """Our terminal hands on every key, and its size."""
    import termios
    import tty

    def size(*_unused: t.Any) -> None:
        with contextlib.suppress(OSError, FleetError), program.engine.doing("set the size of a terminal"):
            columns, lines = os.get_terminal_size(descriptor)
            program.engine.api.exec_resize(program.ident, height=lines, width=columns)

    if not os.isatty(descriptor):
        yield
        return
    before, handler = termios.tcgetattr(descriptor), signal.signal(signal.SIGWINCH, size)
    try:
        tty.setraw(descriptor)
        size()
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
