"""Failures of the world that a reconcile expects, and that it is tried again after.

ClientError
├── KubeError            clients.objects
├── TritonError          clients.triton
└── KeeperCallError      clients.keeper
"""


class ClientError(Exception):
    """A call to Kubernetes, Triton or the keeper failed; its text is fit for a log or a status."""
