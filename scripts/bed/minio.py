# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real MinIO server, built from its Go module at a pinned commit; or the operator's own endpoint.

A second one beside it speaks TLS, with a certificate of a private CA; it comes up with CLAWOPS_BED_TLS=1.
"""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import shlex
import ssl
import tarfile
import urllib.request

from . import cache, engine, golang, machine, net
from .job import BedError, Job, output

MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
PORT = 9000
PLAIN, TLS = INSTANCES = ["minio", "minio-tls"]
LOOPBACK = {PLAIN: 9000, TLS: 9443}


def tls() -> bool:
    """Whether the store that speaks TLS is wanted, too."""
    return os.environ.get("CLAWOPS_BED_TLS", "0") not in ("", "0")


DEFAULT = INSTANCES if tls() else [PLAIN]


def credentials(name: str = PLAIN) -> pathlib.Path:
    """Endpoint and keys, for whoever needs the store."""
    return cache.folder(name) / "credentials.json"


def ca() -> pathlib.Path:
    """The private CA."""
    return cache.folder(TLS) / "ca.crt"


def external(name: str = PLAIN) -> str | None:
    """The operator's own endpoint."""
    return os.environ.get("CLAWOPS_S3_ENDPOINT") if name == PLAIN else None


def endpoint(name: str = PLAIN) -> str:
    """The URL, the same from the machine and from the hosts."""
    return external(name) or f"{'https' if name == TLS else 'http'}://{net.v4(name)}:{PORT}"


def _container(name: str) -> str:
    """The container, and its volume."""
    return f"clawops-bed-{name}"


def up(job: Job, name: str) -> None:
    """The server; nothing when the operator brings an endpoint."""
    keys = _keys(name)
    if external(name):
        return
    net.ensure(job)
    files = {"/etc/minio.env": f"MINIO_ROOT_USER={keys['access_key']}\nMINIO_ROOT_PASSWORD={keys['secret_key']}\n"}
    if name == TLS:
        files |= _certificates(job)
    published = ["-p", f"127.0.0.1:{LOOPBACK[name]}:{PORT}", "-v", f"{_container(name)}:/data"]
    settings = ["-e", "MINIO_CONFIG_ENV_FILE=/etc/minio.env", "-e", "MINIO_BROWSER=off", "-e", "MINIO_UPDATE=off"]
    serve = ["/minio", "server", "--quiet", "--certs-dir", "/certs", "--address", f":{PORT}", "/data"]
    engine.container(job, _container(name), [*net.options(name), *published, *settings, image(job), *serve], files)
    job.wait(f"{endpoint(name)} (see `docker logs {_container(name)}`)", lambda: _answers(name))


def _keys(name: str) -> dict[str, str]:
    path = credentials(name)
    kept = json.loads(path.read_text()) if path.exists() else {}
    own = external(name)
    if own:
        user, secret = os.environ.get("CLAWOPS_S3_ACCESS_KEY"), os.environ.get("CLAWOPS_S3_SECRET_KEY")
        if not (user and secret):
            raise BedError("CLAWOPS_S3_ENDPOINT needs CLAWOPS_S3_ACCESS_KEY and CLAWOPS_S3_SECRET_KEY")
        keys = {"access_key": user, "secret_key": secret}
    elif kept.get("own"):
        keys = {"access_key": kept["access_key"], "secret_key": kept["secret_key"]}
    else:
        keys = {"access_key": f"bed{secrets.token_hex(6)}", "secret_key": secrets.token_urlsafe(30)}
    trust = str(ca()) if name == TLS else ""
    about = {"endpoint": endpoint(name), **keys, "ca": trust, "own": not own}
    cache.write(path, json.dumps(about, indent=1) + "\n")
    return keys


def image(job: Job) -> str:
    """The engine's image of the server, which has nothing else in it."""
    tar = _image_tar(job)
    return engine.import_image(job, "clawops-bed/minio", tar.name.split("-")[-1], tar)


def _image_tar(job: Job) -> pathlib.Path:
    def build(out: pathlib.Path) -> None:
        with tarfile.open(out, "w") as tar:
            for name in ("data", "tmp", "etc", "certs", "certs/CAs"):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            tar.add(binary, "minio", filter=_executable)

    given = os.environ.get("MINIO_BIN")
    binary = pathlib.Path(given) if given else _build(job)
    if not binary.is_file():
        raise BedError(f"MINIO_BIN={given} is not a file")
    return cache.artefact("minio-image", cache.digest(binary.resolve(), binary.stat().st_mtime_ns), build)


def _executable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mode = 0o755
    return entry


def _build(job: Job) -> pathlib.Path:
    flags = ["-trimpath", "-ldflags=-s -w"]

    def build(out: pathlib.Path) -> None:
        job.say(f"building {MODULE.split('@', maxsplit=1)[0]} (log: {job.log})")
        golang.run(job, "install", *flags, MODULE, GOBIN=str(out.parent))
        (out.parent / "minio").replace(out)

    return cache.artefact("minio-binary", cache.digest(MODULE, flags), build)


def _certificates(job: Job) -> dict[str, str]:
    home = cache.folder(TLS)
    machine.need(job, {"openssl": "openssl"})
    if output("openssl", "x509", "-checkend", "86400", "-noout", "-in", home / "server.crt") is None:
        names = f"IP:{net.v4(TLS)},IP:{net.v6(TLS)},IP:127.0.0.1,DNS:{TLS},DNS:localhost"
        new = shlex.split("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes")
        authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", home / "ca.key", "-out", ca()]
        job.run([*new, "-days", "3650", "-subj", "/CN=clawops.fleet test bed CA", *authority])
        extensions = [f"subjectAltName={names}", "basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth"]
        leaf = [word for extension in extensions for word in ("-addext", extension)]
        signed = ["-CA", ca(), "-CAkey", home / "ca.key", "-keyout", home / "server.key", "-out", home / "server.crt"]
        job.run([*new, "-days", "365", "-subj", f"/CN={TLS}", *leaf, *signed])
    return {
        "/certs/public.crt": (home / "server.crt").read_text(),
        "/certs/private.key": (home / "server.key").read_text(),
    }


def _answers(name: str) -> bool:
    trust = ssl.create_default_context(cafile=str(ca())) if name == TLS else None
    try:
        url = f"{endpoint(name)}/minio/health/ready"
        with urllib.request.urlopen(url, timeout=2, context=trust) as reply:  # noqa: S310 (fixed scheme)
            return bool(reply.status == 200)
    except OSError:
        return False


def down(_job: Job, name: str) -> None:
    """No server, and none of its data."""
    engine.discard(_container(name), _container(name))


def status(name: str) -> tuple[str, str]:
    """State and address."""
    if external(name):
        return "external", endpoint(name)
    return ("up" if engine.running(_container(name)) and _answers(name) else "down"), endpoint(name)
