# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The stub model server: in a namespace on the bed's network, and on the machine's loopback."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys
import urllib.request

from . import cache, machine, net
from .job import BedError, Job

INSTANCES = DEFAULT = ["model"]
SERVER = pathlib.Path(__file__).with_name("model_server.py")
PORT, LOOPBACK = 8080, ("127.0.0.1", 8180)


def url() -> str:
    """The base URL for clients."""
    return f"http://{net.v4('model')}:{PORT}/v1"


def up(job: Job, _name: str) -> None:
    """The server, of today's code."""
    net.ensure(job)
    net.attach(job, "model")
    version = cache.digest(SERVER.read_text(), sys.version)
    if _alive() and _mark()["version"] == version and _answers():
        return
    _stop()
    requests = cache.folder("model") / "requests.jsonl"
    try:
        loopback = socket.create_server(LOOPBACK)
    except OSError as error:
        raise BedError(f"{LOOPBACK[0]}:{LOOPBACK[1]} is not free: {error}") from error
    # A socket stays in the namespace where it was made, so one process answers in both.
    with loopback, job.log.open("ab") as log:
        argv = ["ip", "netns", "exec", net.namespace("model"), sys.executable, SERVER]
        argv += ["--listen", f"{net.v4('model')}:{PORT}", "--inherit", str(loopback.fileno()), "--log", requests]
        child = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=[loopback.fileno()],
            start_new_session=True,
        )
    job.wait(f"the model server (see {job.log})", lambda: _answers() or child.poll() is not None)
    if child.poll() is not None:
        raise BedError(f"the model server ended; see {job.log}")
    cache.remember(model={"pid": child.pid, "identity": machine.identity(child.pid), "version": version})


def _mark() -> dict[str, str]:
    mark: dict[str, str] = cache.state().get("model", {})
    return mark


def _alive() -> bool:
    mark = _mark()
    return bool(mark) and machine.identity(int(mark["pid"])) == mark["identity"]


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{url()}/models", timeout=2) as reply:  # noqa: S310 (fixed http URL)
            return bool(reply.status == 200)
    except OSError:
        return False


def _stop() -> None:
    if mark := _mark():
        machine.stop(int(mark["pid"]), mark["identity"], timeout=5)
    cache.remember(model=None)


def down(_job: Job, _name: str) -> None:
    """No server, no namespace."""
    _stop()
    net.detach("model")


def status(_name: str) -> tuple[str, str]:
    """State and address."""
    return ("up" if _alive() and _answers() else "down"), url()
