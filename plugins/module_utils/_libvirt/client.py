# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""libvirt on this host: a connection that comes back after a restart of the daemon, and one error for the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import typing as t
import xml.etree.ElementTree as ET

from .._errors import FleetError

Domain = t.Any
URI = "qemu:///system"
_PAUSE = 0.5
#: What a daemon that goes away leaves its clients with, beside the codes for it.
_GONE = ("client socket is closed", "connection reset", "end of file while reading", "broken pipe", "keepalive")


@dataclasses.dataclass(frozen=True)
class Platform:
    """What the host can run. machines are types and aliases; version is 9000000 for 9.0.0."""

    kvm: bool
    machines: frozenset[str]
    version: int


class Host:
    """One connection for all threads."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or URI
        self._connection: t.Any = None
        self._platform: Platform | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    @property
    def connection(self) -> t.Any:
        """Opened when it is needed, and again when it has broken."""
        with self._opening:
            if self._connection is None or not self._connection.isAlive():
                self._connection = _open(self.uri)
            return self._connection

    @contextlib.contextmanager
    def doing(self, what: str) -> t.Iterator[None]:
        """Makes FleetErrors of the library's. what completes the sentence "libvirt can't ..."."""
        libvirt = library()
        try:
            yield
        except libvirt.libvirtError as error:
            raise _refusal(error, what, self.uri) from None

    def wait(self, seconds: float) -> None:
        """Until the daemon answers again."""
        end = time.monotonic() + seconds
        while True:
            try:
                with self.doing("answer"):
                    self.connection.getLibVersion()
                return
            except FleetError:
                if time.monotonic() >= end:
                    raise
            time.sleep(_PAUSE)

    def domain(self, name: str) -> Domain | None:
        """None where there is none of this name."""
        try:
            with self.doing(f"find the domain {name}"):
                return self.connection.lookupByName(name)
        except FleetError as error:
            if error.code == "not_found":
                return None
            raise

    def domains(self) -> list[Domain]:
        with self.doing("list its domains"):
            return list(self.connection.listAllDomains())

    def network_is_up(self, name: str) -> bool | None:
        """None where there is no such network."""
        try:
            with self.doing(f"find the network {name}"):
                return bool(self.connection.networkLookupByName(name).isActive())
        except FleetError as error:
            if error.code == "not_found":
                return None
            raise

    @property
    def platform(self) -> Platform:
        """Asked once."""
        if self._platform is None:
            with self.doing("describe its host"):
                self._platform = _platform(parse(self.connection.getCapabilities()), self.connection.getLibVersion())
        return self._platform


def parse(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - libvirt's own


def library() -> t.Any:
    try:
        import libvirt
    except ImportError:
        raise FleetError("missing_library", "The Python package libvirt is missing where this module runs.",
                         "Install the distribution's package python3-libvirt, 9.0 or newer.",
                         package="libvirt") from None
    return libvirt


def _open(uri: str) -> t.Any:
    libvirt = library()
    # Every error is raised as well; without this the library writes it to standard error, too.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise _unreachable(uri, f"libvirt doesn't answer: {_words(error)}") from None


def _unreachable(uri: str, message: str) -> FleetError:
    return FleetError("libvirt_unreachable", message,
                      f"Start libvirtd, or name its address ({uri} was asked) in libvirt_uri.")


def _refusal(error: t.Any, what: str, uri: str) -> FleetError:
    libvirt = library()
    code, words = error.get_error_code(), _words(error)
    lost = (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN)
    if code in lost or any(sign in words.lower() for sign in _GONE):
        return _unreachable(uri, f"libvirt can't {what}: {words}")
    if code in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK):
        return FleetError("not_found", f"libvirt can't {what}: {words}")
    return FleetError("libvirt_refused", f"libvirt can't {what}: {words}", libvirt_code=code)


def _words(error: t.Any) -> str:
    return f"{str(error.get_error_message() or error).strip().rstrip('.')[:1000]}."


def _platform(capabilities: ET.Element, version: int) -> Platform:
    own = capabilities.findtext("host/cpu/arch")
    arch = next((one for guest in capabilities.iter("guest") for one in guest.findall("arch")
                 if one.get("name") == own), None)
    if arch is None:
        raise FleetError("no_emulator", f"libvirt finds no QEMU for {own} on this host.",
                         "Install qemu-system, or run the role vm_host.")
    machines = {name for machine in arch.iter("machine") for name in (machine.text, machine.get("canonical")) if name}
    return Platform(any(one.get("type") == "kvm" for one in arch.findall("domain")), frozenset(machines), version)
