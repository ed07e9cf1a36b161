# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""How to reach an API server: from a kubeconfig, from a host with a token, or from inside a pod.

Certificates and tokens of a kubeconfig are read here, in a few milliseconds. Users with an exec plugin or another
provider go through the kubernetes package, whose import costs more than a whole run over a fleet.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import pathlib
import ssl
import tempfile
import typing as t

from .._errors import FleetError, bad_value

Options = t.Mapping[str, t.Any]
POD = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclasses.dataclass(frozen=True)
class Connection:
    """Everything that a request needs besides its path."""

    host: str
    tls: ssl.SSLContext | None
    headers: dict[str, str] = dataclasses.field(repr=False)
    proxy: str | None = None


def connect(options: Options) -> Connection:
    """The connection that the options of a module describe, the environment and the usual files included."""
    if options.get("host"):
        return _explicit(options)
    chosen = options.get("kubeconfig")
    if isinstance(chosen, dict):
        return _from_kubeconfig(chosen, options, pathlib.Path.cwd(), None)
    named = chosen or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = pathlib.Path(named or "~/.kube/config").expanduser()
    if not named and not path.exists() and (POD / "token").exists():
        return _in_pod(options)
    return _from_kubeconfig(_load(path), options, path.parent, path)


def _load(path: pathlib.Path) -> dict[str, t.Any]:
    try:
        document = _parsed(_read(path).decode())
    except ValueError:
        raise bad_value("kubeconfig", str(path), "It is not YAML.") from None
    if not isinstance(document, dict):
        raise bad_value("kubeconfig", str(path), "It is not a kubeconfig.")
    return document


def _parsed(text: str) -> t.Any:
    """YAML; raises ValueError. JSON, as this collection writes it, is YAML that needs no other parser."""
    with contextlib.suppress(ValueError):
        return json.loads(text)
    try:
        import yaml
    except ImportError:
        raise missing("PyYAML") from None
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError from error


def missing(package: str) -> FleetError:
    return FleetError("missing_library", f"The Python package {package} is missing where this module runs.",
                      "Install the package kubernetes (28 or newer), which brings it.", package=package)


def _named(document: Options, kind: str, name: t.Any) -> dict[str, t.Any]:
    found = next((entry.get(kind) for entry in document.get(f"{kind}s") or [] if entry.get("name") == name), None)
    if not isinstance(found, dict):
        raise bad_value("context", name, f"The kubeconfig has no {kind} of that name.")
    return found


def _from_kubeconfig(document: dict[str, t.Any], options: Options, folder: pathlib.Path,
                     path: pathlib.Path | None) -> Connection:
    context = _named(document, "context", options.get("context") or document.get("current-context"))
    cluster = _named(document, "cluster", context.get("cluster"))
    user = _named(document, "user", context["user"]) if context.get("user") else {}
    if "exec" in user or "auth-provider" in user:
        return _by_package(document, options, path)
    verify = not cluster.get("insecure-skip-tls-verify") and options.get("validate_certs") is not False
    ca = _content(cluster, "certificate-authority", folder)
    certificate, key = _content(user, "client-certificate", folder), _content(user, "client-key", folder)
    token = user.get("token")
    if not token and user.get("tokenFile"):
        token = _read(folder / user["tokenFile"]).decode().strip()
    return Connection(str(cluster.get("server", "")).rstrip("/"), _tls(ca, certificate, key, verify),
                      _authorization(token, user.get("username"), user.get("password")),
                      options.get("proxy") or cluster.get("proxy-url"))


def _content(section: Options, name: str, folder: pathlib.Path) -> bytes | None:
    if section.get(f"{name}-data"):
        return base64.b64decode(section[f"{name}-data"])
    return _read(folder / section[name]) if section.get(name) else None


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise bad_value("kubeconfig", str(path), f"It can't be read: {error.strerror}.") from None


def _authorization(token: str | None, user: str | None = None, password: str | None = None) -> dict[str, str]:
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {}


def _tls(ca: bytes | None, certificate: bytes | None, key: bytes | None, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca.decode() if ca else None)
        if not verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate and key:
            # Python loads them from a file only; this one is gone before anything else happens.
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(certificate + b"\n" + key)
                pair.flush()
                context.load_cert_chain(pair.name)
    except (ssl.SSLError, ValueError) as error:
        raise FleetError("bad_credentials", f"A certificate or key for the API server can't be used: {error}.",
                         "Make the kubeconfig anew.") from None
    return context


def _explicit(options: Options) -> Connection:
    ca, certificate, key = (_read(pathlib.Path(options[name]).expanduser()) if options.get(name) else None
                            for name in ("ca_cert", "client_cert", "client_key"))
    verify = options.get("validate_certs") is not False
    return Connection(options["host"].rstrip("/"), _tls(ca, certificate, key, verify),
                      _authorization(options.get("api_key")), options.get("proxy"))


def _in_pod(options: Options) -> Connection:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    return Connection(f"https://{host}:{port}", _tls(_read(POD / "ca.crt"), None, None, True),
                      _authorization(_read(POD / "token").decode().strip()), options.get("proxy"))


def _by_package(document: dict[str, t.Any], options: Options, path: pathlib.Path | None) -> Connection:
    try:
        from kubernetes import client, config
    except ImportError:
        raise missing("kubernetes") from None
    made = client.Configuration()
    base = str(path.parent) if path else None
    try:
        load: t.Any = config.kube_config.KubeConfigLoader
        load(document, active_context=options.get("context"), config_base_path=base).load_and_set(made)
    except config.ConfigException as error:
        raise FleetError("bad_credentials", f"The kubeconfig's way to log in failed: {error}.",
                         "Try it with kubectl.") from None
    verify = made.verify_ssl and options.get("validate_certs") is not False
    ca, certificate, key = (pathlib.Path(name).read_bytes() if name else None
                            for name in (made.ssl_ca_cert, made.cert_file, made.key_file))
    word = made.get_api_key_with_prefix("authorization") or made.get_api_key_with_prefix("BearerToken")
    return Connection(made.host.rstrip("/"), _tls(ca, certificate, key, verify),
                      {"Authorization": word} if word else {}, options.get("proxy") or made.proxy)
