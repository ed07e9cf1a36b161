# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Bots in a cluster as sources and targets of backups: where pods and restic meet."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import socket
import typing as t
import urllib.parse

from ansible.module_utils.basic import env_fallback

from ._backup import volumes
from ._backup.host import REGENERABLE, HostRunner, noted
from ._backup.model import MANIFEST, Manifest, Restored, Safety, Scratch, Staged, Store, parts_of
from ._errors import FleetError
from ._handover import LEFT, mark_of
from ._kubernetes.client import Cluster, Json, subject
from ._kubernetes.job import PLACE, Bench, Reach, Session, opened
from ._kubernetes.manifests import MOVE, PLACES, PROFILE, USER, VERSION
from ._kubernetes.wait import Target as Stopped
from ._kubernetes.wait import Wait
from ._openclaw.render import TOKEN
from ._ownership import FLEET, PREFIX, guard
from ._process import Finished
from ._quantity import parse_bytes

SUBSTRATE = "cluster"
ROLES = {"clawdbot": "state", "clawd": "workspace", "chrome": "browser", "homebrew": "homebrew"}
#: On the claim of the state: a run whose snapshot must not count, and what was restored last.
RUN, RESTORED = f"{PREFIX}/backup-run", f"{PREFIX}/restored"
CA = f"{PLACE}/ca.pem"
#: The state once more, so that what restic leaves out of it can be backed up under another name.
AGAIN, STAGING = "/var/lib/clawops/volume", "/var/lib/clawops/staging"
_PASSED = ("RESTIC_REPOSITORY", "RESTIC_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


CLUSTER: Json = {
    "kubeconfig": {"type": "raw", "fallback": (env_fallback, ["K8S_AUTH_KUBECONFIG"])},
    "context": {"type": "str", "fallback": (env_fallback, ["K8S_AUTH_CONTEXT"])},
    "namespace": {"type": "str", "default": "claworc"},
    "gateway_namespace": {"type": "str", "default": "claworc-gateway"},
    "image": {"type": "str"},
}


class PodRunner:
    """restic where the volumes are, while there is a pod that has them; else where this module runs."""

    def __init__(self, ca_cert: str | None) -> None:
        self.session: Session | None = None
        self.ca_cert, self.here = ca_cert, HostRunner()

    def run(self, argv: t.Sequence[str], env: t.Mapping[str, str], timeout: float) -> Finished:
        if self.session is None:
            return self.here.run(argv, env, timeout)
        done = self.session.run(["restic", *(CA if word == self.ca_cert else word for word in argv[1:])],
                                timeout=timeout)
        if done.rc and not done.out and not done.err:
            raise FleetError("connection_lost", "The connection to restic in the pod ended before restic did.",
                             "Run it again; what it may have left does not count.")
        return Finished(done.rc, done.out, done.err)


@dataclasses.dataclass(frozen=True)
class Ways:
    """What all bots of one call have in common: the cluster, where to look, and how to reach the bucket."""

    cluster: Cluster
    store: Store
    namespaces: tuple[str, ...]
    image: str | None
    timeout: float

    def reach(self) -> Reach:
        """Where the bucket is, as it is seen from here."""
        parts = urllib.parse.urlsplit(self.store.endpoint)
        name, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise FleetError("unreachable", f"There is no address for {name}: {error}.", "Check endpoint.") from None
        addresses = tuple(dict.fromkeys(str(one[4][0]) for one in found))
        return Reach(addresses, port, "" if name in addresses else name)


def ways(params: t.Mapping[str, t.Any], store: Store) -> Ways:
    """What the options of a module say."""
    namespaces = dict.fromkeys((params["gateway_namespace"], params["namespace"]))
    cluster = Cluster.of({name: params[name] for name in ("kubeconfig", "context")})
    return Ways(cluster, store, tuple(namespaces), params["image"], params["timeout"])


@dataclasses.dataclass(frozen=True)
class Stand:
    """A bot as it stands in its namespace."""

    bot: str
    namespace: str
    claims: dict[str, Json]
    deployment: Json | None

    @property
    def desktop(self) -> bool:
        return self._note(PROFILE) == "desktop"

    @property
    def version(self) -> str:
        return self._note(VERSION)

    def _note(self, name: str) -> str:
        return str(((self.deployment or {}).get("metadata", {}).get("annotations") or {}).get(name) or "")

    @property
    def template(self) -> Json:
        found: Json = (self.deployment or {}).get("spec", {}).get("template", {}).get("spec", {})
        return found

    @property
    def volumes(self) -> dict[str, str]:
        """Where each role is, in the bot's pod and in a Job's alike."""
        return {ROLES[volume]: PLACES[volume] for volume in self.claims}

    @property
    def places(self) -> dict[str, str]:
        return {ROLES[volume]: subject({"kind": "PersistentVolumeClaim", **claim})
                for volume, claim in self.claims.items()}

    @property
    def notes(self) -> dict[str, str]:
        return self.claims["clawdbot"]["metadata"].get("annotations") or {}


class Pod:
    """What sources and targets share: one bot, found, and a Job beside its volumes."""

    def __init__(self, ways: Ways, bot: str, runner: PodRunner, environment: t.Mapping[str, str]) -> None:
        self.ways, self.bot, self.runner = ways, bot, runner
        self.environment = {name: environment[name] for name in _PASSED}

    def find(self) -> Stand:
        """The bot, where it is. It must be there, be it stopped."""
        cluster, name = self.ways.cluster, f"bot-{self.bot}"
        for namespace in self.ways.namespaces:
            listed = cluster.list("PersistentVolumeClaim", namespace, f"{PREFIX}/bot={self.bot}")
            named = {claim["metadata"]["name"][len(name) + 1:]: claim for claim in listed}
            claims = {volume: named[volume] for volume in ROLES if volume in named}
            deployment = cluster.get("Deployment", name, namespace)
            if deployment and "clawdbot" in claims:
                for obj in ({"kind": "Deployment", **deployment}, *claims.values()):
                    self._check(obj)
                return Stand(self.bot, namespace, claims, deployment)
        raise FleetError("path_missing", f"Bot {self.bot} has no Deployment with volumes in "
                                         f"{' or '.join(self.ways.namespaces)}.", "Make it first: the role bots.",
                         bot=self.bot)

    def _check(self, obj: Json) -> None:
        marks = obj["metadata"].get("labels") or {}
        guard(subject(obj), marks, "bot", self.bot)
        if marks.get(FLEET) != self.ways.store.fleet:
            raise FleetError("foreign_object", f"{subject(obj)} belongs to fleet {marks.get(FLEET)}.")

    def pods(self, stand: Stand) -> list[Json]:
        return self.ways.cluster.list("Pod", stand.namespace, f"app=bot-{self.bot}")

    def bench(self, stand: Stand, mounts: t.Mapping[str, str | None], read_only: bool, node: str | None) -> Bench:
        template = stand.template
        image = self.ways.image or template["containers"][0]["image"]
        claims = {PLACES[volume]: claim["metadata"]["name"] for volume, claim in stand.claims.items()}
        return Bench(self.bot, self.ways.store.fleet, stand.namespace, image, {**claims, **mounts}, read_only,
                     0 if stand.desktop else USER, self.ways.reach(),
                     {**self.environment, "RESTIC_CACHE_DIR": "/tmp/restic"}, node,  # noqa: S108 the Job's own
                     template.get("nodeSelector") or {}, template.get("tolerations") or (),
                     template.get("imagePullSecrets") or (), self.ways.timeout)

    @contextlib.contextmanager
    def working(self, bench: Bench) -> t.Iterator[Session]:
        """A Job whose pod has what restic needs."""
        with opened(self.ways.cluster, bench) as session:
            found = session.run(["restic", "version"])
            if found.rc:
                raise FleetError("restic_missing", f"The image {bench.image} has no restic.",
                                 "Build it anew with the role bot_image, or name one that has it.", bot=self.bot)
            if self.runner.ca_cert:
                session.write(CA, pathlib.Path(self.runner.ca_cert).read_bytes())
            self.runner.session = session
            try:
                yield session
            finally:
                self.runner.session = None

    def inside(self, session: Session, verb: str, become: t.Sequence[str] = (), **arguments: t.Any) -> t.Any:
        """Runs one of the programs of volumes in a pod."""
        done = session.run([*become, "python3", "-I", "-c", volumes.LAUNCHER], volumes.program(verb, **arguments),
                           self.ways.timeout)
        if done.rc:
            raise FleetError("pod_failed", f"python3 in pod {session.namespace}/{session.pod} ended with {done.rc}: "
                                           f"{done.err.strip()[-1000:]}", "The image needs python3.", bot=self.bot)
        return volumes.answer_of(done.out)

    def staged(self, stand: Stand, host: str, made: Json, directory: str, paths: t.Sequence[str], safety: bool = False
               ) -> Staged:
        """What restic has to read, with the run noted: until its snapshot is known to be whole it must not count."""
        manifest = noted(self.ways.store.fleet, self.bot, host, SUBSTRATE, stand.version, parts_of(made["parts"]))
        self.note(stand, run=manifest.run)
        return Staged(manifest, directory, tuple(paths), tuple(made["exclude"]), stand.notes.get(RUN, ""),
                      safety=safety)

    def note(self, stand: Stand, **notes: str | None) -> None:
        """Remembers at the claim of the state, for the next run."""
        name = stand.claims["clawdbot"]["metadata"]["name"]
        known = {"run": RUN, "restored": RESTORED, "move": MOVE}
        body = {"metadata": {"annotations": {known[key]: value for key, value in notes.items()}}}
        self.ways.cluster.patch("PersistentVolumeClaim", name, body, stand.namespace)


class PodSource(Pod):
    """The volumes of one bot, read while it runs or not."""

    def __init__(self, ways: Ways, bot: str, runner: PodRunner, environment: t.Mapping[str, str], host: str,
                 exclude: t.Sequence[str]) -> None:
        super().__init__(ways, bot, runner, environment)
        self.host, self.exclude = host, {"state": list(exclude)}

    def observe(self) -> dict[str, t.Any]:
        return self.find().places

    @contextlib.contextmanager
    def open(self) -> t.Iterator[Staged]:
        stand = self.find()
        running = next((pod for pod in self.pods(stand) if _runs(pod)), None)
        with self._staged(stand, running) if running else self._stopped(stand) as staged:
            try:
                yield staged
            finally:
                if staged.settled:
                    self.note(stand, run=None)

    @contextlib.contextmanager
    def _staged(self, stand: Stand, pod: Json) -> t.Iterator[Staged]:
        """The bot makes the copies itself, in its own volume; the Job only reads."""
        inside = Session(self.ways.cluster, stand.namespace, pod["metadata"]["name"], "openclaw")
        # As nobody more than the bot: what is in its volume is in its hands.
        become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"] if stand.desktop else []
        top, directory = f"{PLACES['clawdbot']}/.clawops", f"staging/{self.bot}"
        mounts = {AGAIN: stand.claims["clawdbot"]["metadata"]["name"]}
        with self.working(self.bench(stand, mounts, True, pod["spec"].get("nodeName"))):
            try:
                made = self.inside(inside, "stage", become, **self._wishes(stand), directory=f"{top}/{directory}")
                staged = self.staged(stand, self.host, made, f"{AGAIN}/.clawops/{directory}", [*stand.volumes.values()])
                self.inside(inside, "write", become, path=f"{top}/{directory}/{MANIFEST}",
                            text=staged.manifest.to_json())
                yield staged
            finally:
                with contextlib.suppress(FleetError):
                    self.inside(inside, "discard", become, directory=top)

    @contextlib.contextmanager
    def _stopped(self, stand: Stand) -> t.Iterator[Staged]:
        """Nobody has the databases open: the Job copies them itself."""
        with self.working(self.bench(stand, {STAGING: None}, False, None)) as session:
            directory = f"{STAGING}/{self.bot}"
            made = self.inside(session, "stage", **self._wishes(stand), directory=directory)
            staged = self.staged(stand, self.host, made, directory, [*stand.volumes.values()])
            self.inside(session, "write", path=f"{directory}/{MANIFEST}", text=staged.manifest.to_json())
            yield staged

    def _wishes(self, stand: Stand) -> dict[str, t.Any]:
        return {"volumes": stand.volumes, "exclude": self.exclude, "timeout": self.ways.timeout}


class PodTarget(Pod):
    """The volumes of one bot that is stopped: filled beside what is in them, which is then exchanged."""

    def __init__(self, ways: Ways, bot: str, runner: PodRunner, environment: t.Mapping[str, str], stop: bool,
                 overwrite: bool) -> None:
        super().__init__(ways, bot, runner, environment)
        self.stop, self.overwrite = stop, overwrite
        self._stand: Stand | None = None
        self._size, self._filled = 0, list[str]()

    @property
    def stand(self) -> Stand:
        self._stand = self._stand or self.find()
        return self._stand

    def record(self) -> Restored | None:
        try:
            return Restored(**json.loads(self.stand.notes.get(RESTORED) or "{}"))
        except (TypeError, ValueError):
            return None

    def holds(self, snapshot: str) -> bool:
        """Whether these are still the volumes that this snapshot was restored to."""
        return self.record() == Restored(snapshot, self.places(), self._identities(), True)

    def places(self) -> dict[str, str]:
        return self.stand.places

    def _identities(self) -> dict[str, str]:
        return {ROLES[volume]: claim["metadata"]["uid"] for volume, claim in self.stand.claims.items()}

    def _remember(self, snapshot: str, done: bool) -> None:
        record = Restored(snapshot, self.places(), self._identities(), done)
        mark = mark_of(self.stand.notes.get(MOVE))
        # What a bot left when it moved away is now what it is.
        fresh: dict[str, str | None] = {"move": None} if done and mark and mark.role == LEFT else {}
        self.note(self.stand, restored=json.dumps(dataclasses.asdict(record)), **fresh)

    def occupied(self) -> list[str]:
        """What is in volumes is seen from within; open() looks."""
        return []

    def room(self) -> dict[str, int]:
        """Every bot has volumes of its own; check() looks at them."""
        return {}

    def check(self, manifest: Manifest, size: int) -> None:
        manifest.part("state")
        self._size = size
        room = sum(parse_bytes("storage", claim["spec"]["resources"]["requests"]["storage"])
                   for claim in self.stand.claims.values())
        if size > room:
            raise FleetError("disk_full", f"Bot {self.bot} needs {size} bytes, its volumes have {room}.",
                             "Give it more with bot_volume_sizes or bot_resources.storage.", needed=size, free=room)
        if not self.stop:
            self._check_stopped()

    def _check_stopped(self) -> None:
        now = self.find()
        if (now.deployment or {})["spec"].get("replicas", 1) or self.pods(now):
            raise FleetError("bot_running", f"Bot {self.bot} runs in {now.namespace}.",
                             "Stop it first, or set stop: true.", bot=self.bot)

    def _halt(self) -> None:
        """Nothing runs any more when this ends."""
        stand = self.stand
        self.ways.cluster.patch("Deployment", f"bot-{self.bot}", {"spec": {"replicas": 0}}, stand.namespace)
        failed = Wait(self.ways.cluster, {self.bot: Stopped(stand.namespace, running=False)}, self.ways.timeout).run()
        for error in failed.values():
            raise error

    @contextlib.contextmanager
    def open(self, manifest: Manifest) -> t.Iterator[list[Scratch]]:
        if self.stop:
            self._halt()
        self._check_stopped()
        known = {part.role for part in manifest.parts}
        volumes_ = {role: path for role, path in self.stand.volumes.items() if role in known}
        record = self.record()
        allowed = self.overwrite or (record is not None and not record.done)
        with self.working(self.bench(self.stand, {STAGING: None}, False, None)):
            self._filled = self._in_job("prepare", volumes=volumes_, size=self._size, overwrite=allowed)
            yield [Scratch(f"{path}/.clawops/restore", (role,)) for role, path in volumes_.items()]

    def _in_job(self, verb: str, **arguments: t.Any) -> t.Any:
        return self.inside(t.cast(Session, self.runner.session), verb, **arguments)

    def switch(self, scratches: list[Scratch], manifest: Manifest, snapshot: str, staging: str,
               safety: Safety | None = None) -> list[str]:
        roles = [role for scratch in scratches for role in scratch.roles]
        places = {role: self.stand.volumes[role] for role in roles}
        self._in_job("finish", volumes=places, bot=self.bot, manifest=manifest.to_json(), staging=staging,
                     owner=[USER, USER])
        self._check_stopped()
        if safety and self._filled:
            self._save(safety)
        self._remember(snapshot, done=False)
        self._in_job("exchange", volumes=places, trees={role: manifest.part(role).path for role in roles})
        self._in_job("settle", volumes=places)
        self._rotate()
        self._remember(snapshot, done=True)
        return []

    def _save(self, safety: Safety) -> None:
        """Has what is in the volumes taken as it lies: nothing runs that writes to it."""
        places, directory = {role: self.stand.volumes[role] for role in self._filled}, f"{STAGING}/{self.bot}"
        with safety.required():
            made = self._in_job("survey", volumes=places, exclude=REGENERABLE, directory=directory)
            staged = self.staged(self.stand, safety.host, made, directory, [*places.values()], safety=True)
            try:
                self._in_job("write", path=f"{directory}/{MANIFEST}", text=staged.manifest.to_json())
                safety.take(staged)
            finally:
                if staged.settled:
                    self.note(self.stand, run=None)

    def _rotate(self) -> None:
        """The next start makes a new token: who knew the old one from the snapshot's time is locked out."""
        name = f"bot-{self.bot}-keys"
        if self.ways.cluster.get("Secret", name, self.stand.namespace):
            self.ways.cluster.patch("Secret", name, {"data": {TOKEN: None}}, self.stand.namespace)


def _runs(pod: Json) -> bool:
    states = [one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or []]
    return not pod["metadata"].get("deletionTimestamp") and bool(states) and "running" in states[0]
