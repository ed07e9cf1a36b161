# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A space that is awake for as long as somebody works in it."""

from __future__ import annotations

import contextlib
import time
import typing as t

from .. import _audit
from .._errors import FleetError
from .._ownership import check_name, guard
from . import lock, names
from .client import Engine
from .state import Record

Container = dict[str, t.Any]
#: Whoever puts a space to sleep again and again is stopped by the timeout, and by this.
ROUNDS = 5


def find(engine: Engine, name: str) -> Container:
    """The container of a space of ours; FleetError when there is none, or it is somebody else's."""
    container = names.container(check_name("space", name))
    found = engine.inspect(container)
    if found is None:
        raise FleetError("not_found", f"There is no space {name} on this host.",
                         "Create it with sandbox_space, or name the host that has it.")
    guard(f"Container {container}", found["Config"].get("Labels"), "space", name)
    return found


def runs(container: Container) -> bool:
    state = container["State"]
    return bool(state["Running"]) and not state.get("Paused") and not state.get("Restarting")


@contextlib.contextmanager
def awake(engine: Engine, name: str, timeout: float = 60.0,
          origin: _audit.Origin | None = None) -> t.Iterator[Container]:
    """The container, running, and nobody puts it to sleep or changes it before the body has ended."""
    end = time.monotonic() + timeout
    for _round in range(ROUNDS):
        with lock.hold(name, shared=True, timeout=end - time.monotonic()):
            found = find(engine, name)
            if runs(found):
                lock.touch(name)
                try:
                    yield found
                finally:
                    lock.touch(name)
                return
        with lock.hold(name, timeout=end - time.monotonic()):
            wake(engine, name, origin)
    raise FleetError("not_awake", f"Space {name} fell asleep again each time it was woken.",
                     "Look at its log: its main process may end at once.")


def wake(engine: Engine, name: str, origin: _audit.Origin | None = None) -> None:
    """Continues or starts a space; the caller holds its lock alone."""
    found = find(engine, name)
    if runs(found):
        return
    was = found["State"].get("Status", "asleep")
    with _audit.event("space.wake", name, origin or _audit.Origin.of(), was=was), engine.doing(f"wake space {name}"):
        if found["State"].get("Paused"):
            engine.api.unpause(found["Id"])
        else:
            engine.api.start(found["Id"])
    Record(name).wake()
