# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A program in a pod, connected with our own descriptors, or with our terminal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import typing as t

from .client import Cluster, ended

CHUNK = 32768
IN, OUT, ERR, STATUS, SIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOL = "v5.channel.k8s.io"  # the first that can say that there is no more input; since Kubernetes 1.30
HANDSHAKE = 30.0


def attach(cluster: Cluster, namespace: str, pod: str, argv: t.Sequence[str], container: str | None = None,
           stdin: int | None = 0, stdout: int = 1, stderr: int = 2, tty: bool = False) -> int:
    """Runs it to its end and returns its exit code."""
    streams = ["stdout", "tty" if tty else "stderr", *(["stdin"] if stdin is not None else [])]
    with contextlib.ExitStack() as stack:
        socket = stack.enter_context(cluster.open_exec(namespace, pod, argv, streams, container, HANDSHAKE, PROTOCOL))
        socket.settimeout(None)
        if tty and stdin is not None:
            stack.enter_context(_terminal(socket, stdin))
        if stdin is not None:
            threading.Thread(target=_feed, args=(socket, stdin), daemon=True).start()
        return _show(socket, stdout, stderr)


def _feed(socket: t.Any, stdin: int) -> None:
    # A program may end before it has read everything: that is its affair.
    with contextlib.suppress(Exception):
        for data in iter(lambda: os.read(stdin, CHUNK), b""):
            socket.send_binary(bytes([IN]) + data)
        socket.send_binary(bytes([CLOSE, IN]))


def _show(socket: t.Any, stdout: int, stderr: int) -> int:
    while True:
        opcode, frame = socket.recv_data()
        if opcode == 8:
            return 1
        if not frame:
            continue
        if frame[0] == STATUS:
            rc, said = ended(frame[1:])
            if rc and not said.startswith("command terminated"):
                _write(stderr, f"{said}\n".encode())
            return rc
        if frame[0] in (OUT, ERR):
            _write(stdout if frame[0] == OUT else stderr, frame[1:])


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data):]


@contextlib.contextmanager
def _terminal(socket: t.Any, descriptor: int) -> t.Iterator[None]:
    """Our terminal hands on every key, and its size."""
    import termios
    import tty

    def size(*_unused: t.Any) -> None:
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(descriptor)
            socket.send_binary(bytes([SIZE]) + json.dumps({"Width": columns, "Height": lines}).encode())

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
