"""Users of the cluster's own parts, and their kubeconfigs."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from localcluster.layout import API_SERVER, Layout
from localcluster.nodes import NODES


@dataclass(frozen=True)
class User:
    """A user whom the API server knows by a token."""

    name: str
    groups: tuple[str, ...] = ()


ADMINISTRATOR = "admin"
COREDNS = "system:coredns"
USERS = {
    ADMINISTRATOR: User("admin", ("system:masters",)),
    "kube-controller-manager": User("system:kube-controller-manager"),
    "kube-scheduler": User("system:kube-scheduler"),
    "kube-proxy": User("system:kube-proxy"),
    "coredns": User(COREDNS),
    **{node.name: User(f"system:node:{node.name}", ("system:nodes",)) for node in NODES},
}


def new_tokens() -> dict[str, str]:
    """Make a token for each user."""
    return {key: secrets.token_urlsafe(32) for key in USERS}


def token_file(tokens: Mapping[str, str]) -> str:
    """Render the file of --token-auth-file."""
    rows = (f'{tokens[key]},{user.name},{user.name},"{",".join(user.groups)}"' for key, user in USERS.items())
    return "\n".join(rows) + "\n"


def kubeconfig(layout: Layout, token: str) -> str:
    """Render a kubeconfig that holds all it needs, so that it can be copied elsewhere."""
    authority = base64.b64encode((layout.certificates / "ca.crt").read_bytes()).decode()
    return f"""\
apiVersion: v1
kind: Config
clusters:
- name: localcluster
  cluster:
    server: {API_SERVER}
    certificate-authority-data: {authority}
users:
- name: localcluster
  user:
    token: {token}
contexts:
- name: localcluster
  context:
    cluster: localcluster
    user: localcluster
current-context: localcluster
"""


def write_all(layout: Layout) -> None:
    """Write the token file and every kubeconfig, readable by root alone."""
    tokens = new_tokens()
    _write_secret(layout, "tokens.csv", token_file(tokens))
    for key, token in tokens.items():
        _write_secret(layout, f"{key}.kubeconfig", kubeconfig(layout, token))
    layout.kubeconfig_of(ADMINISTRATOR).replace(layout.kubeconfig)


def _write_secret(layout: Layout, name: str, text: str) -> None:
    path = layout.config / name
    path.touch(mode=0o600)
    path.write_text(text)
