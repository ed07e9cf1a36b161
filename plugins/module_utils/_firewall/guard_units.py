# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What brings the guard back after a boot, and what writes down what it refused: systemd, ulogd and logrotate."""

from __future__ import annotations

from .host import File

DIRECTORY = "/etc/clawops/firewall"
RULES = f"{DIRECTORY}/guard.nft"
UNIT, LOG_UNIT = "clawops-guard.service", "clawops-guard-log.service"
LOG_FILE, LOG_GROUP = "/var/log/clawops/firewall.json", 5
SYSTEMD = "/etc/systemd/system"
# The lock keeps a boot file that a run is about to replace from being loaded after that run's own rules.
LOAD = f"/usr/bin/flock {DIRECTORY} /usr/sbin/nft -f {RULES}"
_HEAD = "# Written by clawops.fleet.network_guard."

_GUARD = f"""\
{_HEAD} Where the rules can't be loaded, neither Docker nor libvirt starts.
# To load them again, reload this unit: a restart would restart Docker too.
[Unit]
Description=Network guard of containers and guests
After=nftables.service
Before=docker.service libvirtd.service virtqemud.service virtnetworkd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={LOAD}
ExecReload={LOAD}

[Install]
WantedBy=multi-user.target
RequiredBy=docker.service libvirtd.service virtqemud.service
"""

_DOCKER = f"""\
{_HEAD} The guard stands before a container starts, also where somebody flushed it since the boot.
[Service]
ExecStartPre={LOAD}
"""

_NFTABLES = f"""\
{_HEAD} This service flushes all tables, also when it stops.
[Service]
ExecStartPost=-{LOAD}
ExecReload=-{LOAD}
ExecStopPost=-{LOAD}
"""

_ULOGD = f"""\
{_HEAD}
[global]
logfile="syslog"
loglevel=5
stack=refused:NFLOG,base:BASE,interface:IFINDEX,address:IP2STR,json:JSON

[refused]
group={LOG_GROUP}

[json]
file="{LOG_FILE}"
sync=1
"""

_LOG = f"""\
{_HEAD}
[Unit]
Description=Log of what the network guard refused
After={UNIT}

[Service]
ExecStart=/usr/sbin/ulogd --configfile {DIRECTORY}/ulogd.conf
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
LogsDirectory=clawops
LogsDirectoryMode=0750
UMask=0027
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""

_LOGROTATE = f"""\
{_HEAD}
{LOG_FILE} {{
    daily
    rotate 14
    maxsize 20M
    compress
    delaycompress
    missingok
    notifempty
    create 0640 root adm
    postrotate
        systemctl reload {LOG_UNIT}
    endscript
}}
"""


def guard_files() -> dict[str, File]:
    return {f"{SYSTEMD}/{UNIT}": File(0o644, _GUARD),
            f"{SYSTEMD}/docker.service.d/clawops-guard.conf": File(0o644, _DOCKER),
            f"{SYSTEMD}/nftables.service.d/clawops-guard.conf": File(0o644, _NFTABLES)}


def log_files() -> dict[str, File]:
    return {f"{DIRECTORY}/ulogd.conf": File(0o644, _ULOGD),
            f"{SYSTEMD}/{LOG_UNIT}": File(0o644, _LOG),
            "/etc/logrotate.d/clawops-firewall": File(0o644, _LOGROTATE)}
