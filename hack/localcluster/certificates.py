"""The cluster's own authorities and certificates, made with the openssl command."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from localcluster.command import run
from localcluster.layout import BRIDGE_ADDRESS, CLUSTER_DOMAIN, Layout
from localcluster.nodes import NODES

DAYS = "3650"
AUTHORITIES = ("ca", "front-proxy-ca")
"""The second one signs the API server's calls to aggregated APIs: it must be able to sign no user."""


@dataclass(frozen=True)
class Certificate:
    """A certificate to issue.

    Attributes:
        name: Stem of its files.
        subject: Distinguished name in openssl's form.
        addresses: Subject alternative names in openssl's form; empty for a client.
        authority: Who signs it.
    """

    name: str
    subject: str
    addresses: tuple[str, ...] = ()
    authority: str = "ca"


API_SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
)
CERTIFICATES = (
    Certificate(
        "apiserver",
        "/CN=kube-apiserver",
        (
            *(f"DNS:{name}" for name in (*API_SERVER_NAMES, "localhost")),
            *(f"IP:{address}" for address in ("10.96.0.1", BRIDGE_ADDRESS, "127.0.0.1")),
        ),
    ),
    Certificate("apiserver-kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client"),
    Certificate("front-proxy-client", "/CN=front-proxy-client", authority="front-proxy-ca"),
    *(
        Certificate(
            node.name,
            f"/O=system:nodes/CN=system:node:{node.name}",
            (f"DNS:{node.name}", f"IP:{node.address}"),
        )
        for node in NODES
    ),
)


def issue_all(layout: Layout) -> None:
    """Make fresh authorities, all certificates and the key that signs service account tokens."""
    if shutil.which("openssl") is None:
        run(["openssl", "version"], remedy="Install the package openssl.")
    folder = layout.certificates
    folder.mkdir(mode=0o700, parents=True)
    for authority in AUTHORITIES:
        _request(folder, authority, f"/CN=localcluster-{authority}", extensions="authority")
    for certificate in CERTIFICATES:
        _issue(folder, certificate)
    run(["openssl", "genpkey", "-algorithm", "RSA", "-out", folder / "service-account.key"])
    run(
        [
            "openssl",
            "pkey",
            "-in",
            folder / "service-account.key",
            "-pubout",
            "-out",
            folder / "service-account.pub",
        ]
    )


def _issue(folder: Path, certificate: Certificate) -> None:
    _request(
        folder,
        certificate.name,
        certificate.subject,
        extensions="leaf",
        addresses=certificate.addresses,
        signer=(
            "-CA",
            folder / f"{certificate.authority}.crt",
            "-CAkey",
            folder / f"{certificate.authority}.key",
        ),
    )


def _request(
    folder: Path,
    name: str,
    subject: str,
    *,
    extensions: str,
    addresses: tuple[str, ...] = (),
    signer: tuple[str | Path, ...] = (),
) -> None:
    config = folder / f"{name}.cnf"
    config.write_text(_openssl_config(addresses))
    key = (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        folder / f"{name}.key",
    )
    target = ("-out", folder / f"{name}.crt", "-days", DAYS, "-subj", subject)
    run(["openssl", "req", "-x509", "-config", config, "-extensions", extensions, *key, *target, *signer])


def _openssl_config(addresses: tuple[str, ...]) -> str:
    # The host's own openssl.cnf is not read: its default extensions would come twice.
    return "\n".join(
        [
            "[req]",
            "distinguished_name = name",
            "prompt = no",
            "[name]",
            "[authority]",
            "basicConstraints = critical, CA:TRUE",
            "keyUsage = critical, keyCertSign, cRLSign, digitalSignature",
            "[leaf]",
            "basicConstraints = critical, CA:FALSE",
            "keyUsage = critical, digitalSignature, keyEncipherment",
            "extendedKeyUsage = serverAuth, clientAuth",
            *([f"subjectAltName = {', '.join(addresses)}"] if addresses else []),
            "",
        ],
    )
