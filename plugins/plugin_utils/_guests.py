# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What vm_instance_info does, as a program for a VM host on which nothing is installed for it."""

from __future__ import annotations

import io
import pathlib
import zipfile

from .. import module_utils
from ..module_utils import _libvirt

#: Takes the program from standard input, so that no trace of it stays.
LAUNCHER = """import runpy, sys, tempfile
with tempfile.NamedTemporaryFile(suffix=".zip") as file:
    file.write(sys.stdin.buffer.read())
    file.flush()
    runpy.run_path(file.name)
"""
MAIN = """import json, sys
from fleet._errors import FleetError
from fleet._libvirt import client, facts
try:
    with client.Host() as host:
        answer = {{"vms": facts.listing(host, {fleet!r})}}
except FleetError as error:
    answer = {{"vms": []}} if error.code == "missing_library" else {{"msg": error.result()["msg"]}}
sys.stdout.write(json.dumps(answer))
"""


def program(fleet: str | None) -> bytes:
    """A zip archive that Python runs: it tells the guests of a fleet, or of all, as JSON."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", MAIN.format(fleet=None if fleet is None else str(fleet)))
        archive.writestr("fleet/__init__.py", "")
        for package, folder in ((module_utils, "fleet"), (_libvirt, "fleet/_libvirt")):
            for path in sorted(pathlib.Path(package.__path__[0]).glob("*.py")):
                archive.write(path, f"{folder}/{path.name}")
    return out.getvalue()
