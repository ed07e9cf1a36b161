# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""50 bots of a cluster, 400 objects, against kubernetes.core and against the API by itself.

All bots are stopped and nobody waits for anything, so that what counts is the API server and its clients. Every side
makes the same objects; the peers get them ready, we make them of descriptions.
"""

from __future__ import annotations

import base64
import pathlib
import sys
import typing as t

import yaml
from box import BOT, Box, Here
from measure import Row, faster, longer, rounds
from place import Body, Broken, Played, Task, expect, has_changed, walls

ROUNDS, FAST_ROUNDS, FEW_ROUNDS = 3, 9, 5
NAMESPACE = "clawops-bench"
BAND = 30700
PLURALS = {"ConfigMap": "configmaps", "Deployment": "deployments", "NetworkPolicy": "networkpolicies",
           "PersistentVolumeClaim": "persistentvolumeclaims", "Secret": "secrets", "Service": "services",
           "ServiceAccount": "serviceaccounts"}
LEFT = f"/apis/apps/v1/namespaces/{NAMESPACE}/replicasets"  # of Deployments, which go earlier than these
Document = dict[str, t.Any]


def descriptions(many: int, changed: bool = False) -> list[Task]:
    """One half are desktops with a page and four volumes. A storage class that isn't there keeps volumes unbound."""
    bots: list[Task] = []
    for number in range(many):
        bot: Task = {"name": f"bench{number:02}", "version": "2026.9.6", "state": "stopped", "env": {"ROLE": "bench"},
                     "storage_class": "clawops-bench-none", "gateway_token": f"token-of-bot-{number}",
                     "config": {"logging": {"level": "info"}}, "api_keys": {"ANTHROPIC_API_KEY": "sk-bench"}}
        if number % 2:
            bot |= {"profile": "desktop", "port": BAND + number - 1, "allow_passwordless": True}
        bots.append(bot)
    if changed:
        bots[many // 2]["env"]["ROLE"] = "another"
    return bots


def bot_fleet(kubeconfig: str, bots: list[Task]) -> Task:
    image = "registry.example.org/openclaw:2026.9.6"
    return {"kubeconfig": kubeconfig, "fleet": BOT, "namespace": NAMESPACE, "gateway_namespace": NAMESPACE,
            "gateway_image": image, "desktop_image": image, "band_first": BAND, "band_last": BAND + 99, "wait": False,
            "bots": bots}


def documents(box: Box, arguments: Task) -> list[list[Document]]:
    """The objects of each bot."""
    sys.path.insert(0, str(box.work))
    from ansible_collections.clawops.fleet.plugins.module_utils import _bot
    from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import manifests
    site = manifests.Site(BOT, NAMESPACE, NAMESPACE, arguments["gateway_image"], arguments["desktop_image"])
    return [manifests.objects(bot, site, {**bot.api_keys, manifests.render.TOKEN: bot.gateway_token}, bot.port, 0)
            for bot in _bot.parse_all(arguments["bots"], "cluster")]


def path_of(document: Document) -> str:
    version = document["apiVersion"]
    start = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{start}/namespaces/{NAMESPACE}/{PLURALS[document['kind']]}"


class Bench:
    """The sides, each with the same bots, and with one of them changed."""

    def __init__(self, box: Box) -> None:
        self.box, self.here, self.many = box, Here(box), box.some(50, 6)
        self.kubeconfig = box.bed["CLAWOPS_BED_KUBECONFIG"]
        self.ours = {changed: bot_fleet(self.kubeconfig, descriptions(self.many, changed)) for changed in (False, True)}
        self.bots = {changed: documents(box, arguments) for changed, arguments in self.ours.items()}
        self.access = self._access()
        self.least = {changed: self.here.bare("bare_kubernetes", self.bare(changed)) for changed in (False, True)}
        self.wipes = [self.here.bare("bare_kubernetes", {**self.bare(False), "wipe": True, **where})
                      for where in ({}, {"collections": [LEFT]})]

    def _access(self) -> Task:
        """What a bare client needs of the kubeconfig."""
        config = yaml.safe_load(pathlib.Path(self.kubeconfig).read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        files = {"ca": cluster["certificate-authority-data"], "certificate": user["client-certificate-data"],
                 "key": user["client-key-data"]}
        return {"server": cluster["server"], **{
            name: self.here.send(f"{name}.pem", base64.b64decode(data).decode()) for name, data in files.items()}}

    def bare(self, changed: bool) -> Task:
        objects = {f"{path_of(document)}/{document['metadata']['name']}": document
                   for bot in self.bots[changed] for document in bot}
        collections = sorted({path.rpartition("/")[0] for path in objects})
        return {**self.access, "selector": f"clawops.fleet/fleet={BOT}", "collections": collections, "objects": objects}

    def wiped(self) -> None:
        """Nothing of the bots is left, nor of what the cluster made for them."""
        for wipe in self.wipes:
            wipe()

    def fleet(self, changed: bool) -> Task:
        return {"name": "All bots", "clawops.fleet.bot_fleet": self.ours[changed]}

    def loop(self, changed: bool) -> Task:
        return {"name": "One bot", "loop": self.bots[changed], "loop_control": {"label": "{{ item[0].metadata.name }}"},
                "kubernetes.core.k8s": {"kubeconfig": self.kubeconfig, "definition": "{{ item }}"}}

    def at_once(self, changed: bool) -> Task:
        every = [document for bot in self.bots[changed] for document in bot]
        return {"name": "All documents", "kubernetes.core.k8s": {"kubeconfig": self.kubeconfig, "definition": every}}

    def cycle(self, task: t.Callable[[bool], Task]) -> t.Callable[[], dict[str, Played]]:
        """From nothing to all bots, once more, and one of them changed. The bare client judges what was made.

        kubernetes.core sends a patch for every object and takes a status that a controller writes meanwhile for a
        change of its own. So only of our module is it expected to say rightly whether there was one.
        """
        env, ours = self.box.community(), task == self.fleet

        def play(changed: bool, changes: bool) -> Played:
            played = self.here.tasks(task(changed), env=env)
            if ours and has_changed(played) != changes:
                raise Broken(f"Changes were {'' if changes else 'not '}to be made:\n{played.output[-3000:]}")
            expect(self.least[changed](), False)
            return played

        def run() -> dict[str, Played]:
            self.wiped()
            return {"create": play(False, True), "no change": play(False, False), "one changed": play(True, True)}

        return run


def run(box: Box) -> list[Row]:
    box.need("kubernetes")
    bench = Bench(box)
    namespace = {"kind": "Namespace", "metadata": {"name": NAMESPACE}}
    common = {"kubeconfig": bench.kubeconfig, "fleet": BOT}
    cluster_objects = "clawops.fleet.cluster_objects"
    box.later(bench.here.tasks, {"name": "No namespace", cluster_objects: {
        **common, "objects": [], "absent": [namespace]}})
    bench.here.tasks({"name": "A namespace", cluster_objects: {**common, "objects": [namespace]}})
    box.later(bench.wiped)
    return playbooks(bench) + bodies(bench)


def playbooks(bench: Bench) -> list[Row]:
    sides = {"ours": bench.cycle(bench.fleet), "loop": bench.cycle(bench.loop), "at once": bench.cycle(bench.at_once)}
    found = rounds(bench.box.some(ROUNDS, 1), sides)
    whole = f"{bench.many} bots, whole playbook"
    count = sum(map(len, bench.bots[False]))
    loop, once = "kubernetes.core.k8s, a loop over bots", f"kubernetes.core.k8s, one task with {count} documents"
    rows = []
    for step, goal in (("no change", 30.0), ("create", 10.0), ("one changed", None)):
        ours, looped, at_once = (found[side][step] for side in sides)
        rows += [faster(f"{step}, {whole}; {loop}", walls(ours), walls(looped), goal),
                 faster(f"{step}, {whole}; {once}", walls(ours), walls(at_once)),
                 faster(f"{step}, {whole}, CPU; {once}", cpu(ours), cpu(at_once), 4 if step == "no change" else None,
                        "less")]
    return rows


def bodies(bench: Bench) -> list[Row]:
    """The module's own work, imports apart, against the least calls."""
    module, here = "clawops.fleet.bot_fleet", bench.here
    bench.wiped()
    sides = {"ours": {changed: here.body(module, bench.ours[changed]) for changed in (False, True)},
             "bare": bench.least}

    def created(name: str) -> t.Callable[[], dict[str, Body]]:
        def run() -> dict[str, Body]:
            bench.wiped()
            return {"create": expect(sides[name][False](), True)}
        return run

    def unchanged(name: str) -> t.Callable[[], dict[str, Body]]:
        return lambda: {"no change": expect(sides[name][False](), False)}

    def changed(name: str) -> t.Callable[[], dict[str, Body]]:
        return lambda: {"one changed": expect(sides[name][True](), True),
                        "and back": expect(sides[name][False](), True)}

    rows = []
    for make, many in ((created, ROUNDS), (unchanged, FAST_ROUNDS), (changed, FEW_ROUNDS)):
        found = rounds(1 + bench.box.some(many, 1), {name: make(name) for name in sides})
        for step in [step for step in found["ours"] if step != "and back"]:
            ours, bare = ([body.seconds for body in found[name][step][1:]] for name in sides)
            rows.append(longer(f"{step}, the module's own work; the least calls", ours, bare, 2))
    return rows


def cpu(played: list[Played]) -> list[float]:
    return [one.cpu for one in played]
