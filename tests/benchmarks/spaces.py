# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""50 spaces of a host, created, unchanged and removed, against community.docker and against the engine's bare API.

All sides make the same containers, started, each with a volume and a network; from the same controller over the same
connection of SSH, which stays open between tasks.

The engine's own bound is what the least calls, made by the one task of a playbook, win against the loop. An engine
makes and removes networks one after another, each with some twenty runs of iptables.
"""

from __future__ import annotations

import hashlib
import typing as t

import peers
from box import BOT, WORK, Box
from measure import Row, faster, longer, rounds
from place import Body, Broken, Played, Task, expect, has_changed, walls

ROUNDS, FAST_ROUNDS = 3, 9
PATIENCE = 900  # seconds; a loop takes hundreds of them
IMAGE = "clawops-bench:1"
LABEL = f"clawops.fleet/fleet={BOT}"
MEMORY, CPUS, PIDS, TMP, RUN = 128 << 20, 0.5, 64, 64 << 20, 1 << 20
# sleep and a shell with their libraries, and a workspace that belongs to the user of spaces.
MAKE_IMAGE = f"""set -eu
cd {WORK}
mkdir -p image/bin image/tmp image/run image/workspace
cp /bin/sleep /bin/sh image/bin
ldd /bin/sleep /bin/sh | grep -o '/[^ ]*[0-9]' | sort -u | while read -r file; do cp -L --parents "$file" image; done
chown 1001:1001 image/workspace
tar -C image -c . | docker import --change 'ENV PATH=/bin' - {IMAGE}"""
REMOVE_ALL = f"""set -eu
docker ps -aq --filter label={LABEL} | xargs -r docker rm -f
docker network ls -q --filter label={LABEL} | xargs -r docker network rm
docker volume ls -q --filter label={LABEL} | xargs -r docker volume rm"""
# What must be alike on all sides.
SHOW = """docker inspect --format '{{.Path}} {{.Args}} {{.Config.User}} {{.Config.WorkingDir}} {{.State.Running}}
{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{.NanoCpus}} {{.PidsLimit}} {{.CapDrop}} {{.SecurityOpt}} {{.Init}}
{{.ReadonlyRootfs}} {{json .Tmpfs}} {{json .LogConfig}} {{.RestartPolicy.Name}} {{.NetworkMode}}{{end}}
{{range .Mounts}}{{.Name}}:{{.Destination}}:{{.RW}} {{end}}' """


def spaces(many: int, state: str) -> Task:
    """Our one task."""
    resources = {"memory": str(MEMORY), "cpus": CPUS, "pids": PIDS, "tmp": str(TMP), "run": str(RUN)}
    every = [{"name": f"s{number:02}", "image": IMAGE, "state": state, "resources": resources}
             for number in range(many)]
    return {"fleet": BOT, "spaces": every, "purge_data": True}


def loops(many: int, state: str) -> list[Task]:
    """The three tasks of the peer, which goes through the list for each kind."""
    items = [{"name": f"s{number:02}", "bridge": "cs-" + hashlib.sha256(f"s{number:02}".encode()).hexdigest()[:8]}
             for number in range(many)]
    labels = {"clawops.fleet/fleet": BOT, "clawops.fleet/managed": "true", "clawops.fleet/space": "{{ item.name }}"}
    safe = "rw,noexec,nosuid,nodev"
    network: Task = {"name": "clawdspace-{{ item.name }}", "state": "present", "labels": labels,
                     "driver_options": {"com.docker.network.bridge.name": "{{ item.bridge }}"}}
    volume: Task = {"volume_name": "clawdspace-vol-{{ item.name }}", "state": "present", "labels": labels}
    container: Task = {
        "name": "clawdspace-{{ item.name }}", "image": IMAGE, "state": "started", "labels": labels, "pull": "never",
        "hostname": "{{ item.name }}", "entrypoint": ["sleep"], "command": ["infinity"], "user": "1001:1001",
        "working_dir": "/workspace", "env": {"HOME": "/workspace"}, "init": True, "read_only": True,
        "cap_drop": ["ALL"], "security_opts": ["no-new-privileges"], "memory": str(MEMORY), "memory_swap": str(MEMORY),
        "cpus": CPUS, "pids_limit": PIDS, "restart_policy": "unless-stopped", "log_driver": "json-file",
        "log_options": {"max-size": "10m", "max-file": "3"}, "ipc_mode": "private", "cgroupns_mode": "private",
        "tmpfs": [f"/tmp:{safe},size={TMP},mode=1777",  # noqa: S108 (a path in the container)
                  f"/run:{safe},size={RUN},mode=755,uid=1001,gid=1001"],
        "mounts": [{"type": "volume", "source": "clawdspace-vol-{{ item.name }}", "target": "/workspace"}],
        "network_mode": "clawdspace-{{ item.name }}"}
    every = [("docker_network", network), ("docker_volume", volume), ("docker_container", container)]
    if state == "absent":
        every = [(name, {key: values[key] for key in values if key.endswith("name")} | {"state": "absent"})
                 for name, values in reversed(every)]
        every[0][1]["force_kill"] = True
    return [{"name": f"Each {name}", "loop": items, "loop_control": {"label": "{{ item.name }}"},
             f"community.docker.{name}": values} for name, values in every]


class Bench:
    """The sides, each from no space to no space."""

    def __init__(self, box: Box) -> None:
        self.box, self.many = box, box.some(50, 4)
        self.sample = ""
        self.bare = {"label": LABEL, "learnt": f"{WORK}/learnt"}

    def ours(self, state: str) -> list[Task]:
        return [{"name": "All spaces", "clawops.fleet.sandbox_fleet": spaces(self.many, state)}]

    def loop(self, state: str) -> list[Task]:
        return loops(self.many, state)

    def least(self, state: str) -> list[Task]:
        return [self.box.bare_task("bare_spaces", {**self.bare, "verb": state})]

    def learn(self) -> None:
        """What the least calls know beforehand: what we make."""
        self.clear()
        self.box.tasks(*self.ours("started"))
        self.box.bare("bare_spaces", {**self.bare, "verb": "learn"})()

    def clear(self) -> None:
        self.box.shell(REMOVE_ALL)

    def alike(self) -> None:
        """No side does less than another."""
        names = self.box.shell(f"docker ps --filter label={LABEL} --format '{{{{.Names}}}}' | sort").split()
        found = self.box.shell(SHOW + " ".join(names)) if names else ""
        if len(names) != self.many or (self.sample and found != self.sample):
            raise Broken(f"{len(names)} of {self.many} spaces run.\n{self.sample[:800]}\n---\n{found[:800]}")
        self.sample = found

    def cycle(self, make: t.Callable[[str], list[Task]], env: t.Mapping[str, str]) -> t.Callable[[], dict[str, Played]]:
        def play(state: str, changes: bool) -> Played:
            played = self.box.tasks(*make(state), env=env)
            if has_changed(played) != changes:
                raise Broken(f"Changes were {'' if changes else 'not '}to be made:\n{played.output[-3000:]}")
            return played

        def run() -> dict[str, Played]:
            self.clear()
            created = play("started", True)
            self.alike()
            return {"create": created, "no change": play("started", False), "remove": play("absent", True)}

        return run


def run(box: Box) -> list[Row]:
    box.up()
    roles = [{"name": role, "ansible.builtin.include_role": {"name": f"clawops.fleet.{role}"}}
             for role in ("docker_host", "network_guard")]
    library = {"name": "What all sides import", "ansible.builtin.apt": {"name": "python3-docker"}}
    box.tasks(*roles, library, gather_facts=True)
    box.later(box.shell, f"docker image rm {IMAGE}")
    box.shell(MAKE_IMAGE)
    bench = Bench(box)
    box.later(bench.clear)
    return playbooks(bench) + bodies(bench)


def playbooks(bench: Bench) -> list[Row]:
    community = bench.box.community()
    bench.learn()
    sides = {"ours": bench.cycle(bench.ours, {}), "loop": bench.cycle(bench.loop, community),
             "mitogen": bench.cycle(bench.loop, {**community, **peers.mitogen()}),
             "least": bench.cycle(bench.least, {})}
    found = rounds(bench.box.some(ROUNDS, 1), sides, PATIENCE)
    rows = []
    for step, goals in (("no change", (40, 8)), ("create", (8, None)), ("remove", (15, None))):
        took = {side: walls(found[side][step]) for side in sides}
        what = f"{step}, {bench.many} spaces, whole playbook"
        for side, goal in zip(("loop", "mitogen"), goals):
            peer = "a loop of community.docker" + ("" if side == "loop" else " under Mitogen")
            rows.append(faster(f"{what}; {peer}", took["ours"], took[side], goal))
        rows.append(faster(f"{what} of the least calls (the engine's own bound); that loop", took["least"],
                           took["loop"]))
    return rows


def bodies(bench: Bench) -> list[Row]:
    """The module's own work, imports apart, against the least calls."""
    box = bench.box
    bench.clear()
    ours = {state: box.body("clawops.fleet.sandbox_fleet", spaces(bench.many, state))
            for state in ("started", "absent")}
    bare = {state: box.bare("bare_spaces", {**bench.bare, "verb": state}) for state in ("learn", "started", "absent")}
    ours["started"]()
    bare["learn"]()

    def there_and_back(side: t.Mapping[str, t.Callable[[], Body]]) -> t.Callable[[], dict[str, Body]]:
        def run() -> dict[str, Body]:
            bench.clear()
            created = expect(side["started"](), True)
            bench.alike()
            return {"create": created, "no change": expect(side["started"](), False),
                    "remove": expect(side["absent"](), True)}
        return run

    sides = {"ours": there_and_back(ours), "bare": there_and_back(bare)}
    found = rounds(1 + box.some(ROUNDS, 1), sides)
    ours["started"]()
    bare["learn"]()  # volumes have marks of their own
    again = rounds(1 + box.some(FAST_ROUNDS, 1), {
        "ours": lambda: {"no change": expect(ours["started"](), False)},
        "bare": lambda: {"no change": expect(bare["started"](), False)}})
    for side in sides:
        found[side]["no change"] = again[side]["no change"]
    return [longer(f"{step}, the module's own work; the least calls",
                   *([body.seconds for body in found[side][step][1:]] for side in sides), 2)
            for step in ("no change", "create", "remove")]
