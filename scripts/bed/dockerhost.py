# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Managed hosts: systemd containers of Debian, built from packages, reached over real SSH."""

from __future__ import annotations

import os
import pathlib
import shlex
import socket

from . import cache, engine, lab, machine, net
from .job import BedError, Job, output

SUITES = {"alder": "trixie", "birch": "bookworm"}
INSTANCES = list(SUITES)
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
TRUSTED = pathlib.Path("/usr/local/share/ca-certificates")
EXCLUDED = ["man", "doc", "locale"]
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
    machine.need(job, {"mmdebstrap": "mmdebstrap", "ssh-keygen": "openssh-client"})
    tar = root_tar(job, SUITES[host])
    net.ensure(job)
    lab.rejoin(job, host)
    tag = engine.import_image(job, f"clawops-bed/host:{SUITES[host]}", tar.name.split("-")[-1], tar)
    secret, known = _keys(job, host)
    files = {"/etc/ssh/ssh_host_ed25519_key": secret, "/root/.ssh/authorized_keys": known}
    engine.container(job, net.container(host), options(host, tag), files, keep=True)
    job.wait(f"systemd in {host}", lambda: _systemd(host) in ("running", "degraded"), timeout=120)
    job.wait(f"sshd in {host}", lambda: _login(host), timeout=60)
    if _systemd(host) == "degraded":
        failed = output("docker", "exec", net.container(host), "systemctl", "--failed", "--plain", "--no-legend") or ""
        job.say(f"failed units: {' '.join(line.split()[0] for line in failed.splitlines())}")


def options(host: str, tag: str) -> list[object]:
    """No --privileged: that needs every capability, and many machines lack one."""
    options: list[object] = ["-t", "--hostname", host, *net.options(host)]
    options += [f"--cap-add={capability}" for capability in CAPABILITIES.split()]
    options += [f"--security-opt={what}=unconfined" for what in ("seccomp", "apparmor", "systempaths")]
    options += ["--cgroupns=host", *_cgroups(), "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec"]
    options += ["-v", f"{net.container(host)}:/var/lib/docker", "--stop-signal=SIGRTMIN+3", "-e", "container=docker"]
    options += ["--restart=on-failure"]  # so that a reboot is one
    options += [f"--add-host={who}:{net.v4(who)}" for who in ("minio", "model")]
    return [*options, *_resolver(host), tag, *INIT]


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


def root_tar(job: Job, suite: str) -> pathlib.Path:
    """The root file system of a host, built from packages and kept."""
    apt, sources = _apt_options(), _sources(suite)
    trusted = {path.name: path.read_text() for path in sorted(TRUSTED.glob("*.crt"))}
    recipe = [apt, sources, trusted, PACKAGES, FETCHED[suite], EXCLUDED, SSHD, CONFIGURE, PRUNE]

    def build(out: pathlib.Path) -> None:
        debs = cache.folder("debs", suite)
        overlay = out.parent / "overlay"
        (overlay / "etc/ssh/sshd_config.d").mkdir(parents=True)
        (overlay / "etc/ssh/sshd_config.d/10-bed.conf").write_text(SSHD)
        for name, text in trusted.items():
            path = overlay / TRUSTED.relative_to("/") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        scripts = {"configure": CONFIGURE, "prune": PRUNE}
        for name, text in scripts.items():
            cache.write(out.parent / name, f"#!/bin/sh\n{text}", 0o700)
        archives = "/var/cache/apt/archives"
        fetch = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qy -d install {shlex.join(FETCHED[suite].split())}'
        hooks = [
            ("setup", f'mkdir -p "$1{archives}"'),
            ("setup", f"sync-in {debs} {archives}"),
            ("customize", f"sync-in {overlay} /"),
            ("customize", str(out.parent / "configure")),
            ("customize", fetch),
            ("customize", f"sync-out {archives} {debs}"),
            ("customize", str(out.parent / "prune")),
        ]
        argv = ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar",
                "--skip=cleanup/apt"]
        argv += [f"--aptopt={option}" for option in apt]
        argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in EXCLUDED]
        argv += [f"--{when}-hook={what}" for when, what in hooks]
        job.say(f"building Debian {suite} from packages (log: {job.log})")
        job.run([*argv, f"--include={','.join(PACKAGES.split())}", suite, out, *sources])

    return cache.artefact(f"host-{suite}", cache.digest(recipe), build)


def _apt_options() -> list[str]:
    """Those settings of the machine's apt that reaching its mirror may need, and a few for a small host."""
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
    found = [line for line in (output("apt-config", "dump") or "").splitlines() if line.startswith(wanted)]
    kept = [line.rstrip(";") for line in found if not line.endswith(' "";')]
    return [*kept, 'Acquire::Retries "5"', 'Acquire::Languages "none"', 'APT::Install-Recommends "false"']


def _sources(suite: str) -> list[str]:
    """The machine's Debian mirrors, for another suite; none of them means the tool's default."""
    form = "$(ORIGIN) $(CODENAME) $(RELEASE) $(REPO_URI)"
    lines = output("apt-get", "indextargets", "--format", form, "Created-By: Packages") or ""
    rows = {tuple(line.split()) for line in lines.splitlines()}
    rows = {row for row in rows if len(row) == 4 and row[0] == "Debian" and row[3].startswith("http")}
    main = sorted(row[3] for row in rows if "-" not in row[2])
    security = sorted(row[3] for row in rows if row[2].endswith("-security"))
    lines_of = [(main[:1], suite), (main[:1], f"{suite}-updates"), (security[:1], f"{suite}-security")]
    return [f"deb {mirror} {name} main" for mirrors, name in lines_of for mirror in mirrors]


def ssh_folder() -> pathlib.Path:
    """Client key and known_hosts, at a fixed place that inventory/local names."""
    path = cache.folder("ssh")
    path.chmod(0o700)
    return path


def _keys(job: Job, host: str) -> tuple[str, str]:
    """The host's secret key, and the client key that may log in; made once."""
    with cache.lock("ssh"):
        home = ssh_folder()
        for name in ("id_ed25519", *(f"host_{one}" for one in SUITES)):
            if not (home / f"{name}.pub").exists():
                (home / name).unlink(missing_ok=True)
                job.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"clawops-bed {name}", "-f", home / name])
        lines = [
            f"{one},{net.v4(one)},{net.v6(one)} {' '.join((home / f'host_{one}.pub').read_text().split()[:2])}\n"
            for one in SUITES
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
