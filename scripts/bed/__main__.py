# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The test bed: real components on one machine, each part on its own.

  testbed up|down|reset|status [PART...]   parts: see below (default: all)
  testbed isolate|rejoin HOST...           move hosts from the bed's network to the lab and back
  testbed env                              shell exports: addresses, endpoints, paths of keys
  testbed exec outside|lab COMMAND...      run a command on the neighbour, or on what the lab plays
  testbed relay ADDRESS PORT               a pipe into the lab: ssh -o ProxyCommand='scripts/testbed relay %h %p'

Parts: dockerhost[:HOST] minio outside model lab kubernetes cloudimage vmhost[:HOST]. Guests of a vmhost run on its own
network, without KVM, from the cloud image; they are reached through it: ssh -J root@10.213.0.14 ADDRESS.

Attack and load tests run on isolated hosts. The lab has no uplink and plays the router, the neighbours 10.213.0.77 and
.78, a second segment (10.214.0.0/24 at the host's eth1), the metadata server and every other address of the world: it
answers on all of them and writes what came out of a host to bed/lab/arrivals.jsonl in the cache. An isolated host that
is rebooted comes back on the bed's network.

`down` leaves nothing but the cache; `reset` is down and up. Settings by environment: CLAWOPS_CACHE,
CLAWOPS_BED_HOSTS=alder,birch, CLAWOPS_BED_TLS=1, MINIO_BIN, CLAWOPS_S3_ENDPOINT (with CLAWOPS_S3_ACCESS_KEY and
CLAWOPS_S3_SECRET_KEY), CLAWOPS_KUBECONFIG and CLAWOPS_REGISTRY (a cluster of one's own, and where it pulls from).
"""

from __future__ import annotations

import concurrent.futures
import os
import shlex
import sys
import typing as t

from . import cache, cloudimage, dockerhost, engine, kubernetes, lab, machine, minio, model, net, outside, vmhost
from .job import BedError, Job

PARTS: dict[str, t.Any] = {"dockerhost": dockerhost, "minio": minio, "outside": outside, "model": model, "lab": lab,
                           "kubernetes": kubernetes, "cloudimage": cloudimage, "vmhost": vmhost}
HOSTS: dict[str, t.Any] = {"dockerhost": dockerhost, "vmhost": vmhost}
Unit = tuple[str, t.Any, str]


def units(words: t.Sequence[str], every: bool = False) -> list[Unit]:
    """(label, module, instance) of what was asked for; every: also instances that only come up on demand."""
    found: list[Unit] = []
    for word in words or PARTS:
        part, _colon, instance = word.partition(":")
        module = PARTS.get(part)
        if module is None or (instance and instance not in module.INSTANCES):
            known = [f"{name}:{one}" for name, module in HOSTS.items() for one in module.INSTANCES]
            raise BedError(f"no such part: {word}; there are {', '.join([*PARTS, *known])}")
        names = [instance] if instance else module.INSTANCES if every else module.DEFAULT
        found += [(part if name == part else f"{part}:{name}", module, name) for name in names]
    return found


def side_by_side(wanted: t.Sequence[Unit], work: t.Callable[[Job, t.Any, str], None]) -> None:
    """Do it for all at once; the failures are told together at the end."""
    failures: list[str] = []

    def one(unit: Unit) -> None:
        label, module, name = unit
        job = Job(label)
        try:
            with cache.lock(f"part-{name}"):
                work(job, module, name)
        except BedError as error:
            job.say("failed")
            failures.append(f"{label}: {error}")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(one, wanted))
    if failures:
        raise BedError("\n".join(failures))


def start(job: Job, module: t.Any, name: str) -> None:
    """Bring one up."""
    module.up(job, name)
    job.say("up")


def finish(job: Job, module: t.Any, name: str) -> None:
    """Take one down."""
    module.down(job, name)
    job.say("down")


def up(words: t.Sequence[str]) -> int:
    """Bring parts up."""
    side_by_side(units(words), start)
    return status(words)


def down(words: t.Sequence[str]) -> int:
    """Take parts down, and with the last one all that the bed changed on the machine."""
    job = Job("bed")
    if not engine.answers() and cache.state().get("engine"):
        engine.ensure(job)  # ours was killed: its containers are still on the disk
    side_by_side(units(words, every=True), finish)
    left = [label for label, module, name in units([], every=True) if module.status(name)[0] in ("up", "isolated")]
    if left:
        job.say(f"still up: {', '.join(left)}")
        return 0
    net.remove(job)
    engine.stop(job)
    if not engine.ours():
        machine.restore_sysctls()
        cache.forget()
    return 0


def reset(words: t.Sequence[str]) -> int:
    """Parts as new."""
    side_by_side(units(words), finish)
    return up(words)


def status(words: t.Sequence[str]) -> int:
    """A table; 0 when all that was asked for is up."""
    rows = [(label, *module.status(name)) for label, module, name in units(words)]
    for row in [("PART", "STATE", "ADDRESS"), *rows]:
        print(f"{row[0]:<18}{row[1]:<10}{row[2]}")
    return 0 if all(row[1] in ("up", "external") for row in rows) else 1


def move(words: t.Sequence[str], where: t.Callable[[Job, str], None]) -> int:
    """Hosts into the lab or out of it."""
    hosts = [f"dockerhost:{host}" for host in words]
    if not hosts:
        raise BedError("name the hosts")
    side_by_side(units(hosts), lambda job, _module, name: where(job, name))
    status(hosts)  # sshd may still be waking up
    return 0


def isolate(words: t.Sequence[str]) -> int:
    """Hosts without an uplink."""
    with cache.lock("part-lab"):
        lab.up(Job("lab"), "lab")
    return move(words, lab.isolate)


def rejoin(words: t.Sequence[str]) -> int:
    """Hosts on the bed's network."""
    return move(words, lab.rejoin)


def environment(_words: t.Sequence[str]) -> int:
    """Shell exports."""
    home = dockerhost.ssh_folder()
    values = {f"CLAWOPS_BED_{host.upper()}": net.v4(host) for host in dockerhost.HOSTS}
    values |= {"CLAWOPS_BED_SSH_KEY": str(home / "id_ed25519"), "CLAWOPS_BED_KNOWN_HOSTS": str(home / "known_hosts")}
    values |= {"CLAWOPS_BED_S3_ENDPOINT": minio.endpoint(), "CLAWOPS_BED_S3_CREDENTIALS": str(minio.credentials())}
    values |= {"CLAWOPS_BED_S3_CA": str(minio.ca()) if minio.tls() else "", "CLAWOPS_BED_MODEL_URL": model.url()}
    values |= {"CLAWOPS_BED_OUTSIDE": net.v4("outside"), "CLAWOPS_BED_OUTSIDE_NETNS": net.namespace("outside")}
    values |= {"CLAWOPS_BED_LAB_NETNS": lab.NAMESPACE, "CLAWOPS_BED_LAB_ARRIVALS": str(lab.journal())}
    values |= {"CLAWOPS_BED_KUBECONFIG": str(kubernetes.kubeconfig()), "CLAWOPS_BED_REGISTRY": kubernetes.registry()}
    values |= {"CLAWOPS_BED_CLOUD_IMAGE": vmhost.image_path(), "CLAWOPS_BED_CLOUD_IMAGE_URL": cloudimage.url()}
    values |= {"CLAWOPS_BED_CLOUD_IMAGE_SHA256": cloudimage.sha256()}
    for key, value in values.items():
        print(f"export {key}={shlex.quote(value)}")
    return 0


def execute(words: t.Sequence[str]) -> t.NoReturn:
    """Run a command on the neighbour or in the lab."""
    if len(words) < 2 or words[0] not in ("outside", "lab"):
        raise BedError("usage: testbed exec outside|lab COMMAND...")
    os.execvp("ip", ["ip", "netns", "exec", net.namespace(words[0]), *words[1:]])  # noqa: S606 (no shell is the point)


def relay(words: t.Sequence[str]) -> t.NoReturn:
    """A pipe into the lab."""
    if len(words) != 2:
        raise BedError("usage: testbed relay ADDRESS PORT")
    lab.relay(*words)


VERBS = {"up": up, "down": down, "reset": reset, "status": status, "env": environment, "exec": execute,
         "isolate": isolate, "rejoin": rejoin, "relay": relay}


def main(argv: t.Sequence[str]) -> int:
    """The command line."""
    verb = VERBS.get(argv[0]) if argv else None
    if verb is None:
        print(__doc__, file=sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    os.environ |= {"DOCKER_HOST": "unix:///var/run/docker.sock", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    try:
        return verb(argv[1:])
    except BedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
