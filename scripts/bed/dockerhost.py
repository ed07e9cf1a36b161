# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Managed hosts: systemd containers of Debian, built from packages, reached over real SSH."""

from __future__ import annotations

import os
import pathlib
import shlex
import socket
import typing as t

from . import cache, debian, engine, lab, machine, net
from .job import BedError, Job, output

SUITES = {"alder": "trixie", "birch": "bookworm"}
INSTANCES = list(SUITES)
HOSTS = [*INSTANCES, "oak", "maple"]  # all that are reached over SSH, also those of the part vmhost
DEFAULT = [name for name in os.environ.get("CLAWOPS_BED_HOSTS", "alder").split(",") if name]
# A small server as an installer leaves it.
PACKAGES = """systemd-sysv dbus libpam-systemd udev openssh-server python3 python3-apt sudo ca-certificates cron kmod
    acl iproute2 iputils-ping curl procps zstd"""
# What the roles install: in the host's package cache, not installed.
FETCHED = {
    "trixie": """docker.io docker-cli docker-compose iptables nftables ufw ulogd2 ulogd2-json logrotate restic
        python3-docker python3-boto3 mmdebstrap sqlite3""",
    "bookworm": """docker.io iptables nftables ufw ulogd2 ulogd2-json logrotate python3-docker python3-boto3 mmdebstrap
        sqlite3""",
}
CAPABILITIES = """SYS_ADMIN NET_ADMIN NET_RAW SYS_PTRACE AUDIT_WRITE AUDIT_CONTROL SYS_CHROOT SYS_TIME SYSLOG
    DAC_READ_SEARCH LINUX_IMMUTABLE MKNOD IPC_LOCK SYS_NICE SYS_BOOT"""
# Where clouds serve metadata: never the machine's own, also when a firewall under test fails. The neighbour has none.
METADATA = ["169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/32"]
# systemd hands credentials to units over mounts, which must propagate.
INIT = ["/bin/sh", "-c", "\n".join([
    *(f"ip route replace {where} via {net.v6('outside') if ':' in where else net.v4('outside')} || exit 1"
      for where in METADATA),
    "mount --make-rshared / && exec /sbin/init",
])]
SSHD = """PermitRootLogin prohibit-password
PasswordAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
UseDNS no
"""
CONFIGURE = r"""set -eu
cd "$1"
rm -f etc/ssh/ssh_host_* etc/hostname etc/resolv.conf var/lib/dbus/machine-id
mkdir -m 700 -p root/.ssh
chroot . update-ca-certificates
"""
# The debs of what is installed are of no use in the image, only in the cache beside it.
PRUNE = r"""set -eu
cd "$1"
dpkg-query --root=. -W -f '${Package}_${Version}_*.deb\n' | sed 's/:/%3a/g' |
    (cd var/cache/apt/archives && while read -r deb; do rm -f -- $deb; done)
"""


def up(job: Job, host: str) -> None:
    """The host, with systemd settled and SSH answering."""
    if host not in SUITES:
        raise BedError(f"no such host: {host}; there are {', '.join(SUITES)}")
    start(job, host, options(host, image(job, SUITES[host])))


def start(job: Job, host: str, options: t.Sequence[object]) -> None:
    """A container of these options as a managed host."""
    machine.need(job, {"ssh-keygen": "openssh-client"})
    lab.rejoin(job, host)
    secret, known = _keys(job, host)
    files = {"/etc/ssh/ssh_host_ed25519_key": secret, "/root/.ssh/authorized_keys": known}
    engine.container(job, net.container(host), options, files, keep=True)
    job.wait(f"systemd in {host}", lambda: _systemd(host) in ("running", "degraded"), timeout=120)
    job.wait(f"sshd in {host}", lambda: _login(host), timeout=60)
    if _systemd(host) == "degraded":
        failed = output("docker", "exec", net.container(host), "systemctl", "--failed", "--plain", "--no-legend") or ""
        job.say(f"failed units: {' '.join(line.split()[0] for line in failed.splitlines())}")


def options(host: str, tag: str, data: str = "/var/lib/docker", extra: t.Sequence[object] = ()) -> list[object]:
    """No --privileged: that needs every capability, and many machines lack one. data: where its volume is."""
    options: list[object] = ["-t", "--hostname", host, *net.options(host)]
    options += [f"--cap-add={capability}" for capability in CAPABILITIES.split()]
    options += [f"--security-opt={what}=unconfined" for what in ("seccomp", "apparmor", "systempaths")]
    options += ["--cgroupns=host", *_cgroups(), "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec"]
    options += ["-v", f"{net.container(host)}:{data}", "--stop-signal=SIGRTMIN+3", "-e", "container=docker"]
    options += ["--restart=on-failure"]  # so that a reboot is one
    options += [f"--add-host={who}:{net.v4(who)}" for who in ("minio", "model")]
    return [*options, *_resolver(host), *extra, tag, *INIT]


def _cgroups() -> list[str]:
    """cgroup v1: each hierarchy by itself, because systemd remounts the tmpfs above them, and that must not be ours."""
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    paths = [mount[1] for mount in mounts if mount[2] in ("cgroup", "cgroup2")]
    groups = [path for path in paths if path.startswith(str(engine.CGROUPS))]
    own = [] if groups == [str(engine.CGROUPS)] else [f"--tmpfs={engine.CGROUPS}:rw,mode=755,size=4m"]
    return own + [word for path in sorted(groups) for word in ("-v", f"{path}:{path}:rw")]


def _resolver(host: str) -> list[str]:
    """The machine's own resolver: the engine's 127.0.0.11 is of no use to an engine inside the host."""
    usable = [server for server in net.resolvers() if ":" not in server and not server.startswith("127.")]
    if not usable:
        return []
    path = cache.folder("hosts") / f"{host}.resolv.conf"
    cache.write(path, "".join(f"nameserver {server}\n" for server in usable), 0o644)
    return ["-v", f"{path}:/etc/resolv.conf"]


def image(job: Job, suite: str) -> str:
    """The engine's image of a host, built from packages and kept."""
    tar = root_tar(job, suite)
    net.ensure(job)
    return engine.import_image(job, f"clawops-bed/host:{suite}", tar.name.split("-")[-1], tar)


def root_tar(job: Job, suite: str) -> pathlib.Path:
    """The root file system of a host, built from packages and kept."""
    recipe = [*debian.inputs(suite), PACKAGES, FETCHED[suite], debian.EXCLUDED, SSHD, CONFIGURE, PRUNE]
    fetch = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qy -d install {shlex.join(FETCHED[suite].split())}'

    def build(out: pathlib.Path) -> None:
        job.say(f"building Debian {suite} from packages (log: {job.log})")
        files = {"/etc/ssh/sshd_config.d/10-bed.conf": SSHD}
        debian.bootstrap(job, suite, out, PACKAGES, files, [CONFIGURE, fetch, PRUNE])

    return cache.artefact(f"host-{suite}", cache.digest(recipe), build)


def ssh_folder() -> pathlib.Path:
    """Client key and known_hosts, at a fixed place that inventory/local names."""
    path = cache.folder("ssh")
    path.chmod(0o700)
    return path


def _keys(job: Job, host: str) -> tuple[str, str]:
    """The host's secret key, and the client key that may log in; made once."""
    with cache.lock("ssh"):
        home = ssh_folder()
        for name in ("id_ed25519", *(f"host_{one}" for one in HOSTS)):
            if not (home / f"{name}.pub").exists():
                (home / name).unlink(missing_ok=True)
                job.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"clawops-bed {name}", "-f", home / name])
        lines = [
            f"{one},{net.v4(one)},{net.v6(one)} {' '.join((home / f'host_{one}.pub').read_text().split()[:2])}\n"
            for one in HOSTS
        ]
        cache.write(home / "known_hosts", "".join(lines), 0o644)
        return (home / f"host_{host}").read_text(), (home / "id_ed25519.pub").read_text()


def _systemd(host: str) -> str:
    ask = ["docker", "exec", net.container(host), "sh", "-c", "systemctl is-system-running || true"]
    return output(*ask) or ""


def _banner(host: str) -> bool:
    try:
        with socket.create_connection((net.v4(host), 22), timeout=2) as peer:
            return peer.recv(4) == b"SSH-"
    except OSError:
        return False


def _login(host: str) -> bool:
    home = ssh_folder()
    options = ["-oBatchMode=yes", "-oStrictHostKeyChecking=yes", f"-oUserKnownHostsFile={home / 'known_hosts'}"]
    return output("ssh", "-Fnone", *options, "-i", home / "id_ed25519", f"root@{net.v4(host)}", "true") is not None


def down(_job: Job, host: str) -> None:
    """No host, and nothing of what was on it."""
    inner = engine.inner_containers(net.container(host))
    engine.thaw(inner)
    engine.discard(net.container(host), net.container(host))
    engine.remove_cgroups(inner)


def status(host: str) -> tuple[str, str]:
    """State and addresses."""
    state = "isolated" if host in lab.isolated() else "up" if _banner(host) else "down"
    return state if engine.running(net.container(host)) else "down", f"{net.v4(host)} {net.v6(host)}"
