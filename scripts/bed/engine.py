# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The container engine: the running one, else the distribution's, started for the bed and stopped with it."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import signal
import subprocess
import tarfile
import typing as t

from . import cache, machine
from .job import BedError, Job, output

LABEL = "clawops.bed"
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def answers() -> bool:
    """Whether an engine listens on this machine."""
    return bool(output("docker", "version", "--format", "{{.Server.Version}}"))


def ensure(job: Job) -> None:
    """An engine that answers. One that runs is used as it is."""
    with cache.lock("engine"):
        if answers():
            return
        if os.geteuid():
            raise BedError("the test bed needs root (containers, bridges, network namespaces)")
        machine.keep_sysctls()
        cache.remember(forward=cache.state().get("forward") or _forward_policies())
        machine.need(job, {"docker": "docker.io docker-cli", "dockerd": "docker.io", "iptables": "iptables"})
        job.say("starting the container engine")
        if machine.systemd():
            job.run(["systemctl", "start", "docker"])
            cache.remember(engine={"systemd": True})
        elif not answers():
            _spawn()
        job.wait(f"the container engine (see {_log()})", answers)


def _log() -> pathlib.Path:
    return cache.folder("log") / "dockerd.log"


def _spawn() -> None:
    for name, file in (("dockerd", "docker.pid"), ("containerd", "docker/containerd/containerd.pid")):
        path = pathlib.Path("/var/run") / file
        with contextlib.suppress(OSError, ValueError):
            if not (machine.identity(int(path.read_text())) or "").startswith(f"{name} "):
                path.unlink()  # of an engine that was killed: the pid may now be anybody's
    with _log().open("ab") as log:
        child = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    cache.remember(engine={"pid": child.pid, "identity": machine.identity(child.pid)})


def ours() -> bool:
    """Whether the running engine is one that the bed started."""
    mark = cache.state().get("engine")
    if not mark:
        return False
    return bool(mark.get("systemd")) or machine.identity(mark["pid"]) is not None


def stop(job: Job) -> None:
    """Stop the engine if the bed started it and nobody else uses it, and take its network traces away."""
    if not ours():
        return
    if others := output("docker", "ps", "-q"):
        job.say(f"the engine stays: {len(others.split())} container(s) that are not the bed's run on it")
        return
    job.say("stopping the container engine")
    mark = cache.state()["engine"]
    if mark.get("systemd"):
        job.run(["systemctl", "stop", "docker.socket", "docker.service"])
    else:
        machine.stop(mark["pid"], machine.identity(mark["pid"]))
    output("ip", "link", "delete", "docker0")
    _drop_rules(job)
    cache.remember(engine=None, forward=None)


def _forward_policies() -> dict[str, str]:
    found = {program: output(program, "-S", "FORWARD") or "" for program in ("iptables", "ip6tables")}
    return {program: rules.split()[2] if rules.startswith("-P") else "ACCEPT" for program, rules in found.items()}


def _drop_rules(job: Job) -> None:
    for program, policy in cache.state().get("forward", {}).items():
        if batch := without_docker(output(f"{program}-save") or "", policy):
            job.run([f"{program}-restore", "--noflush"], data=batch.encode())


def without_docker(saved: str, policy: str) -> str:
    """From what iptables-save prints, the batch that takes away what an engine left, and nothing else."""
    batch: list[str] = []
    table, chains, rules = "", [""], [""]
    for line in saved.splitlines():
        if line.startswith("*"):
            table, chains, rules = line, [], []
        elif chain := re.match(r":(DOCKER\S*)", line):
            chains.append(chain[1])
        elif re.match(r"-A (?!DOCKER).*(-j DOCKER|docker0)", line):
            rules.append(f"-D{line[2:]}")
        elif line == "COMMIT" and (chains or rules):
            forward = [f":FORWARD {policy} [0:0]"] if table == "*filter" else []
            flushed = [f"{flag} {chain}" for flag in ("-F", "-X") for chain in chains]
            batch += [table, *forward, *rules, *flushed, line]
    return "".join(f"{line}\n" for line in batch)


def inspect(kind: str, name: str, form: str) -> str | None:
    """One fact of an engine object, None when there is no such object."""
    return output("docker", kind, "inspect", "--format", form, name)


def running(name: str) -> bool:
    """Whether a container runs."""
    return inspect("container", name, "{{.State.Running}}") == "true"


def import_image(job: Job, repository: str, key: str, tar: pathlib.Path) -> str:
    """The image of a root file system; older ones of the repository go when nothing uses them."""
    tag = f"{repository}-{key}" if ":" in repository else f"{repository}:{key}"
    with cache.lock("import"):
        if inspect("image", tag, "{{.Id}}") is None:
            job.say("importing the image")
            job.run(["docker", "import", tar, tag])
            for old in (output("docker", "images", "--format", "{{.Repository}}:{{.Tag}}") or "").split():
                if old != tag and old.startswith(tag[: -len(key)]):
                    output("docker", "image", "rm", old)
    return tag


def build_image(job: Job, kind: str, recipe: str) -> str:
    """The image of a Dockerfile."""
    tag = f"clawops-bed/{kind}:{cache.digest(recipe)}"
    if inspect("image", tag, "{{.Id}}") is None:
        job.say(f"building the image {kind} (log: {job.log})")
        label = f"--label={LABEL}.image={kind}"
        job.run(["docker", "build", "--network=host", label, "--tag", tag, "-"], data=recipe.encode())
    return tag


def forget_images(kind: str) -> None:
    """No image of an older recipe that nothing uses."""
    output("docker", "image", "prune", "-af", "--filter", f"label={LABEL}.image={kind}")


def container(job: Job, name: str, options: t.Sequence[object], files: t.Mapping[str, str], keep: bool = False) -> None:
    """A running container of these options; files (path -> text, 0600, root) are put in before its start.

    keep: what the container holds is dear; one of older options stays, with a word about it.
    """
    key = cache.digest([str(option) for option in options], dict(files))
    found = inspect("container", name, f'{{{{index .Config.Labels "{LABEL}"}}}}')
    if found == key or (found and keep):
        if found != key:
            job.say("kept as it is, though today's recipe differs (`reset` makes it anew)")
        if running(name):
            return
        reap(name)
        job.say("starting again after a stop")
        with contextlib.suppress(BedError):
            job.run(["docker", "start", name])
            return
        job.say("could not be started again: making it anew")
    discard(name)
    job.run(["docker", "create", "--name", name, "--label", f"{LABEL}={key}", *options])
    if files:
        job.run(["docker", "cp", "-", f"{name}:/"], data=_tar(files))
    job.run(["docker", "start", name])


def _tar(files: t.Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(text.encode()), 0o600
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def discard(name: str, *volumes: str) -> None:
    """No such container any more, nor what a killed one left."""
    reap(name)
    output("docker", "rm", "-f", "-v", name)
    for volume in volumes:
        output("docker", "volume", "rm", "-f", volume)


def reap(name: str) -> None:
    """End processes that outlived their container (its shim was killed)."""
    ident = inspect("container", name, "{{.Id}}")
    if not ident or running(name):
        return
    for path in pathlib.Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            if ident in path.read_text():
                os.kill(int(path.parent.name), signal.SIGKILL)


def inner_containers(volume: str) -> list[str]:
    """The containers of an engine that keeps its data in a volume; it need not run."""
    data = inspect("volume", volume, "{{.Mountpoint}}")
    return [path.name for path in pathlib.Path(data, "containers").glob("*")] if data else []


def _groups(containers: t.Iterable[str]) -> list[pathlib.Path]:
    """Those that an engine inside a host made in the machine's hierarchies."""
    return [group for ident in containers
            for group in (*CGROUPS.glob(f"*/docker/{ident}"), *CGROUPS.glob(f"docker/{ident}"))]


def thaw(containers: t.Iterable[str]) -> None:
    """Let paused ones go on: frozen processes can't be ended, and would hold their host. Its engine need not run."""
    for group in _groups(containers):
        for switch, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with contextlib.suppress(OSError):
                if (group / switch).exists():
                    (group / switch).write_text(text)


def remove_cgroups(containers: t.Iterable[str]) -> None:
    """Remove the groups that were left when a host was killed."""
    for group in _groups(containers):
        for path, _folders, _files in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                pathlib.Path(path).rmdir()
