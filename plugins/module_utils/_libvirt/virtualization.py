# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Whether guests of this host run on its processors (KVM) or on an emulated one (TCG), and why."""

from __future__ import annotations

import pathlib
import re
import typing as t

EMULATED = "Guests run on an emulated processor (TCG), some ten times slower."
_YES = ("Y", "1")


def facts(kvm: bool, root: pathlib.Path = pathlib.Path("/")) -> dict[str, t.Any]:
    """kvm: whether libvirt can use it."""
    return {"kvm": kvm, "nested": kvm and nested(root), "domain_type": "kvm" if kvm else "qemu",
            "reason": "" if kvm else f"{why(root)} {EMULATED}"}


def nested(root: pathlib.Path) -> bool:
    """Whether guests may have guests of their own."""
    switches = (root / "sys/module").glob("kvm_*/parameters/nested")
    return any(switch.read_text().strip() in _YES for switch in switches)


def why(root: pathlib.Path) -> str:
    """Why there is no KVM."""
    if (root / "dev/kvm").exists():
        return "/dev/kvm is there, but libvirt can't use it: see the modes of the device and the log of libvirtd."
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", (root / "proc/cpuinfo").read_text(), re.MULTILINE):
        return ("The processor shows no virtualization: switch it on in the firmware, or, where this host is itself a "
                "guest, nested virtualization on the host below it.")
    return "The processor has virtualization, but /dev/kvm is not there: load kvm_intel or kvm_amd."
