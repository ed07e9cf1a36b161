# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The stub model server: in a namespace on the bed's network, and on the machine's loopback."""

from __future__ import annotations

import pathlib
import socket
import sys
import urllib.request

from . import cache, net
from .daemon import Daemon
from .job import BedError, Job

INSTANCES = DEFAULT = ["model"]
SERVER = pathlib.Path(__file__).with_name("model_server.py")
SERVING = Daemon("model")
PORT, LOOPBACK = 8080, ("127.0.0.1", 8180)


def url() -> str:
    """The base URL for clients."""
    return f"http://{net.v4('model')}:{PORT}/v1"


def up(job: Job, _name: str) -> None:
    """The server, of today's code."""
    net.ensure(job)
    net.attach(job, "model")
    version = cache.digest(SERVER.read_text(), sys.version)
    if SERVING.alive(version) and _answers():
        return
    SERVING.stop()
    requests = cache.folder("model") / "requests.jsonl"
    try:
        loopback = socket.create_server(LOOPBACK)
    except OSError as error:
        raise BedError(f"{LOOPBACK[0]}:{LOOPBACK[1]} is not free: {error}") from error
    # A socket stays in the namespace where it was made, so one process answers in both.
    with loopback:
        argv = ["ip", "netns", "exec", net.namespace("model"), sys.executable, SERVER]
        argv += ["--listen", f"{net.v4('model')}:{PORT}", "--inherit", str(loopback.fileno()), "--log", requests]
        SERVING.start(job, argv, version, _answers, [loopback.fileno()])


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{url()}/models", timeout=2) as reply:  # noqa: S310 (fixed http URL)
            return bool(reply.status == 200)
    except OSError:
        return False


def down(_job: Job, _name: str) -> None:
    """No server, no namespace."""
    SERVING.stop()
    net.detach("model")


def status(_name: str) -> tuple[str, str]:
    """State and address."""
    return ("up" if SERVING.alive() and _answers() else "down"), url()
