# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Takes the steps that were decided for one guest, under its lock, and again when libvirt went away meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import threading
import time
import typing as t

from .. import _audit, _lock
from .._errors import FleetError
from . import definition, disks, hostkeys, images, names, observe, seed, wait
from .client import Domain, Host, parse
from .decide import Decision, Settings, Step, decide
from .hostkeys import HostKey
from .observe import Json, Parts, Record
from .spec import Disk, Guest

_PASSES = 4
_PAUSE = 0.25
#: How long a running guest may take to let go of a device.
_DETACH_SECONDS = 15.0
_LIVE, _CONFIG, _INACTIVE = 1, 2, 2  # VIR_DOMAIN_AFFECT_LIVE, _CONFIG, VIR_DOMAIN_XML_INACTIVE
_VCPU_GUEST = 8  # VIR_DOMAIN_VCPU_GUEST
_SUSPENDED = 7  # VIR_DOMAIN_PMSUSPENDED
#: Managed save, snapshots' and checkpoints' metadata; then what becomes of the firmware's variables and the TPM.
_UNDEFINE, _PURGE, _KEEP = 1 | 2 | 16, 4 | 32, 8 | 64
_EVENTS = {"define": "define", "start": "start", "stop": "stop", "cut": "stop", "pause": "pause", "resume": "resume",
           "undefine": "undefine", "purge": "purge", "delete_disk": "purge"}
#: Everything in a guest's directory that the collection puts there; its record goes last.
_OURS = re.compile(r"root\.qcow2|disk-[a-z0-9-]+\.qcow2|nvram\.fd|serial\.log(\.\d+)?|seed\.iso|backup-\w+\.scratch|"
                   r"\.(root|disk-[a-z0-9-]+|seed)\.[a-z0-9.]+\.part|\.spec\.json\..+")


class Work:
    """One guest on its way."""

    def __init__(self, host: Host, guest: Guest, settings: Settings, origin: _audit.Origin,
                 boots: threading.Semaphore) -> None:
        self.host, self.guest, self.settings, self.origin, self.boots = host, guest, settings, origin, boots
        self.name, self.record = guest.name, Record(guest.name)
        self.parts = Parts()
        self.decision = Decision()
        self._restarted = False

    # -- until it is as wanted ------------------------------------------------------------------------------------

    def converge(self) -> None:
        """Raises FleetError where it can't be reached. What was seen last is in parts."""
        with _lock.hold(names.lock(self.name), f"Guest {self.name}", timeout=self.settings.timeout):
            for left in range(_PASSES - 1, -1, -1):
                try:
                    self._pass()
                    return
                except FleetError as error:
                    if not left or error.code != "libvirt_unreachable":
                        raise
                    self.host.wait(self.settings.timeout)

    def _pass(self) -> None:
        self.parts = observe.one(self.host, self.name)
        self.decision = decide(self._wanted(), self.parts, self.settings, self.host.platform)
        for step in self.decision.steps:
            self._take(step)
        if self.decision.steps:
            self.parts = observe.one(self.host, self.name)

    def _wanted(self) -> Guest:
        """A restart that was made isn't made again when libvirt went away afterwards."""
        return dataclasses.replace(self.guest, state="running") if self._restarted else self.guest

    def _take(self, step: Step) -> None:
        do = t.cast("t.Callable[[t.Any], None]", getattr(self, f"_do_{step.verb}"))
        event = _EVENTS.get(step.verb)
        with contextlib.ExitStack() as stack:
            if event:
                stack.enter_context(_audit.event(f"vm.{event}", self.name, self.origin))
            stack.enter_context(self.host.doing(self._doing(step)))
            do(step.values)

    def _doing(self, step: Step) -> str:
        what = f"{step.values} of " if isinstance(step.values, str) else ""
        return f"{step.verb.replace('_', ' ')} {what}the guest {self.name}"

    @property
    def _domain(self) -> Domain:
        found = self.host.domain(self.name)
        if found is None:
            raise FleetError("not_found", f"The domain {self.name} is gone.", "Something else removes it: run again.")
        return found

    # -- files ----------------------------------------------------------------------------------------------------

    def _do_remember(self, values: Json) -> None:
        self.record.write(**values)

    def _do_create_disk(self, disk: Disk) -> None:
        path = names.disk(self.name, disk.name)
        if disk.name != names.ROOT:
            disks.create(path, disk.size)
            return
        base = images.ensure(self.guest.image)
        disks.fits("vm_disk", disk.size, base.virtual_size)
        self.record.write(image=base.sha256)
        disks.create(path, disk.size, base, self.guest.disk_mode)

    def _do_grow_disk(self, disk: Disk) -> None:
        disks.grow(names.disk(self.name, disk.name), disk.size, self.host.domain(self.name))

    def _do_delete_disk(self, disk_name: str) -> None:
        names.disk(self.name, disk_name).unlink(missing_ok=True)

    def _do_seed(self, _values: None) -> None:
        key = hostkeys.ensure(self.name)
        seed.build(self.guest, key, names.seed(self.name))
        self.record.write(seed=seed.digest(self.guest, key), generation=self.guest.generation)

    def _do_discard_seed(self, _values: None) -> None:
        seed.discard(self.host.domain(self.name), names.seed(self.name))

    def _do_reset_nvram(self, _values: None) -> None:
        names.nvram(self.name).unlink(missing_ok=True)

    def _do_purge(self, _values: None) -> None:
        folder = names.folder(self.name)
        for file in sorted(os.listdir(folder)) if folder.is_dir() else ():
            if _OURS.fullmatch(file):
                (folder / file).unlink(missing_ok=True)
        shutil.rmtree(names.mirror(self.name), ignore_errors=True)
        hostkeys.remove(self.name)
        self.record.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Somebody else's files keep it.
            folder.rmdir()

    # -- definition -----------------------------------------------------------------------------------------------

    def _do_define(self, values: tuple[t.Any, list[str] | None]) -> None:
        tree, keys = values
        if keys is not None:
            existing = parse(self._domain.XMLDesc(_INACTIVE))
            tree = definition.merge(existing, tree, keys, self.settings.fleet)
        self.host.connection.defineXML(definition.text_of(tree))

    def _do_undefine(self, _values: None) -> None:
        self._domain.undefineFlags(_UNDEFINE | (_PURGE if self.settings.purge_data else _KEEP))
        seed.discard(None, names.seed(self.name))

    def _do_autostart(self, wanted: bool) -> None:
        self._domain.setAutostart(int(wanted))

    # -- while it runs --------------------------------------------------------------------------------------------

    def _do_balloon(self, _values: None) -> None:
        self._domain.setMemoryFlags(self.guest.memory // 1024, _LIVE)

    def _do_plug_cpus(self, _key: str) -> None:
        self._domain.setVcpusFlags(self.guest.cpus, _LIVE)
        # Not every system puts new processors to work by itself, and not every guest has an agent to do it.
        with contextlib.suppress(FleetError), self.host.doing("use new processors"):
            self._domain.setVcpusFlags(self.guest.cpus, _VCPU_GUEST)

    def _do_attach(self, key: str) -> None:
        domain = self._domain
        domain.attachDeviceFlags(definition.device_xml(parse(domain.XMLDesc(_INACTIVE)), key), _LIVE)

    def _do_change(self, key: str) -> None:
        domain = self._domain
        wanted, live = parse(domain.XMLDesc(_INACTIVE)), parse(domain.XMLDesc(0))
        domain.updateDeviceFlags(definition.changed_device_xml(live, wanted, key), _LIVE)

    def _do_detach(self, key: str) -> None:
        domain = self._domain
        domain.detachDeviceAlias(definition.alias(key), _LIVE)
        end = time.monotonic() + _DETACH_SECONDS
        while key in definition.owned(parse(domain.XMLDesc(0))):
            if time.monotonic() >= end:
                raise FleetError("device_in_use", f"The guest {self.name} does not let go of {key}.",
                                 "Unmount it there and run again, or say vm_restart: true.")
            time.sleep(_PAUSE)

    # -- power ----------------------------------------------------------------------------------------------------

    def _do_stop(self, _values: None) -> None:
        """In an orderly way as long as the guest takes part, then by force."""
        end = time.monotonic() + self.settings.timeout
        domain = self._domain
        self._wake(domain)
        asked = 0.0
        while domain.isActive() and time.monotonic() < end:
            if time.monotonic() - asked > 10:
                # A guest that still boots misses the button: it is pressed again.
                with contextlib.suppress(FleetError), self.host.doing("press the power button"):
                    domain.shutdown()
                asked = time.monotonic()
            time.sleep(_PAUSE)
        self._do_cut(None)

    def _do_cut(self, _values: None) -> None:
        domain = self._domain
        if domain.isActive():
            domain.destroy()

    def _do_resume(self, _values: None) -> None:
        self._wake(self._domain)

    @staticmethod
    def _wake(domain: Domain) -> None:
        state = domain.state()[0]
        if state == _SUSPENDED:
            domain.pMWakeup(0)
        elif observe.is_paused(state):
            domain.resume()

    def _do_pause(self, _values: None) -> None:
        self._domain.suspend()

    def _do_start(self, _values: None) -> None:
        with self.boots:
            self._domain.create()
            self._restarted = True
            self._do_finish(None)

    def _do_finish(self, _values: None) -> None:
        """Waits as the description says; when cloud-init is done, the first boot is over and the seed goes."""
        what = self.guest.wait
        if what.until != "none":
            wait.until(lambda: self.host.domain(self.name), wait.Target.of(self.guest, self._host_key()), what.until,
                       what.timeout)
        if self.record.read().get("first_boot_over"):
            return
        if what.until == "cloud_init" or observe.one(self.host, self.name).booted:
            seed.discard(self._domain, names.seed(self.name))
            self.record.write(first_boot_over=True)

    def _host_key(self) -> HostKey:
        key = hostkeys.find(self.name)
        if key is None:
            raise FleetError("no_host_key", f"The SSH host key of {self.name} is not on this host.",
                             f"Put it back at {names.host_key(self.name)}, or give the guest a higher vm_generation.")
        return key
