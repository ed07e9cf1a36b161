# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What is in a desktop besides the gateway: two X displays by noVNC, a browser, a terminal, sshd, under systemd."""

from __future__ import annotations

# By upstream's version, so that the distribution's corrections still come in.
PACKAGES = (
    "systemd-sysv", "dbus", "openssh-server", "tigervnc-standalone-server", "tigervnc-tools", "novnc=1:1.6.0*",
    "websockify=0.12.0*", "xterm", "chromium", "chromium-sandbox", "fonts-dejavu-core", "fonts-liberation",
    "fonts-noto-color-emoji", "python3-pip", "python3-venv", "pipx=1.7.1*", "python3-poetry=2.1.2*",
)
HOMEBREW_PACKAGES = ("build-essential", "file")
UV = "0.13.8"
UV_HASHES = ("e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
             "0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d")
# Fetched with the trust of the machine that builds, which the image does not keep.
INSTALL_UV = f"""set -eu
cp /etc/ssl/certs/ca-certificates.crt "$1/tmp/trust"
echo "uv=={UV}{''.join(f' --hash=sha256:{digest}' for digest in UV_HASHES)}" >"$1/tmp/wanted"
SSL_CERT_FILE=/tmp/trust PIP_CERT=/tmp/trust REQUESTS_CA_BUNDLE=/tmp/trust PIP_ROOT_USER_ACTION=ignore \
    chroot "$1" pip install --break-system-packages --no-deps --require-hashes --only-binary=:all: --no-cache-dir \
    --no-compile --quiet --requirement /tmp/wanted
rm "$1/tmp/trust" "$1/tmp/wanted"
"""
# Each desktop brings its own.
FORGET_IDENTITY = 'rm -f "$1"/etc/ssh/ssh_host_* "$1"/var/lib/dbus/machine-id && : >"$1"/etc/machine-id'
HOOKS = (INSTALL_UV, FORGET_IDENTITY)

PATH = ("/opt/openclaw/bin:/home/openclaw/.local/bin:/home/linuxbrew/.linuxbrew/bin"
        ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
CONFIG = "/etc/openclaw/openclaw.json"
STATE = "/home/openclaw/.openclaw"
#: Mount points of the bot's volumes.
DATA = (STATE, "/home/openclaw/.config/chromium", "/home/openclaw/clawd", "/home/linuxbrew/.linuxbrew")
PORTS = {"gateway": 18789, "browser": 6081, "terminal": 6082}

ENVIRONMENT = r'''#!/usr/bin/python3
# Hands to the units what the container was started with, and makes the volumes the bot's own.
import os
import pathlib
import pwd
import re
import subprocess
import sys

RUN = pathlib.Path("/run/openclaw")
DATA = @DATA@
NOT_FOR_THE_BOT = {"PATH", "HOME", "HOSTNAME", "TERM", "PWD", "OLDPWD", "SHLVL", "_", "container", "container_uuid",
                   "VNC_PASSWORD", "VNC_PASSWORDLESS", "VNC_GEOMETRY", "KIOSK_URL"}


def assignments(values):
    # As systemd and the shell read them alike.
    quoted = {key: re.sub(r'([\\"`$])', r"\\\1", value) for key, value in sorted(values.items())}
    return "".join(f'{key}="{value}"\n' for key, value in quoted.items())


def started_with(text):
    pairs = (entry.partition("=") for entry in text.split("\0"))
    return {key: value for key, _sign, value in pairs if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", key)}


def desktop(given):
    # None when nothing was decided about a password.
    width, height = re.fullmatch("([0-9]+)x([0-9]+)", given.get("VNC_GEOMETRY", "1920x1080")).groups()
    settings = {"VNC_GEOMETRY": f"{width}x{height}", "KIOSK_SIZE": f"{width},{height}",
                "KIOSK_URL": given.get("KIOSK_URL", "http://127.0.0.1:18789/")}
    if given.get("VNC_PASSWORDLESS") == "1":
        return {**settings, "VNC_SECURITY": "-SecurityTypes=None"}
    if len(given.get("VNC_PASSWORD", "")) < 8:
        return None
    return {**settings, "VNC_SECURITY": f"-SecurityTypes=VncAuth -PasswordFile={RUN}/vnc.password"}


def own(path):
    user = pwd.getpwnam("openclaw")
    if path.stat().st_uid != user.pw_uid:
        os.chown(path, user.pw_uid, user.pw_gid)


def put(name, content):
    (RUN / name).write_bytes(content)
    own(RUN / name)


def main():
    given = started_with(pathlib.Path("/proc/1/environ").read_text())
    os.umask(0o077)
    os.chmod("/run", 0o755)
    for path in (RUN, *map(pathlib.Path, DATA)):
        path.mkdir(parents=True, exist_ok=True)
        own(path)
    put("gateway.env", assignments({k: v for k, v in given.items() if k not in NOT_FOR_THE_BOT}).encode())
    settings = desktop(given)
    if settings is None:
        sys.exit("VNC_PASSWORD: give at least 8 characters (VNC takes the first 8), or VNC_PASSWORDLESS=1.")
    if "PasswordFile" in settings["VNC_SECURITY"]:
        put("vnc.password", subprocess.run(["vncpasswd", "-f"], input=given["VNC_PASSWORD"].encode(),
                                           stdout=subprocess.PIPE, check=True).stdout)
    put("desktop.env", assignments(settings).encode())


if __name__ == "__main__":
    main()
'''.replace("@DATA@", repr(DATA))

SSHD = f"""# Ports of the bot's own services, and nothing else, are forwarded; keys only.
HostKey /run/sshd/ssh_host_ed25519_key
HostKeyAlgorithms ssh-ed25519
AllowUsers openclaw
PermitRootLogin no
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
# The mounted file is root's alone, so sshd can't read it as the user who logs in; a command of root's can.
AuthorizedKeysFile none
AuthorizedKeysCommand /usr/bin/cat /etc/openclaw-ssh/authorized_keys
AuthorizedKeysCommandUser root
LoginGraceTime 30
MaxAuthTries 3
MaxStartups 10:30:60
ClientAliveInterval 30
ClientAliveCountMax 3
AllowTcpForwarding local
PermitOpen {" ".join(f"{host}:{port}" for host in ("127.0.0.1", "localhost") for port in PORTS.values())}
AllowStreamLocalForwarding no
AllowAgentForwarding no
GatewayPorts no
PermitTunnel no
X11Forwarding no
PermitUserEnvironment no
PrintMotd no
UseDNS no
Subsystem sftp internal-sftp
"""


def _unit(about: str, after: str, service: str) -> str:
    return f"""[Unit]
Description={about}
Requires=openclaw-environment.service
After=openclaw-environment.service {after}
StartLimitIntervalSec=0

[Service]
User=openclaw
WorkingDirectory=/home/openclaw
Environment=HOME=/home/openclaw LANG=C.UTF-8
Environment=PATH={PATH}
{service}
Restart=always

[Install]
WantedBy=multi-user.target
"""


def _on_display(number: int) -> str:
    socket = f"/tmp/.X11-unix/X{number}"  # noqa: S108 where X puts it
    return f"""Environment=DISPLAY=:{number}
ExecStartPre=/bin/sh -c 'until [ -S {socket} ]; do sleep 0.1; done'
TimeoutStartSec=60
RestartSec=1"""


UNITS = {
    # Its failure ends the container, so that whoever started it hears why.
    "openclaw-environment.service": """[Unit]
Description=What the container was started with
After=systemd-tmpfiles-setup.service
FailureAction=exit-force
FailureActionExitStatus=1

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/openclaw-environment
""",
    "openclaw-xvnc@.service": _unit("Display %i", "", """EnvironmentFile=/run/openclaw/desktop.env
ExecStart=/usr/bin/Xtigervnc :%i -rfbport 590%i -localhost=1 -AlwaysShared=1 -depth 24 \
-geometry ${VNC_GEOMETRY} $VNC_SECURITY
RestartSec=1"""),
    "openclaw-novnc@.service": _unit("noVNC of display %i", "openclaw-xvnc@%i.service", """\
ExecStart=/usr/bin/websockify --web=/usr/share/novnc --heartbeat=30 608%i 127.0.0.1:590%i
RestartSec=1"""),
    # A profile that another pod left locked is nobody's: its volume has one user at a time.
    # What a browser says without a session bus is for its own journal, not for the container's log.
    "openclaw-kiosk.service": _unit("Browser on display 1", "openclaw-xvnc@1.service", f"""{_on_display(1)}
EnvironmentFile=/run/openclaw/desktop.env
SyslogLevel=debug
ExecStartPre=/bin/sh -c 'rm -f {DATA[1]}/Singleton*'
ExecStart=/usr/bin/chromium --kiosk --user-data-dir={DATA[1]} --no-first-run --no-default-browser-check \
--password-store=basic --disable-background-networking --disable-component-update --disable-sync --noerrdialogs \
--disable-session-crashed-bubble --hide-crash-restore-bubble --window-position=0,0 --window-size=${{KIOSK_SIZE}} \
${{KIOSK_URL}}"""),
    "openclaw-terminal.service": _unit("Terminal on display 2", "openclaw-xvnc@2.service", f"""{_on_display(2)}
ExecStart=/usr/bin/xterm -geometry 212x62+0+0 -fa "DejaVu Sans Mono" -fs 11 -bg black -fg white \
-e /bin/bash --login"""),
    # 78 is a configuration that no restart mends.
    "openclaw-gateway.service": _unit("OpenClaw gateway", "openclaw-xvnc@1.service", f"""\
Environment=DISPLAY=:1 OPENCLAW_STATE_DIR={STATE} OPENCLAW_CONFIG_PATH={CONFIG}
EnvironmentFile=/run/openclaw/gateway.env
ExecStart=/opt/openclaw/bin/node /opt/openclaw/lib/node_modules/openclaw/openclaw.mjs gateway run
RestartSec=5
RestartPreventExitStatus=78
SuccessExitStatus=143
KillMode=mixed
TimeoutStopSec=60
UMask=0077"""),
    "ssh.service.d/openclaw.conf": """[Unit]
ConditionPathExists=/etc/openclaw-ssh/ssh_host_ed25519_key
StartLimitIntervalSec=0

[Service]
ExecStartPre=
ExecStartPre=/usr/bin/install -m 0600 /etc/openclaw-ssh/ssh_host_ed25519_key /run/sshd/ssh_host_ed25519_key
ExecStartPre=/usr/sbin/sshd -t
""",
}
ENABLED = ("openclaw-xvnc@1", "openclaw-xvnc@2", "openclaw-novnc@1", "openclaw-novnc@2", "openclaw-kiosk",
           "openclaw-terminal", "openclaw-gateway", "ssh")
# What belongs to a machine, and what would make host keys.
MASKED = ("sshd-keygen.service", "ssh.socket", "systemd-logind.service", "getty.target", "console-getty.service",
          "systemd-remount-fs.service", "systemd-modules-load.service", "dev-hugepages.mount", "dev-mqueue.mount",
          "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount", "apt-daily.timer",
          "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer")

FILES = {
    **{f"/etc/systemd/system/{name}": text for name, text in UNITS.items()},
    "/usr/local/sbin/openclaw-environment": ENVIRONMENT,
    "/etc/ssh/sshd_config": SSHD,
    "/etc/environment": f"PATH={PATH}\nOPENCLAW_STATE_DIR={STATE}\nOPENCLAW_CONFIG_PATH={CONFIG}\n",
    "/etc/default/locale": "LANG=C.UTF-8\n",
    "/etc/profile.d/openclaw.sh": f"""PATH={PATH}
if [ -r /run/openclaw/gateway.env ]; then
    set -a
    . /run/openclaw/gateway.env
    set +a
fi
""",
    # On the console, which is what the engine keeps as the container's log.
    "/etc/systemd/journald.conf.d/openclaw.conf": """[Journal]
Storage=volatile
RuntimeMaxUse=64M
ForwardToConsole=yes
MaxLevelConsole=info
""",
    "/etc/systemd/system.conf.d/openclaw.conf": "[Manager]\nShowStatus=no\nLogColor=no\nLogLevel=warning\n",
    "/usr/share/novnc/index.html": """<!DOCTYPE html>
<meta http-equiv="refresh" content="0; url=vnc.html?autoconnect=1&amp;resize=scale">
""",
}

DOCKERFILE = f"""FROM {{base}}
COPY openclaw /opt/openclaw
{{homebrew}}COPY desktop /
RUN update-ca-certificates \\
 && useradd --uid 1000 --user-group --create-home --shell /bin/bash openclaw \\
 && install -d -m 0700 -o openclaw -g openclaw /home/openclaw/.config {" ".join(DATA)} \\
 && systemctl enable {" ".join(ENABLED)} \\
 && systemctl mask {" ".join(MASKED)} \\
 && mkdir /etc/systemd/system-generators \\
 && ln -s /dev/null /etc/systemd/system-generators/systemd-ssh-generator \\
 && systemctl set-default multi-user.target \\
 && : >/etc/machine-id
ENV container=docker PATH={PATH}
STOPSIGNAL SIGRTMIN+3
EXPOSE 22 {" ".join(map(str, PORTS.values()))}
CMD ["/sbin/init"]
"""
