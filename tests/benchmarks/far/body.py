# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Times the main() of a program once, in a process of its own: body.py FOLDER PROGRAM.

What one run has imported, the next imports beforehand: so imports count in the first run alone, also late ones.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pathlib
import sys
import time

folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
imports = folder / "imports"
for name in imports.read_text().split() if imports.exists() else ():
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
program = importlib.import_module(sys.argv[2])
basic = sys.modules.get("ansible.module_utils.basic")
if basic:
    basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = (folder / "args").read_bytes(), "legacy"
said = io.TextIOWrapper(io.BytesIO())
began = time.perf_counter()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    program.main()
took = time.perf_counter() - began
imports.write_text("\n".join(name for name in sys.modules if name != "__main__"))
said.seek(0)
result = json.load(said)
if result.get("failed"):
    sys.exit(result["msg"])
json.dump({"seconds": took, "changed": result["changed"]}, sys.stdout)
