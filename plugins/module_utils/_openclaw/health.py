# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Is a gateway up? The body decides, never the status: unknown paths answer 200 with a page."""

from __future__ import annotations

import json
import time
import typing as t
import urllib.error
import urllib.request

from .._errors import FleetError
from .._process import Runner

Fetch = t.Callable[[str], str]
#: Seconds from one start to the next, of a program that fails at once.
QUICK = 20


def fetch(url: str) -> str:
    """Body of a GET within 3 seconds; empty when nothing answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as answer:
            return t.cast("bytes", answer.read(65536)).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""


def _says(body: str, key: str) -> bool:
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.get(key) is True


def probe(port: int, get: Fetch = fetch) -> str:
    """ready, live (answers, but is not ready), or down."""
    base = f"http://127.0.0.1:{port}"
    if not _says(get(f"{base}/healthz"), "ok"):
        return "down"
    return "ready" if _says(get(f"{base}/readyz"), "ready") else "live"


def unit_state(run: Runner, unit: str) -> dict[str, str]:
    done = run(["systemctl", "show", unit, "--property",
                "LoadState,ActiveState,SubState,UnitFileState,NRestarts,ExecMainStatus,NeedDaemonReload"])
    return dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)


def is_emulated(run: Runner) -> bool:
    """Whether this machine is a guest whose processor is emulated by QEMU, without KVM."""
    try:
        return run(["systemd-detect-virt", "--vm"]).out.strip() == "qemu"
    except FleetError:
        return False


def _hopeless(state: t.Mapping[str, str], restarts: int, seconds: float) -> bool:
    """One that dies at once will do so again. On a slow machine the next start, with warm caches, may well succeed."""
    return state.get("ActiveState") == "failed" or (restarts >= 3 and seconds < QUICK * restarts)


def wait_ready(run: Runner, unit: str, port: int, timeout: float, secrets: t.Iterable[str] = (),
               get: Fetch = fetch, sleep: t.Callable[[float], None] = time.sleep,
               clock: t.Callable[[], float] = time.monotonic) -> None:
    """Returns when /readyz says so. Raises at the timeout (seconds), or at once when the unit keeps dying."""
    begun = clock()
    before = int(unit_state(run, unit).get("NRestarts") or 0)
    while True:
        health = probe(port, get)
        if health == "ready":
            return
        state = unit_state(run, unit)
        seconds = clock() - begun
        if seconds >= timeout or _hopeless(state, int(state.get("NRestarts") or 0) - before, seconds):
            break
        sleep(1)
    journal = run(["journalctl", "--unit", unit, "--lines", "20", "--no-pager", "--output", "cat"]).out
    for secret in secrets:
        journal = journal.replace(secret, "(hidden)")
    raise FleetError("not_ready", f"{unit} is {health} on port {port} (unit {state.get('ActiveState')}/"
                     f"{state.get('SubState')}, exit status {state.get('ExecMainStatus')}). "
                     f"It said last: {journal[-1500:]}",
                     "Mend what the log names and run again.", unit=unit, health=health)
