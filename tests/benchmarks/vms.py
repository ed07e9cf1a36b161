# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests of a VM host: made, unchanged, many at once; against bare qemu-img and libvirt, and against community.libvirt.

All sides make the same guests from the same image. The host has no KVM, so a boot takes a minute or more of processor.
"""

from __future__ import annotations

import json
import typing as t

from box import BOT, WORK, Box
from measure import Row, faster, rounds, within
from place import Body, Broken, Played, Task, expect, has_changed, walls

HOST, STATE = "maple", "/var/lib/clawops/vms"
ROUNDS, BOOTS = 5, 2
LEARNT = f"{WORK}/learnt"
# All that the benchmark makes is named so.
PREFIX = "bench-"
REMOVE_ALL = f"""set -eu
for name in $(virsh -q list --all --name | grep '^{PREFIX}' || true); do
  virsh -q destroy "$name" >/dev/null 2>&1 || true
  virsh -q undefine "$name" --nvram --checkpoints-metadata --snapshots-metadata
done
rm -rf {STATE}/{PREFIX}* /etc/clawops/credentials/vm-{PREFIX}*"""


class VmBox(Box):
    """A VM host."""

    part = "vmhost"


class Bench:
    """So many guests."""

    def __init__(self, box: Box) -> None:
        self.box, self.many = box, box.some(10, 2)
        self.names = [f"{PREFIX}{number:02}" for number in range(self.many)]

    def guest(self, name: str, state: str, until: str = "none") -> Task:
        return {"name": name, "image": {"path": self.box.bed["CLAWOPS_BED_CLOUD_IMAGE"]}, "memory": "768Mi", "cpus": 2,
                "disk": "4Gi", "state": state, "wait": {"until": until, "timeout": 600}}

    def fleet(self, names: t.Sequence[str], state: str, until: str = "none") -> Task:
        return {"fleet": BOT, "vms": [self.guest(name, state, until) for name in names]}

    def clear(self) -> None:
        self.box.shell(REMOVE_ALL)

    def play(self, changes: bool, *tasks: Task, env: t.Mapping[str, str] | None = None) -> Played:
        played = self.box.tasks(*tasks, env=env)
        if has_changed(played) != changes:
            raise Broken(f"Changes were {'' if changes else 'not '}to be made:\n{played.output[-3000:]}")
        return played


def run(box: Box) -> list[Row]:
    work = box.work / "vms"
    work.mkdir()
    with VmBox(HOST, work, box.quick) as host:
        try:
            host.up("cloudimage")
            host.tasks({"name": "A VM host", "ansible.builtin.include_role": {"name": "clawops.fleet.vm_host"}},
                       {"name": "What the peer needs",
                        "ansible.builtin.apt": {"name": ["genisoimage", "python3-lxml"]}},
                       gather_facts=True)
            bench = Bench(host)
            host.later(bench.clear)
            return [*playbooks(bench), *bodies(bench)]
        finally:
            host.undo()


def playbooks(bench: Bench) -> list[Row]:
    """Guests that are defined and don't run: no boot is a part of it."""
    one_call = {"name": "All guests", "clawops.fleet.vm_fleet": bench.fleet(bench.names, "stopped")}
    one_by_one = {"name": "Each guest", "loop": bench.names,
                  "clawops.fleet.vm_instance": {"fleet": BOT, **bench.guest("{{ item }}", "stopped")}}

    def cycle(task: Task) -> t.Callable[[], dict[str, Played]]:
        def run() -> dict[str, Played]:
            bench.clear()
            return {"create": bench.play(True, task), "no change": bench.play(False, task)}
        return run

    found = rounds(bench.box.some(3, 1), {"ours": cycle(one_call), "one by one": cycle(one_by_one)})
    peer, community = loops(bench), bench.box.community()
    bench.box.tasks(*peer, env=community)  # what it has beside ours, for the seed
    again = rounds(bench.box.some(3, 1), {
        "ours": lambda: {"no change": bench.play(False, one_call)},
        "loop": lambda: {"no change": bench.play(False, *peer, env=community)},
        "domains": lambda: {"no change": bench.play(False, *peer[-2:], env=community)}})
    many = f"{bench.many} guests, whole playbook"
    return [
        faster(f"no change, {many}; a loop of community.libvirt", walls(again["ours"]["no change"]),
               walls(again["loop"]["no change"]), 10),
        faster(f"no change, {many}; its definitions and states alone", walls(again["ours"]["no change"]),
               walls(again["domains"]["no change"])),
        faster(f"create, {many}; one by one", walls(found["ours"]["create"]), walls(found["one by one"]["create"])),
        faster(f"no change, {many}; one by one", walls(found["ours"]["no change"]),
               walls(found["one by one"]["no change"])),
    ]


def loops(bench: Bench) -> list[Task]:
    """The peer's tasks for the guests that are there, each for the whole list, the last two with community.libvirt.

    Like one call of ours they look after the folder, what cloud-init reads, its medium, the disk, the definition and
    the state. That is the loop to compare with: community.libvirt defines a domain whose files are there already, so
    whoever uses it needs each of these tasks, and needs it in every run, or a missing disk or another user-data goes
    unnoticed. It still does less: its tasks look whether files are there, not how large a disk is or what a medium
    holds, and it gives the definition to libvirt anew each time. What its own two tasks take is a row without a goal.
    """
    bare(bench, "learn", names=bench.names)()
    kept = json.loads(bench.box.shell(f"cat {LEARNT}/guests.json"))
    items = [{"name": name, **guest} for name, guest in kept.items()]
    folder = f"{STATE}/{{{{ item.name }}}}"
    user = {"users": [{"name": "clawops", "sudo": "ALL=(ALL) NOPASSWD:ALL"}], "ssh_genkeytypes": ["ed25519"]}
    files = [("user-data", f"#cloud-config\n{json.dumps(user)}\n"), ("meta-data", "instance-id: {{ item.name }}-1\n")]
    medium = ["genisoimage", "-o", f"{folder}/peer.iso", "-V", "cidata", "-r", "-J",
              *(f"{folder}/{name}" for name, _text in files)]
    image = ["qemu-img", "create", "-f", "qcow2", "-b", "{{ item.base }}", "-F", "qcow2", f"{folder}/root.qcow2",
             "{{ item.size }}"]
    every: list[tuple[str, Task]] = [
        ("ansible.builtin.file", {"path": folder, "state": "directory", "mode": "0711"}),
        *(("ansible.builtin.copy", {"dest": f"{folder}/{name}", "content": text, "mode": "0600"})
          for name, text in files),
        ("ansible.builtin.command", {"argv": medium, "creates": f"{folder}/peer.iso"}),
        ("ansible.builtin.command", {"argv": image, "creates": f"{folder}/root.qcow2"}),
        ("community.libvirt.virt", {"command": "define", "xml": "{{ item.xml }}"}),
        ("community.libvirt.virt", {"name": "{{ item.name }}", "state": "shutdown"})]
    return [{"name": f"Each {name}", "loop": items, "loop_control": {"label": "{{ item.name }}"}, name: values}
            for name, values in every]


def bare(bench: Bench, verb: str, **arguments: t.Any) -> t.Callable[[], Body]:
    return bench.box.bare("bare_vms", {"verb": verb, "learnt": LEARNT, **arguments})


def bodies(bench: Bench) -> list[Row]:
    """One guest from nothing until it runs, and until SSH answers, starts and imports of the programs apart."""
    first = bench.names[:1]

    def compare(most: int, until: str) -> tuple[list[float], list[float]]:
        ours = bench.box.body("clawops.fleet.vm_fleet", bench.fleet(first, "running", until))
        peer = bare(bench, "create", start=True, reach=first if until == "ssh" else [])

        def fresh(side: t.Callable[[], Body]) -> t.Callable[[], dict[str, Body]]:
            def run() -> dict[str, Body]:
                bench.clear()
                return {"create": expect(side(), True)}
            return run

        found = rounds(most, {"ours": fresh(ours), "bare": fresh(peer)})
        return tuple([body.seconds for body in found[side]["create"]] for side in ("ours", "bare"))

    bench.clear()
    once = bench.box.body("clawops.fleet.vm_fleet", bench.fleet(first, "running"))
    once()
    bare(bench, "learn", names=first)()
    what = "the module's own work; qemu-img and libvirt alone"
    started = compare(1 + bench.box.some(ROUNDS, 1), "none")
    rows = [within(f"create until it runs, {what}", *(times[1:] for times in started), 1.1, 1)]
    if not bench.box.quick:
        rows.append(within(f"create until SSH answers, {what}", *compare(BOOTS, "ssh"), 1.1, 1))
    return rows
