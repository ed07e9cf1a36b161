# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""MinIO's users and policies, by the few requests of its admin API that they need.

Requests are signed like those of S3. A body with a secret is sealed besides, with a key that comes from the admin's
secret key: salt, number of the method, nonce, and AES-GCM in the form of MinIO's library sio.
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from .._errors import FleetError
from .bucket import explain, trusted
from .model import Store

PBKDF2_AES_GCM, ROUNDS = 2, 8192
# One block of the sealed form: a user's description is far smaller.
BLOCK = 1 << 14


class Admin:
    """What an administrator of MinIO may ask for."""

    def __init__(self, store: Store, access_key: str, secret_key: str) -> None:
        self.store, self.access_key, self._secret = store, access_key, secret_key

    def policy(self, name: str) -> dict[str, t.Any] | None:
        text = self._ask("GET", "info-canned-policy", {"name": name}, missing="XMinioAdminNoSuchPolicy")
        return None if text is None else dict(json.loads(text))

    def put_policy(self, name: str, document: t.Mapping[str, t.Any]) -> None:
        self._ask("PUT", "add-canned-policy", {"name": name}, json.dumps(document).encode())

    def user(self, access_key: str) -> dict[str, t.Any] | None:
        """Its state and the names of its policies."""
        text = self._ask("GET", "user-info", {"accessKey": access_key}, missing="XMinioAdminNoSuchUser")
        return None if text is None else dict(json.loads(text))

    def put_user(self, access_key: str, secret_key: str) -> None:
        """Makes a user, or gives it another secret."""
        body = json.dumps({"secretKey": secret_key, "status": "enabled"}).encode()
        self._ask("PUT", "add-user", {"accessKey": access_key}, seal(self._secret, body))

    def attach(self, access_key: str, policy: str) -> None:
        """The one policy of a user."""
        self._ask("PUT", "set-user-or-group-policy",
                  {"policyName": policy, "userOrGroup": access_key, "isGroup": "false"})

    def remove_user(self, access_key: str) -> None:
        self._ask("DELETE", "remove-user", {"accessKey": access_key}, missing="XMinioAdminNoSuchUser")

    def _ask(self, method: str, verb: str, query: dict[str, str], body: bytes = b"", missing: str = "") -> str | None:
        status, text = send(self.store, self.access_key, self._secret, method, verb, query, body)
        if status == 200:
            return text
        try:
            code = str(json.loads(text)["Code"])
        except (ValueError, TypeError, KeyError):
            code = ""
        if code and code == missing:
            return None
        raise self._failure(status, code)

    def _failure(self, status: int, code: str) -> FleetError:
        where = self.store.endpoint
        if code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            return FleetError("wrong_admin_key", f"{where} refuses the admin key: {code}.",
                              "Check admin_access_key and admin_secret_key, and that this user may manage users.")
        if not code:
            return FleetError("no_admin_api", f"What answers at {where} has no admin API of MinIO ({status}).",
                              "Make the keys there yourself, with the policies that this module returns, and leave "
                              "out admin_access_key.")
        return FleetError("minio_failed", f"{where} refuses the request: {code}.",
                          "An access key has 3 or more characters, a secret key 8 or more.")


def send(store: Store, access_key: str, secret_key: str, method: str, verb: str, query: dict[str, str], body: bytes
         ) -> tuple[int, str]:
    """One signed request."""
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        from botocore.httpsession import URLLib3Session
    except ImportError:
        from ansible.module_utils.basic import missing_required_lib

        raise FleetError("missing_library", missing_required_lib("boto3")) from None
    request = AWSRequest(method, f"{store.endpoint}/minio/admin/v3/{verb}", params=query, data=body,
                         headers={"X-Amz-Content-Sha256": hashlib.sha256(body).hexdigest()})
    SigV4Auth(Credentials(access_key, secret_key), "s3", store.region).add_auth(request)
    try:
        answer = URLLib3Session(verify=trusted(store), timeout=15).send(request.prepare())
    except Exception as error:
        raise explain(error, store) from None
    return int(answer.status_code), str(answer.text)


def seal(password: str, data: bytes) -> bytes:
    """Data for those who know the password."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        from ansible.module_utils.basic import missing_required_lib

        raise FleetError("missing_library", missing_required_lib("cryptography")) from None
    if len(data) > BLOCK:
        raise ValueError(f"{len(data)} bytes do not fit in one block")
    salt, nonce = os.urandom(32), os.urandom(8)
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS, 32))
    # Every block is bound to the tag over nothing; the first byte says that it is the last one.
    bound = b"\x80" + cipher.encrypt(nonce + bytes(4), b"", b"")
    return salt + bytes([PBKDF2_AES_GCM]) + nonce + cipher.encrypt(nonce + (1).to_bytes(4, "little"), data, bound)
