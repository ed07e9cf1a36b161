# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a module of the collection where it stands, without a controller, and dies where it is told.

  on_host.py MODULE < {"arguments": {...}, "die_at": 7, "die_after": 0.01, "whole_group": true}

A step is a program that is started, a change of the file system, or what libvirt is asked to do. Without die_after the
process dies right before step die_at, else so many seconds into it: alone, or with the programs that it started.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

STEPS = {"subprocess.Popen", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "fcntl.flock"}
#: What a module asks libvirt to do, but for looking.
ASKED = {"virConnect": ("defineXML",), "virDomain": (
    "create", "destroy", "shutdown", "suspend", "resume", "undefineFlags", "setAutostart", "setMemoryFlags",
    "setVcpusFlags", "attachDeviceFlags", "detachDeviceFlags", "detachDeviceAlias", "updateDeviceFlags", "blockResize")}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
steps: list[str] = []


def watch_steps(job: dict[str, object]) -> None:
    """Audit hooks see every step before it is done, whatever code takes it."""

    def die() -> None:
        time.sleep(float(job["die_after"]))  # type: ignore[arg-type]
        (os.killpg if job.get("whole_group") else os.kill)(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writing = event == "open" and int(arguments[2] or 0) & WRITING  # type: ignore[call-overload]
        if event not in STEPS and not event.startswith("libvirt.") and not writing:
            return
        steps.append(f"{event} {str(arguments[0])[-60:]}")
        if len(steps) != job.get("die_at"):
            return
        if job.get("die_after") is None:
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Thread(target=die, daemon=True).start()

    sys.addaudithook(hook)


def watch_libvirt() -> None:
    """Calls of libvirt become steps, too."""
    with contextlib.suppress(ImportError):
        import libvirt

        for owner, names in ASKED.items():
            for name in names:
                setattr(getattr(libvirt, owner), name, _audited(getattr(getattr(libvirt, owner), name), name))


def _audited(call: Callable[..., object], name: str) -> Callable[..., object]:
    def audited(*values: object) -> object:
        sys.audit(f"libvirt.{name}", name)
        return call(*values)

    return audited


def main() -> None:
    job = json.load(sys.stdin)
    from ansible.module_utils import basic

    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": job["arguments"]}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    module = importlib.import_module(f"ansible_collections.clawops.fleet.plugins.modules.{sys.argv[1]}")
    sys.dont_write_bytecode = True
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    atexit.register(lambda: print(json.dumps(steps), file=sys.stderr))
    watch_libvirt()
    watch_steps(job)
    module.main()


if __name__ == "__main__":
    main()
