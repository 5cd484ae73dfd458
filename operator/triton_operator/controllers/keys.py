"""The keys of Triton's control API and of the keepers, all derived from one master key."""

from __future__ import annotations

import base64
import dataclasses
import secrets

from engine_builder.tokens import derive_key
from triton_operator.clients.kube import SECRET, AlreadyExists, Kube, Object

MASTER_SECRET = "triton-operator-master-key"  # noqa: S105 - a name
_FIELD = "key"


@dataclasses.dataclass(frozen=True)
class Keys:
    """Derives an object's key from the master key and the object's UID."""

    master: bytes = dataclasses.field(repr=False)

    def triton(self, server_uid: str) -> bytes:
        """Return the key of a server's model control API."""
        return derive_key(self.master, "triton-control", server_uid)

    def keeper(self, repository_uid: str) -> bytes:
        """Return the key with which requests to a repository's keeper are signed."""
        return derive_key(self.master, "keeper", repository_uid)


async def load(kube: Kube, *, namespace: str, owner: Object | None) -> Keys:
    """Return the keys of this installation; the first start makes the master key.

    It is the only Secret that the operator reads. With `owner`, the operator's Deployment, it
    goes when the operator is uninstalled; another installation then makes another key, and
    pods roll to it, since the names of their Secrets change with it.
    """
    found = await kube.get(SECRET, namespace, MASTER_SECRET)
    if found is None:
        try:
            found = await kube.create(SECRET, _manifest(namespace, owner))
        except AlreadyExists:
            found = await kube.get(SECRET, namespace, MASTER_SECRET)
    if found is None or _FIELD not in (found.get("data") or {}):
        raise ValueError(
            f"Secret {namespace}/{MASTER_SECRET} has no field {_FIELD!r}; delete it to get a new one"
        )
    return Keys(master=base64.b64decode(found["data"][_FIELD]))


def _manifest(namespace: str, owner: Object | None) -> Object:
    metadata: Object = {"name": MASTER_SECRET, "namespace": namespace}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    value = base64.b64encode(secrets.token_bytes(32)).decode()
    return {"metadata": metadata, "type": "Opaque", "immutable": True, "data": {_FIELD: value}}
