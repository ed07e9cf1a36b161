# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What brings the policy for published ports back: the restore script, and who calls it when Docker and UFW start."""

from __future__ import annotations

import re

from .._errors import FleetError
from .docker_user_rules import HOOK, JUMPS
from .host import LOCK_SECONDS, File
from .rules import Version

DIRECTORY = "/etc/clawops/firewall"
BOOT_FILES: dict[Version, str] = {4: f"{DIRECTORY}/rules.v4", 6: f"{DIRECTORY}/rules.v6"}
SCRIPT = "/usr/local/lib/clawops/firewall-restore"
UNIT = "docker.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/clawops-firewall.conf"
UFW_HOOK = "/etc/ufw/after.init"
STARTS = (DROP_IN, UFW_HOOK)
# The lock keeps a start of Docker or UFW from reading the files while a run is writing them.
RESTORE = f"/usr/bin/flock --timeout {LOCK_SECONDS} {DIRECTORY} {SCRIPT}"

_SCRIPT_JUMPS = {version: " ".join(f"{parent}:{target}" for parent, target in jumps)
                 for version, jumps in JUMPS.items()}
SCRIPT_TEXT = f"""\
#!/bin/sh
# Written by clawops.fleet.ufw_docker_user. Loads our chains and puts the jumps to them first, one transaction per
# IP family.
set -eu

# Prints what makes "$2" the first jump of chain "$1"; nothing when it is.
first_jump() {{
    rules=$(printf '%s\\n' "$saved" | grep "^-A $1 " || :)
    [ "$(printf '%s\\n' "$rules" | head -n 1)" != "-A $1 -j $2" ] || return 0
    printf '%s\\n' "$rules" | grep -Fx -e "-A $1 -j $2" | sed 's/^-A/-D/' || :
    echo "-I $1 1 -j $2"
}}

load() {{
    tool=$1 file=$2
    shift 2
    saved=$("$tool-save" -t filter)
    # All of it is there before the tool starts: an empty transaction would count as a good one.
    transaction=$(
        grep -v '^COMMIT$' "{DIRECTORY}/$file"
        case $saved in *':{HOOK} '*) ;; *) echo ':{HOOK} - [0:0]' ;; esac
        for jump; do first_jump "${{jump%:*}}" "${{jump#*:}}"; done
        echo COMMIT
    )
    printf '%s\\n' "$transaction" | "$tool-restore" --noflush --wait
}}

load iptables rules.v4 {_SCRIPT_JUMPS[4]}
if [ -e /proc/sys/net/ipv6 ]; then load ip6tables rules.v6 {_SCRIPT_JUMPS[6]}; fi
"""

DROP_IN_TEXT = f"""\
# Written by clawops.fleet.ufw_docker_user. Before: no port is open while containers start. After: Docker may have
# put its own jumps first. If the rules can't be loaded, Docker does not start.
[Unit]
After=ufw.service

[Service]
ExecStartPre={RESTORE}
ExecStartPost={RESTORE}
"""


# -- the block in ufw's after.init ------------------------------------------------------------------------------------

_BLOCK = re.compile(r"# BEGIN clawops\.fleet \(before: (?P<before>\w+)\)\n.*?# END clawops\.fleet\n", re.DOTALL)


def with_block(file: File | None) -> File:
    """Adds our block below the first line, so that an exit further down does not skip it."""
    mode, text = file or File(0o750, "#!/bin/sh\n")
    first, newline, rest = text.partition("\n")
    if not re.match(r"#!.*sh\b", first):
        raise FleetError("foreign_object", f"{UFW_HOOK} is not a shell script: {first!r}.",
                         f"Let it call '{RESTORE}' on start by itself, as a shell script.")
    asleep = file is not None and not mode & 0o111
    before = f"{mode:04o}" if file else "absent"
    block = [f"# BEGIN clawops.fleet (before: {before})", f'[ "$1" != start ] || {RESTORE}',
             *(["exit 0  # what follows was not executable before, and stays without effect"] if asleep else []),
             "# END clawops.fleet", ""]
    return File(mode | 0o110, first + (newline or "\n") + "\n".join(block) + rest)


def without_block(file: File | None) -> File | None:
    """The file as it was before with_block."""
    match = _BLOCK.search(file.text) if file else None
    if file is None or match is None:
        return file
    text = file.text[:match.start()] + file.text[match.end():]
    if match["before"] == "absent":
        return None if text == "#!/bin/sh\n" else File(file.mode, text)
    return File(int(match["before"], 8), text)
