# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Bots as objects of a cluster: observe, plan, apply. One LIST for each kind; writes only what differs."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import datetime
import secrets
import time
import typing as t

from .._bot import VOLUMES, Bot
from .._errors import FleetError, bad_value
from .._handover import LEFT, Mark, check_free
from .._openclaw.render import TOKEN
from .._ownership import FLEET, PREFIX, guard, is_ours
from .._plan import HIDDEN, Plan
from .._ports import Band
from .._quantity import parse_bytes
from . import compare, manifests
from .client import Cluster, Json, subject
from .facts import describe, mark_at
from .manifests import VNC_PASSWORD, Site
from .pairs import BAND, Pairs, pair_of
from .wait import Target, Wait, ready

KINDS = ("ServiceAccount", "NetworkPolicy", "Secret", "ConfigMap", "PersistentVolumeClaim", "Service", "Deployment")
_BOT = f"{PREFIX}/bot"
_WORKERS = 8
#: How the names of a bot's objects end.
_ENDS = {"ServiceAccount": ("",), "NetworkPolicy": ("",), "Deployment": ("",), "Service": ("-vnc",),
         "Secret": ("-keys", "-ssh"), "ConfigMap": ("-config",),
         "PersistentVolumeClaim": tuple(f"-{volume}" for volume in VOLUMES["desktop"])}
Place = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one call says about the fleet as a whole."""

    band: Band = BAND
    prune: bool = False
    hold_new: bool = False
    upgrade: bool = False
    purge_data: bool = False
    adopt: bool = False
    force_conflicts: bool = False
    max_unavailable: int | None = None
    wait: bool = True
    timeout: float = 300.0
    check: bool = False
    diff: bool = False


@dataclasses.dataclass
class Wanted:
    """One bot that is to be there, and what of it has to be written."""

    bot: Bot
    namespace: str
    keys: dict[str, str] = dataclasses.field(repr=False)
    pair: int | None
    replicas: int
    differing: list[Json] = dataclasses.field(default_factory=list)
    restart: bool = False
    disturbs: bool = False
    live: bool = False
    generation: int = 0


class Seen:
    """The objects of some namespaces, as they were found."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.objects: dict[Place, Json] = {}
        self.labelled: dict[str, list[Json]] = {}
        self.listed: set[tuple[str, str]] = set()

    def look(self, namespace: str, kinds: t.Iterable[str] = KINDS) -> None:
        for kind in kinds:
            self.listed.add((kind, namespace))
            for obj in self.cluster.list(kind, namespace):
                self.objects[kind, namespace, obj["metadata"]["name"]] = obj
                self.labelled.setdefault(_marks(obj).get(_BOT, ""), []).append(obj)

    def keep(self, made: Json) -> None:
        """What a write has made of an object, which spares asking again."""
        self.objects[made["kind"], made["metadata"]["namespace"], made["metadata"]["name"]] = made

    def find(self, kind: str, namespace: str, name: str) -> Json | None:
        return self.objects.get((kind, namespace, name))

    def like(self, obj: Json) -> Json | None:
        return self.find(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])

    def of_bot(self, name: str) -> list[Json]:
        """Everything that is the bot's by its label or would be by its name."""
        found = {subject(obj): obj for obj in self.labelled.get(name, [])}
        for kind, namespace in self.listed:
            for end in _ENDS.get(kind, ()):
                obj = self.find(kind, namespace, f"bot-{name}{end}")
                if obj:
                    found[subject(obj)] = obj
        return [found[title] for title in sorted(found)]


def _marks(obj: t.Mapping[str, t.Any]) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


class Fleet:
    """The bots of one cluster."""

    def __init__(self, cluster: Cluster, site: Site, bots: list[Bot], settings: Settings):
        self.cluster, self.site, self.bots, self.settings = cluster, site, bots, settings
        self.seen = Seen(cluster)
        self.pairs = Pairs(cluster, settings.band, site.namespace)
        self.wanted: list[Wanted] = []
        self.removed: list[str] = []
        self.held: list[str] = []
        self.changed: set[str] = set()

    # -- plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        self._observe()
        present = [bot for bot in self.bots if bot.state != "absent"]
        if self.settings.hold_new:
            self.held = [bot.name for bot in present if not self._has_begun(bot)]
            present = [bot for bot in present if bot.name not in self.held]
        gone = [bot.name for bot in self.bots if bot.state == "absent"]
        if self.settings.prune:
            gone += self._strangers()
        self._check_owners([*(bot.name for bot in present), *gone])
        for bot in present:
            self._check_place(bot)
            self._check_version(bot)
        pairs = self._choose_pairs(present)
        plan = Plan()
        for bot in present:
            self._plan_present(plan, bot, pairs.get(bot.name))
        for name in gone:
            self._plan_absent(plan, name)
        self._rehearse(plan)
        return plan

    def _has_begun(self, bot: Bot) -> bool:
        """Whether it runs here or has data here. Its keys alone are no bot, nor is what it left when it moved away."""
        kinds = {obj["kind"] for obj in self.seen.of_bot(bot.name)}
        mark = self._mark(bot.name, self.site.namespace_of(bot.profile))
        return "Deployment" in kinds or ("PersistentVolumeClaim" in kinds and not (mark and mark.role == LEFT))

    def _mark(self, name: str, namespace: str) -> Mark | None:
        """That it is being moved, or has left."""
        return mark_at(self.seen.find("PersistentVolumeClaim", namespace, f"bot-{name}-clawdbot"))

    def _observe(self) -> None:
        namespaces = {self.site.namespace_of(bot.profile) for bot in self.bots}
        if self.settings.prune or any(bot.state == "absent" for bot in self.bots):
            namespaces |= {self.site.namespace, self.site.gateway_namespace}
        for namespace in sorted(namespaces):
            self.seen.look(namespace)

    def _strangers(self) -> list[str]:
        """Bots of this fleet that are not in the list."""
        named = {bot.name for bot in self.bots}
        found = {_marks(obj).get(_BOT, "") for obj in self.seen.objects.values()
                 if is_ours(_marks(obj)) and _marks(obj).get(FLEET) == self.site.fleet and not self._spared(obj)
                 and not self._mark(_marks(obj).get(_BOT, ""), obj["metadata"]["namespace"])}
        return sorted(found - named - {""})

    def _check_owners(self, names: t.Iterable[str]) -> None:
        """Every object with a name of ours must be ours; all that are not are named."""
        refusals = []
        for name in names:
            for obj in self.seen.of_bot(name):
                try:
                    self._check_owner(obj, name)
                except FleetError as error:
                    refusals.append(error)
        if refusals:
            raise FleetError("foreign_object", " ".join(error.message for error in refusals), refusals[0].hint,
                             objects=[error.details["object"] for error in refusals])

    def _check_owner(self, obj: Json, name: str) -> None:
        what, marks = subject(obj), _marks(obj)
        try:
            guard(what, marks, "bot", name, self.settings.adopt)
        except FleetError as error:
            error.details["object"] = what
            raise
        if is_ours(marks) and marks.get(FLEET) != self.site.fleet and not self.settings.adopt:
            raise FleetError("foreign_object", f"{what} exists and belongs to fleet {marks.get(FLEET)}.",
                             "Rename the bot, or take it over with adopt: true.", object=what)

    def _check_place(self, bot: Bot) -> None:
        """A bot whose profile was changed would get an empty twin in the other namespace."""
        here = self.site.namespace_of(bot.profile)
        other = ({self.site.namespace, self.site.gateway_namespace} - {here} or {here}).pop()
        if other == here or self.seen.find("Deployment", here, f"bot-{bot.name}"):
            return
        kinds = ("Deployment", "PersistentVolumeClaim")
        try:
            self.seen.look(other, [kind for kind in kinds if (kind, other) not in self.seen.listed])
        except FleetError as error:
            if error.code != "forbidden":
                raise
        twin = next((obj for obj in self.seen.of_bot(bot.name) if obj["metadata"]["namespace"] == other
                     and obj["kind"] in kinds and _marks(obj).get(_BOT) == bot.name), None)
        if twin:
            raise FleetError("bad_profile", f"{bot.name} has profile {bot.profile}, which belongs in {here}, but "
                             f"{subject(twin)} exists.", "Set bot_profile back, or back the bot up, remove it with "
                             "purge_data: true, and restore it with the new profile.")

    def _check_version(self, bot: Bot) -> None:
        deployment = self._deployment(bot)
        running = ((deployment or {}).get("metadata", {}).get("annotations") or {}).get(manifests.VERSION)
        if running and running != bot.version and not self.settings.upgrade:
            raise FleetError("upgrade_needed",
                             f"{bot.name} runs OpenClaw {running}, and bot_version says {bot.version}.",
                             "Back the bot up, then allow it with upgrade: true.")

    def _deployment(self, bot: Bot) -> Json | None:
        return self.seen.find("Deployment", self.site.namespace_of(bot.profile), f"bot-{bot.name}")

    def _service(self, bot: Bot) -> Json | None:
        return self.seen.find("Service", self.site.namespace_of(bot.profile), f"bot-{bot.name}-vnc")

    def _choose_pairs(self, bots: list[Bot]) -> dict[str, int]:
        strange = next((bot for bot in bots if bot.port and bot.profile != "desktop"), None)
        if strange:
            raise bad_value("bot_port", strange.port, f"Leave it out: {strange.name} is a gateway bot, without a port.")
        wanted = {bot.name: bot.port or pair_of(self._service(bot)) for bot in bots if bot.profile == "desktop"}
        return self.pairs.choose(wanted)

    def _keys(self, bot: Bot, found: t.Mapping[str, str]) -> dict[str, str]:
        """What the bot is given and what is made for it: made once, and kept."""
        made = {TOKEN: bot.gateway_token or found.get(TOKEN) or secrets.token_urlsafe(32)}
        if bot.profile == "desktop" and not bot.pod.allow_passwordless:
            made[VNC_PASSWORD] = found.get(VNC_PASSWORD) or secrets.token_urlsafe(6)  # VNC takes 8 characters
        return {**made, **bot.api_keys, TOKEN: made[TOKEN]}

    def _plan_present(self, plan: Plan, bot: Bot, pair: int | None) -> None:
        namespace, deployment = self.site.namespace_of(bot.profile), self._deployment(bot)
        found = _decoded(self.seen.find("Secret", namespace, f"bot-{bot.name}-keys"))
        running = deployment["spec"].get("replicas", 1) if deployment else None
        replicas = {"stopped": 0, "present": 1 if running is None else running}.get(bot.state, 1)
        if replicas:
            check_free(bot.name, self._mark(bot.name, namespace))
        want = Wanted(bot, namespace, self._keys(bot, found), pair, replicas)
        self.wanted.append(want)
        for obj in self._objects(want):
            observed = self.seen.like(obj)
            if compare.covers(obj, observed):
                continue
            _check_immutable(obj, observed)
            want.differing.append(obj)
            self._record(plan, obj, observed)
        self._plan_run(plan, want, deployment)

    def _objects(self, want: Wanted) -> list[Json]:
        return manifests.objects(want.bot, self.site, want.keys, want.pair, want.replicas, self._started_with(want.bot))

    def _started_with(self, bot: Bot) -> str | None:
        """A bot that takes a new configuration while it runs is not to be rolled by it."""
        template = (self._deployment(bot) or {}).get("spec", {}).get("template", {})
        notes = template.get("metadata", {}).get("annotations") or {}
        return notes.get(manifests.CONFIG_DIGEST) if bot.pod.live_config else None

    def _plan_run(self, plan: Plan, want: Wanted, deployment: Json | None) -> None:
        if not deployment or not deployment["spec"].get("replicas", 1):
            return
        changed = next((obj for obj in want.differing if obj["kind"] == "Deployment"), None)
        rolls = changed and not compare.covers(changed["spec"], deployment["spec"])
        if want.bot.state == "restarted" and not rolls:
            plan.add(subject(deployment), "restart")
            want.restart = True
        want.disturbs = bool(rolls or want.restart)
        want.live = want.bot.pod.live_config and want.replicas > 0 and not want.disturbs and any(
            obj["kind"] == "ConfigMap" for obj in want.differing)

    def _record(self, plan: Plan, obj: Json, observed: Json | None) -> None:
        before: t.Any = None
        after: t.Any = None
        if self.settings.diff:
            before, after = _shown(compare.part(obj, observed) if observed else None), _shown(obj)
            if obj["kind"] == "Secret" and observed:
                before, after = f"{HIDDEN} old", f"{HIDDEN} new"
        plan.add(subject(obj), "update" if observed else "create", before, after)

    def _plan_absent(self, plan: Plan, name: str) -> None:
        doomed = [obj for obj in self.seen.of_bot(name) if not self._spared(obj)]
        if doomed:
            self.removed.append(name)
        for obj in doomed:
            plan.add(subject(obj), "delete")

    def _spared(self, obj: Json) -> bool:
        """Data stay, unless their deletion is asked for in so many words. So does what is going away already."""
        deleting = bool(obj["metadata"].get("deletionTimestamp"))
        return deleting or (obj["kind"] == "PersistentVolumeClaim" and not self.settings.purge_data)

    def _rehearse(self, plan: Plan) -> None:
        """Asks the server for its refusals before the first write: about updates, and in check mode about all."""
        asked = [obj for want in self.wanted for obj in want.differing if self.settings.check or self.seen.like(obj)]
        errors = _parallel(asked, lambda obj: self._apply(obj, dry_run=True))
        absent = {error.message for error in errors if error.code == "not_found" and "namespaces " in error.message}
        for message in sorted(absent)[:1]:
            plan.cannot_see(message)
        for error in errors:
            if error.message not in absent:
                raise error

    # -- apply ---------------------------------------------------------------------------------------------------

    def apply(self, _plan: Plan) -> dict[str, t.Any]:
        self.changed = {want.bot.name for want in self.wanted if want.differing or want.restart} | set(self.removed)
        for batch in self._batches():
            self._each(batch, self._write)
            self.wait(batch)
        if self.removed:
            self._remove()
        return self.facts()

    def _batches(self) -> list[list[Wanted]]:
        """Those that disturb nobody first, and then no more at a time than may be down."""
        calm = [want for want in self.wanted if not want.disturbs]
        rough = [want for want in self.wanted if want.disturbs]
        step = self.settings.max_unavailable or len(rough) or 1
        return [batch for batch in (calm, *(rough[at:at + step] for at in range(0, len(rough), step))) if batch]

    def _each(self, batch: list[Wanted], work: t.Callable[[Wanted], object]) -> None:
        failed: dict[str, FleetError] = {}

        def one(want: Wanted) -> None:
            try:
                work(want)
            except FleetError as error:
                failed[want.bot.name] = error
        _parallel(batch, one)
        self._report(failed)

    def _report(self, failed: t.Mapping[str, FleetError]) -> None:
        """One error for all bots that failed, with a result for each bot of the call."""
        if not failed:
            return
        codes = {error.code for error in failed.values()}
        results = [{"name": want.bot.name, "failed": want.bot.name in failed, **(
            failed[want.bot.name].result()["failure"] if want.bot.name in failed else {})} for want in self.wanted]
        text = " ".join(f"{name}: {error.message}" for name, error in sorted(failed.items()))
        raise FleetError(codes.pop() if len(codes) == 1 else "bots_failed",
                         text if len(self.wanted) == 1 else f"{len(failed)} of {len(self.wanted)} bots failed. {text}",
                         next(iter(failed.values())).hint, bots=results)

    def _write(self, want: Wanted) -> None:
        first = self._decide(want)
        for obj in first if first is not None else want.differing:
            made = self._apply(obj)
            self.seen.keep(made)
            if obj["kind"] == "Deployment":
                want.generation = made["metadata"].get("generation", 0)
        if want.restart:
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            body = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}}
            made = self.cluster.patch("Deployment", f"bot-{want.bot.name}", body, want.namespace)
            self.seen.keep(made)
            want.generation = made["metadata"].get("generation", 0)
        if want.live:
            self._deliver(want)

    def _deliver(self, want: Wanted) -> None:
        """The node brings a ConfigMap into a pod now and then, and at once when the pod itself changes."""
        text, end = manifests.config_text(want.bot), time.monotonic() + self.settings.timeout
        read = ["cat", f"/etc/openclaw/{manifests.CONFIG_FILE}"]
        note = {"metadata": {"annotations": {manifests.CONFIG_DIGEST: manifests.config_digest(text)}}}
        for pod in self.cluster.list("Pod", want.namespace, f"app=bot-{want.bot.name}"):
            name = pod["metadata"]["name"]
            if pod["metadata"].get("deletionTimestamp") or (pod.get("status") or {}).get("phase") != "Running":
                continue
            self.cluster.patch("Pod", name, note, want.namespace)
            while self.cluster.exec(want.namespace, name, read).out != text:
                if time.monotonic() >= end:
                    raise FleetError("config_not_there", f"The new configuration did not reach {name} within "
                                     f"{self.settings.timeout:g} s.", "Restart the bot with state restarted.")
                time.sleep(0.5)

    def _decide(self, want: Wanted) -> list[Json] | None:
        """Makes what two runs could make differently: the generated keys, the ports. The first run decides for both."""
        names = {(obj["kind"], obj["metadata"]["name"]): obj for obj in want.differing if not self.seen.like(obj)}
        keys, service = (names.get((kind, f"bot-{want.bot.name}-{end}"))
                         for kind, end in (("Secret", "keys"), ("Service", "vnc")))
        if keys:
            made = {name: value for name, value in keys["data"].items() if name in (TOKEN, VNC_PASSWORD)}
            found = self._first(want, lambda: self.cluster.create({**keys, "data": made}), keys)
            want.keys = self._keys(want.bot, _decoded(found))
        if service and want.pair is not None:
            pair = want.pair
            found = self._first(want, lambda: self.pairs.create(
                want.bot.name, pair, lambda ports: self._service_for(want, ports), bool(want.bot.port)), service)
            want.pair = want.bot.port or pair_of(found) or want.pair
        if not keys and not service:
            return None
        wanted = {subject(obj) for obj in want.differing}
        return [obj for obj in self._objects(want) if subject(obj) in wanted]

    def _service_for(self, want: Wanted, pair: int) -> Json:
        return manifests.service(want.bot.name, self.site, want.namespace, pair, want.bot.pod.allowed_sources)

    def _first(self, want: Wanted, create: t.Callable[[], Json], obj: Json) -> Json:
        try:
            return create()
        except FleetError as error:
            if error.code != "already_exists":
                raise
        found = self.cluster.get(obj["kind"], obj["metadata"]["name"], want.namespace)
        if found is None:
            raise FleetError("changed_meanwhile", f"{subject(obj)} came and went while this ran.", "Run again.")
        self._check_owner({"kind": obj["kind"], **found}, want.bot.name)
        return found

    def _apply(self, obj: Json, dry_run: bool = False) -> Json:
        observed = self.seen.like(obj)
        adopted = observed is not None and not is_ours(_marks(observed))
        return self.cluster.apply(obj, dry_run, self.settings.force_conflicts or adopted)

    def _remove(self) -> None:
        """First what runs, then, when it has really ended, what it ran on."""
        doomed = [obj for name in self.removed for obj in self.seen.of_bot(name) if not self._spared(obj)]
        running = [obj for obj in doomed if obj["kind"] == "Deployment"]
        _raise_first(_parallel(running, self.cluster.delete))
        targets = {obj["metadata"]["name"][4:]: Target(obj["metadata"]["namespace"], running=False) for obj in running}
        if targets:
            self._report(Wait(self.cluster, targets, self.settings.timeout).run())
        _raise_first(_parallel([obj for obj in doomed if obj["kind"] != "Deployment"], self.cluster.delete))

    # -- facts ---------------------------------------------------------------------------------------------------

    def wait(self, batch: t.Iterable[Wanted] | None = None) -> None:
        """Waits for the bots that are not yet what they are to be."""
        if not self.settings.wait or self.settings.check:
            return
        targets = {}
        for want in self.wanted if batch is None else batch:
            deployment = self._deployment(want.bot)
            touched = want.differing or want.restart
            if want.replicas and not touched and ready(deployment):
                continue
            if not want.replicas and not touched and not ((deployment or {}).get("status") or {}).get("replicas"):
                continue
            targets[want.bot.name] = Target(want.namespace, bool(want.replicas), want.generation,
                                            frozenset(want.keys.values()))
        if targets:
            self._report(Wait(self.cluster, targets, self.settings.timeout).run())
            self.seen.listed -= {(kind, target.namespace) for target in targets.values()
                                 for kind in ("Deployment", "PersistentVolumeClaim")}

    def facts(self) -> dict[str, t.Any]:
        """A result for each bot, and the pods for it in one more LIST, with what has changed by itself meanwhile."""
        namespaces = {want.namespace for want in self.wanted}
        for namespace in sorted(namespaces):
            kinds = ("Deployment", "Service", "PersistentVolumeClaim", "Pod")
            self.seen.look(namespace, [kind for kind in kinds if (kind, namespace) not in self.seen.listed])
        found = describe(self.seen.objects, [(want.bot.name, want.namespace) for want in self.wanted])
        for want, bot in zip(self.wanted, found):
            bot |= {"profile": want.bot.profile, "version": want.bot.version, "changed": want.bot.name in self.changed}
            if want.pair is not None and not bot["ports"]:
                bot["ports"] = {"chrome": want.pair, "terminal": want.pair + 1}
        return {"bots": found, "removed": self.removed, "held": self.held}


def _decoded(secret: t.Mapping[str, t.Any] | None) -> dict[str, str]:
    data = (secret or {}).get("data") or {}
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in data.items()}


def _shown(obj: Json | None) -> Json | None:
    """For a diff: without what every object has, and without secrets."""
    if obj is None:
        return None
    hidden = {"data": dict.fromkeys(obj.get("data") or {}, HIDDEN)} if obj.get("kind") == "Secret" else {}
    return {key: value for key, value in {**obj, **hidden}.items() if key not in ("apiVersion", "kind", "metadata")}


def _check_immutable(obj: Json, observed: Json | None) -> None:
    """What the server would refuse, or worse, do. With the way out."""
    if observed is None:
        return
    spec, found = obj.get("spec", {}), observed.get("spec", {})
    what, way = subject(obj), "Keep it, or back the bot up, remove it with purge_data: true, and restore it."
    if obj["kind"] == "PersistentVolumeClaim":
        wanted, has = (one["resources"]["requests"]["storage"] for one in (spec, found))
        if parse_bytes(what, wanted) < parse_bytes(what, has):
            raise FleetError("cannot_shrink", f"{what} has {has}, and {wanted} is wanted. A volume can't shrink.", way)
        for field in ("storageClassName", "accessModes"):
            if field in spec and spec[field] != found.get(field):
                raise FleetError("immutable_field", f"{what} has {field} {found.get(field)!r}, and {spec[field]!r} is "
                                 "wanted, which can't be changed.", way)
    if obj["kind"] == "Deployment" and found.get("selector") != spec["selector"]:
        raise FleetError("immutable_field", f"{what} has the selector {found.get('selector')!r}, and "
                         f"{spec['selector']!r} is wanted, which can't be changed.",
                         "Delete that Deployment; its volumes stay.")


def _parallel(items: t.Sequence[t.Any], work: t.Callable[[t.Any], object]) -> list[FleetError]:
    """Works on all, several at a time; returns the failures."""
    failures = []

    def one(item: t.Any) -> None:
        try:
            work(item)
        except FleetError as error:
            failures.append(error)
    with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(one, items))
    return failures


def _raise_first(errors: list[FleetError]) -> None:
    if errors:
        raise errors[0]
