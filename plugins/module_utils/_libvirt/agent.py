# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The QEMU guest agent: what runs in a guest for its host. What it says is the guest's word, and not to be trusted."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import typing as t

from .._errors import FleetError
from .._process import Finished
from .client import Domain, library

#: Seconds for an answer: one that hangs must not hang us.
SECONDS = 5
_PAUSE = 0.2


def command(domain: Domain, execute: str, arguments: t.Mapping[str, t.Any] | None = None, timeout: int = SECONDS
            ) -> t.Any:
    """What the agent returns for one command of its own. FleetError no_agent when there is none, or it refuses."""
    libvirt = library()
    import libvirt_qemu

    request = json.dumps({"execute": execute, **({"arguments": arguments} if arguments else {})})
    try:
        answer = libvirt_qemu.qemuAgentCommand(domain, request, timeout, 0)
    except libvirt.libvirtError as error:
        raise FleetError("no_agent", f"The guest agent of {domain.name()} does not do {execute}: {error}.",
                         "Install and start qemu-guest-agent in the guest.") from None
    with understanding(domain):
        return json.loads(answer)["return"]


@contextlib.contextmanager
def understanding(domain: Domain) -> t.Iterator[None]:
    """For reading answers: FleetError no_agent for one that is not of the form it has to have."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise FleetError("no_agent", f"What the guest agent of {domain.name()} answers makes no sense.") from None


def answers(domain: Domain) -> bool:
    with contextlib.suppress(FleetError):
        command(domain, "guest-ping")
        return True
    return False


def run(domain: Domain, argv: t.Sequence[str], timeout: float = 60.0, clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep) -> Finished:
    """Runs a program in the guest, as root, to its end."""
    started = command(domain, "guest-exec", {"path": argv[0], "arg": list(argv[1:]), "capture-output": True})
    end = clock() + timeout
    while True:
        with understanding(domain):
            found = command(domain, "guest-exec-status", {"pid": int(started["pid"])})
            if found["exited"]:
                return Finished(int(found.get("exitcode", 128 + int(found.get("signal", 0)))),
                                _text(found.get("out-data")), _text(found.get("err-data")))
        if clock() >= end:
            raise FleetError("timeout", f"{argv[0]} did not end within {timeout:.0f} seconds in {domain.name()}.")
        sleep(_PAUSE)


@contextlib.contextmanager
def frozen(domain: Domain) -> t.Iterator[int]:
    """The guest's file systems at rest, and awake again whatever happens; yields how many."""
    try:
        yield int(domain.fsFreeze())
    finally:
        domain.fsThaw()


def _text(encoded: str | None) -> str:
    return base64.b64decode(encoded or "").decode("utf-8", "replace")
