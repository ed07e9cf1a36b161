# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""One end of a bot's move, where that is a cluster. The mark is at the claim of the state, which outlives all else."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from .._bot import RELEASE, parse
from .._errors import FleetError
from .._handover import LEFT, Mark, Wish, check_conversations, check_target, counted, counting, shown
from .._ownership import FLEET, guard
from .._plan import Plan
from .._process import Finished
from .client import Cluster, Json, subject
from .facts import mark_at
from .manifests import MOVE, PLACES, PROFILE, USER, Site
from .reconcile import Fleet, Settings
from .wait import Target, Wait

STATE = "clawdbot"


@dataclasses.dataclass(frozen=True)
class Stand:
    """What a bot has in its namespace."""

    namespace: str
    deployment: Json | None
    claim: Json | None
    pods: tuple[Json, ...] = ()

    @property
    def mark(self) -> Mark | None:
        return mark_at(self.claim)

    @property
    def replicas(self) -> int:
        return int(self.deployment["spec"].get("replicas", 1)) if self.deployment else 0


class End:
    """This cluster, as the source or the target of one bot's move."""

    def __init__(self, cluster: Cluster, wish: Wish, namespaces: tuple[str, str],
                 clock: t.Callable[[], float] = time.time):
        self.cluster, self.wish, self.namespaces, self.clock = cluster, wish, namespaces, clock
        self.name, self.stand = f"bot-{wish.name}", Stand(namespaces[0], None, None)

    def plan(self) -> Plan:
        plan, self.stand = Plan(), self._look()
        verb = getattr(self, f"_plan_{self.wish.state}", None)
        if verb:
            verb(plan)
        return plan

    def apply(self, _plan: Plan) -> Json:
        before = {"conversations": self._conversations()} if self.wish.state == "held" else {}
        getattr(self, f"_{self.wish.state}")()
        self.stand = self._look()
        return {**self.facts(), **before}

    def facts(self) -> Json:
        found = self._conversations()
        if self.wish.state == "arrived" and self.stand.replicas:
            check_conversations(self.wish.name, self.wish.conversations, found, ["sessions"])
        return {"move": shown(self.stand.mark), "conversations": found}

    # -- observe -----------------------------------------------------------------------------------------------------

    def _look(self) -> Stand:
        """The bot where it is, or else where nothing is."""
        found = [self._stand(namespace) for namespace in dict.fromkeys(self.namespaces)]
        return next((one for one in found if one.deployment), next((one for one in found if one.claim), found[0]))

    def _stand(self, namespace: str) -> Stand:
        objects = {kind: self.cluster.get(kind, name, namespace) for kind, name in (
            ("Deployment", self.name), ("PersistentVolumeClaim", f"{self.name}-{STATE}"))}
        for kind, obj in objects.items():
            if obj:
                self._check({"kind": kind, **obj})
        return Stand(namespace, objects["Deployment"], objects["PersistentVolumeClaim"],
                     tuple(self.cluster.list("Pod", namespace, f"app={self.name}")))

    def _check(self, obj: Json) -> None:
        marks = obj["metadata"].get("labels") or {}
        guard(subject(obj), marks, "bot", self.wish.name)
        if marks.get(FLEET) != self.wish.fleet:
            raise FleetError("foreign_object", f"{subject(obj)} belongs to fleet {marks.get(FLEET)}.")

    def _conversations(self) -> dict[str, int]:
        """As the running bot has them; where none runs, nothing is known."""
        running = [pod for pod in self.stand.pods if (pod.get("status") or {}).get("phase") == "Running"
                   and not pod["metadata"].get("deletionTimestamp")]
        if not running:
            return {"sessions": 0, "records": 0}
        notes = (self.stand.deployment or {"metadata": {}})["metadata"].get("annotations") or {}
        command = counting(PLACES[STATE], USER if notes.get(PROFILE) == "desktop" else None)
        done = self.cluster.exec(self.stand.namespace, running[0]["metadata"]["name"], command)
        return counted(self.wish.name, Finished(done.rc, done.out, done.err))

    # -- the mark ----------------------------------------------------------------------------------------------------

    def _mark(self) -> Mark:
        return self.wish.mark(self.clock(), self.stand.mark, self.stand.replicas > 0)

    def _compare_mark(self, plan: Plan, wanted: Mark | None) -> None:
        if self.stand.claim or wanted:
            plan.compare(f"move of {self.wish.name}", shown(wanted), shown(self.stand.mark))

    def _put_mark(self, mark: Mark | None) -> None:
        body = {"metadata": {"annotations": {MOVE: mark.to_json() if mark else None}}}
        self.cluster.patch("PersistentVolumeClaim", f"{self.name}-{STATE}", body, self.stand.namespace)

    def _must_be_there(self) -> None:
        if not (self.stand.deployment and self.stand.claim):
            raise FleetError("path_missing", f"Bot {self.wish.name} has no Deployment with volumes in "
                             f"{' or '.join(self.namespaces)}.", "Make it first: the role bots.")

    # -- the target: expected, free, arrived -------------------------------------------------------------------------

    def _plan_expected(self, plan: Plan) -> None:
        """What is in volumes is seen from within: whoever fills them looks."""
        self._must_be_there()
        check_target(self.wish.name, self.stand.mark, "it runs" if self.stand.replicas or self.stand.pods else "")
        self._compare_mark(plan, self._mark())

    def _expected(self) -> None:
        self._put_mark(self._mark())

    def _plan_free(self, plan: Plan) -> None:
        self._compare_mark(plan, None)

    def _free(self) -> None:
        self._put_mark(None)

    # -- the source: held, returned ----------------------------------------------------------------------------------

    def _plan_held(self, plan: Plan) -> None:
        self._must_be_there()
        self._compare_mark(plan, self._mark())
        if self.stand.replicas or self.stand.pods:
            plan.add(f"Deployment {self.stand.namespace}/{self.name}", "stop", "started", "stopped")

    def _held(self) -> None:
        """The mark comes first: whoever else works on this cluster does not start it again."""
        self._put_mark(self._mark())
        self._scale(0)

    def _plan_returned(self, plan: Plan) -> None:
        self._compare_mark(plan, None)
        if self._ran() and not self.stand.replicas:
            plan.add(f"Deployment {self.stand.namespace}/{self.name}", "start", "stopped", "started")

    def _returned(self) -> None:
        ran = self._ran()
        self._put_mark(None)
        if ran:
            self._scale(1)

    def _ran(self) -> bool:
        return bool(self.stand.deployment and self.stand.mark and self.stand.mark.ran)

    def _scale(self, replicas: int) -> None:
        made = self.cluster.patch("Deployment", self.name, {"spec": {"replicas": replicas}}, self.stand.namespace)
        target = Target(self.stand.namespace, bool(replicas), made["metadata"].get("generation", 0))
        for error in Wait(self.cluster, {self.wish.name: target}, self.wish.timeout).run().values():
            raise error

    # -- either: gone ------------------------------------------------------------------------------------------------

    def _plan_gone(self, plan: Plan) -> None:
        for change in self._remover().plan().changes:
            plan.add(change.subject, change.action, change.before, change.after)
        if not self.wish.purge_data:
            self._compare_mark(plan, self._left())

    def _gone(self) -> None:
        """What stays is marked last: until then the next run takes it up again."""
        remover = self._remover()
        remover.apply(remover.plan())
        left = self._left()
        if left:
            self._put_mark(left)

    def _left(self) -> Mark | None:
        """Data of a bot that was here, and is no more."""
        found = self.stand.mark
        if not self.stand.claim or self.wish.purge_data or (found and found.role == LEFT):
            return None if not found or self.wish.purge_data else found
        return Mark(LEFT, self.wish.source, self.wish.target, self.clock())

    def _remover(self) -> Fleet:
        bot = parse({"name": self.wish.name, "version": RELEASE, "state": "absent"}, "cluster")
        gateways, desktops = self.namespaces
        site = Site(self.wish.fleet, desktops, gateways)
        return Fleet(self.cluster, site, [bot], Settings(purge_data=self.wish.purge_data, timeout=self.wish.timeout))
