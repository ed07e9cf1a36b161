# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""All guests of one host: observe and plan them all, and then work on those that differ, several at a time."""

from __future__ import annotations

import concurrent.futures
import threading
import typing as t

from .. import _audit
from .._errors import FleetError
from .._ownership import FLEET
from .._plan import Plan
from . import check, disks, images, names, observe
from .apply import Work
from .client import Host, parse
from .decide import Decision, Settings, decide
from .facts import at_once, describe
from .observe import Json, Parts
from .spec import Guest, Image

_INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE
Failures = dict[str, FleetError]


class Guests:
    """The guests of one call, and what came of each."""

    def __init__(self, host: Host, guests: t.Sequence[Guest], settings: Settings, origin: _audit.Origin,
                 only: t.Collection[str] | None = None, prune: bool = False, parallel: int = 4, boots: int = 2) -> None:
        self.host, self.settings, self.origin, self.parallel = host, settings, origin, parallel
        self.guests = [guest for guest in guests if only is None or guest.name in only]
        self.only, self.prune = only, prune
        self.listed = {guest.name for guest in guests}
        self.boots = threading.Semaphore(boots)
        self.parts: dict[str, Parts] = {}
        self.decisions: dict[str, Decision] = {}
        self.images: list[Image] = []

    # -- plan -----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Fails for all before anything is written where one can't be done, and names each of these."""
        if self.prune:
            self.guests += [Guest(name, state="absent") for name in self._unwanted()]
        plan, failures = Plan(), Failures()
        for guest in self.guests:
            try:
                self.parts[guest.name] = observe.one(self.host, guest.name)
                self.decisions[guest.name] = self._decide(guest)
            except FleetError as error:
                failures[guest.name] = error
        self._raise(failures, "Nothing was changed.")
        self.images = list(dict.fromkeys(guest.image for guest in self.guests if self._is_new(guest)))
        for image in self.images:
            if images.find(image) is None:
                plan.add(f"image {image.shown}", "fetch", None, "present")
        for decision in self.decisions.values():
            plan.changes += decision.changes
        return plan

    def _unwanted(self) -> list[str]:
        """Of this fleet, and in no list; beside only, nothing."""
        return sorted(name for name, marks in observe.owned(self.host).items()
                      if marks.get(FLEET) == self.settings.fleet and name not in self.listed
                      and (self.only is None or name in self.only))

    def _decide(self, guest: Guest) -> Decision:
        parts = self.parts[guest.name]
        decision = decide(guest, parts, self.settings, self.host.platform)
        if guest.state != "absent":
            check.check(guest, self.host, self.settings.share_paths, self._is_new(guest), self._shared())
        return decision

    def _shared(self) -> list[check.Shared]:
        """The directories of this host that guests have, those of this call as they will be."""
        found = [check.Shared(guest.name, share.path, share.read_only) for guest in self.guests
                 if guest.state != "absent" for share in guest.shares]
        for name in set(observe.recorded()) - {guest.name for guest in self.guests}:
            spec = observe.Record(name).read().get("spec") or {}
            found += [check.Shared(name, share["path"], share["read_only"]) for share in spec.get("shares") or ()]
        return found

    def _is_new(self, guest: Guest) -> bool:
        return guest.state != "absent" and names.ROOT not in self.parts[guest.name].disks

    # -- apply ----------------------------------------------------------------------------------------------------

    def apply(self, _plan: Plan) -> Json:
        self._fetch_images()
        unused = {sha256 for guest in self.guests if guest.state == "absent" and self.settings.purge_data
                  if (sha256 := self.parts[guest.name].record.get("image"))}
        todo = [guest for guest in self.guests if self.decisions[guest.name].changes]
        failures = self._work(todo)
        self._drop_images(unused)
        self._raise(failures, "The others are as wanted.")
        return self.facts()

    def _fetch_images(self) -> None:
        """Before anything else is written: an image that isn't what it is said to be stops all."""
        for image in self.images:
            base = images.ensure(image)
            for guest in self.guests:
                if guest.image == image and self._is_new(guest):
                    disks.fits("vm_disk", guest.disk, base.virtual_size)

    def _work(self, todo: list[Guest]) -> Failures:
        failures = Failures()

        def one(guest: Guest) -> None:
            work = Work(self.host, guest, self.settings, self.origin, self.boots)
            try:
                work.converge()
            except FleetError as error:
                failures[guest.name] = error
                return
            self.parts[guest.name] = work.parts
            self.decisions[guest.name].pending = work.decision.pending

        with concurrent.futures.ThreadPoolExecutor(max(1, min(self.parallel, len(todo)))) as pool:
            list(pool.map(one, todo))
        return failures

    def _drop_images(self, unused: t.Collection[str]) -> None:
        """The images of guests that were purged, where nothing else stands on them."""
        wanted = {base.sha256 for image in self.images if (base := images.find(image))}
        for sha256 in sorted(set(unused) - wanted):
            images.remove(sha256, others=self._files_of_domains())

    def _files_of_domains(self) -> list[str]:
        found = []
        for domain in self.host.domains():
            with self.host.doing("describe a domain"):
                root = parse(domain.XMLDesc(_INACTIVE))
            found += [source.get("file", "") for source in root.iterfind("devices/disk/source")]
        return [file for file in found if file]

    # -- results --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """What a reader should know, and no run changes by itself."""
        waiting = [f"{guest.name} waits for a restart: {'; '.join(self.decisions[guest.name].pending)}"
                   for guest in self.guests if self.decisions[guest.name].pending]
        return [*(note for guest in self.guests for note in self.decisions[guest.name].notes), *waiting]

    def facts(self) -> Json:
        results = at_once(self._result, self.guests)
        return {"vms": results, "restart_required": any(result["restart_required"] for result in results)}

    def _result(self, guest: Guest) -> Json:
        decision = self.decisions[guest.name]
        return {**describe(guest.name, self.parts[guest.name], self.host),
                "changed": bool(decision.changes), "pending": decision.pending,
                "restart_required": bool(decision.pending),
                "actions": [{"subject": change.subject, "action": change.action} for change in decision.changes]}

    def _raise(self, failures: Failures, rest: str) -> None:
        if not failures:
            return
        if len(self.guests) == 1:
            raise next(iter(failures.values()))
        table = "\n".join(f"  {name}: {error.result()['msg']}" for name, error in sorted(failures.items()))
        results = [{"name": guest.name, "failed": guest.name in failures,
                    **({"failure": failures[guest.name].result()["failure"]} if guest.name in failures else {})}
                   for guest in self.guests]
        raise FleetError("vms_failed", f"{len(failures)} of {len(self.guests)} guests failed:\n{table}\n", rest,
                         vms=results)
