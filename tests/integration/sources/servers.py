"""Servers that sources come from, on loopback: an S3 gateway, an OCI registry, a web server of our own."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import secrets
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any, ClassVar

import botocore.session
import jwt
from tests.integration.eventually import eventually
from tests.integration.processes import binary, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"
ISSUER, SERVICE = "tests", "models"
_PASSWORD = "open sesame"
_HASHED = "$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy"
"""The same by bcrypt, the only form that the registry reads."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate of an authority of its own, for this host."""

    certificate: Path
    key: Path

    @property
    def authority(self) -> str:
        """Return what a client must trust, in PEM."""
        return self.certificate.read_text()

    def for_clients(self) -> ssl.SSLContext:
        """Return a context that trusts it."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(directory: Path) -> Certificate:
    """Make a certificate for 127.0.0.1 and localhost."""
    made = Certificate(directory / "server.crt", directory / "server.key")
    command = [
        *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-days", "2", "-subj", "/CN=tests", "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"),
        *("-keyout", str(made.key), "-out", str(made.certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return made


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclasses.dataclass(frozen=True)
class S3:
    """A running S3 gateway over a directory: a folder in it is a bucket, a file an object."""

    port: int
    directory: Path
    secret: dict[str, str]
    """What a Secret for it holds."""

    @property
    def allowed(self) -> str:
        """Return the line of an allow list for it."""
        return f"{HOST}:{self.port}"

    def bucket(self, name: str) -> Path:
        """Make a bucket and return its folder."""
        path = self.directory / name
        if not path.exists():
            self._client().create_bucket(Bucket=name)
        return path

    def put(self, bucket: str, key: str, content: bytes) -> str:
        """Store an object, and return its URI."""
        self.bucket(bucket)
        self._client().put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{key}"

    def _client(self) -> Any:
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.secret["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.secret["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.secret["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            verify=False,
        )


@contextlib.contextmanager
def s3_gateway(directory: Path) -> Iterator[S3]:
    """Run versitygw over a directory."""
    port, data = free_port(), directory / "buckets"
    data.mkdir()
    keys = {"ROOT_ACCESS_KEY": f"user-{secrets.token_hex(4)}", "ROOT_SECRET_KEY": secrets.token_hex(16)}
    secret = {
        "AWS_ACCESS_KEY_ID": keys["ROOT_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": keys["ROOT_SECRET_KEY"],
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
    }
    command = [binary("versitygw"), "--port", f"{HOST}:{port}", "posix", str(data)]
    with running(command, log=directory / "log", environment=keys):
        _wait_listening(port)
        yield S3(port, data, secret)


@dataclasses.dataclass(frozen=True)
class Registry:
    """A running OCI registry with TLS and a login."""

    port: int
    certificate: Certificate
    directory: Path
    user: str
    password: str

    @property
    def name(self) -> str:
        """Return its name in references, which is also the line of an allow list."""
        return f"{HOST}:{self.port}"

    def push(self, repository: str, tag: str, *layers: tuple[bytes, str, str]) -> str:
        """Push an artefact of layers (content, media type, title or ""), and return its URI."""
        described = []
        for content, kind, title in layers:
            digest = self._push_blob(repository, content)
            entry: dict[str, Any] = {"mediaType": kind, "digest": digest, "size": len(content)}
            if title:
                entry["annotations"] = {"org.opencontainers.image.title": title}
            described.append(entry)
        empty = self._push_blob(repository, b"{}")
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": described,
        }
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", _json(manifest), kind)
        return f"oci://{self.name}/{repository}:{tag}"

    def _push_blob(self, repository: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = self._send("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        path = place.partition(self.name)[2] or place
        separator = "&" if "?" in path else "?"
        self._send("PUT", f"{path}{separator}digest={digest}", content, "application/octet-stream")
        return digest

    def _send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": kind}
        request = urllib.request.Request(
            f"https://{self.name}{path}", data=body, headers=headers, method=method
        )
        with urllib.request.urlopen(  # noqa: S310
            request, context=self.certificate.for_clients(), timeout=30
        ) as answer:
            return answer

    def login(self, password: str | None = None) -> dict[str, str]:
        """Return what a Secret for it holds."""
        text = f"{self.user}:{self.password if password is None else password}"
        entry = {"auth": base64.b64encode(text.encode()).decode()}
        config = _json({"auths": {self.name: entry}}).decode()
        return {".dockerconfigjson": config, "ca.crt": self.certificate.authority}


@contextlib.contextmanager
def oci_registry(directory: Path, certificate: Certificate, *, tokens: str = "") -> Iterator[Registry]:
    """Run distribution's registry over a directory; with `tokens` it wants one from that URL."""
    registry = Registry(free_port(), certificate, directory, user="reader", password=_PASSWORD)
    (directory / "htpasswd").write_text(f"{registry.user}:{_HASHED}\n")
    auth = f"htpasswd: {{realm: tests, path: {directory / 'htpasswd'}}}"
    if tokens:
        keys = f"issuer: {ISSUER}, rootcertbundle: {certificate.certificate}"
        auth = f"token: {{realm: '{tokens}', service: {SERVICE}, {keys}}}"
    (directory / f"config-{registry.port}.yml").write_text(
        "\n".join(
            [
                "version: 0.1",
                "log: {accesslog: {disabled: true}, level: warn}",
                f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}}}",
                f"auth: {{{auth}}}",
                "http:",
                f"  addr: {registry.name}",
                f"  tls: {{certificate: {certificate.certificate}, key: {certificate.key}}}",
            ]
        )
    )
    command = [binary("registry"), "serve", str(directory / f"config-{registry.port}.yml")]
    with running(command, log=directory / "log"):
        _wait_listening(registry.port)
        yield registry


def a_token(certificate: Certificate, repository: str) -> bytes:
    """Return the answer of a token service: leave to pull from a repository."""
    der = ssl.PEM_cert_to_DER_cert(certificate.authority)
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": "reader",
        "aud": SERVICE,
        "nbf": now - 60,
        "iat": now,
        "exp": now + 600,
        "access": [{"type": "repository", "name": repository, "actions": ["pull"]}],
    }
    header = {"x5c": [base64.b64encode(der).decode()]}
    return _json(
        {"token": jwt.encode(claims, certificate.key.read_text(), algorithm="ES256", headers=header)}
    )


@dataclasses.dataclass
class Served:
    """A file as the web server has it, and how it misbehaves."""

    content: bytes
    etag: str = '"1"'
    breaks: list[int] = dataclasses.field(default_factory=list)
    """After so many bytes of an answer the connection breaks: one entry for each answer."""
    ranges: bool = True
    length: int | None = None
    """What Content-Length claims, where it is not the truth."""
    statuses: list[int] = dataclasses.field(default_factory=list)
    """Statuses of the next answers, before the file comes."""
    redirect: str = ""
    authorization: str = ""
    """What the header must be."""
    replaced_by: bytes | None = None
    """What lies there after the first answer."""


class WebServer:
    """A web server with TLS, whose files misbehave as tests say."""

    def __init__(self, certificate: Certificate) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Path and headers of every request, header names in lower case."""
        owner = self

        class Handler(_Handler):
            server_owner = owner

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.certificate = certificate
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def allowed(self) -> str:
        """Return the line of an allow list for it."""
        return f"{HOST}:{self.port}"

    def put(self, path: str, content: bytes, **behaviour: Any) -> str:
        """Serve a file, and return its URL."""
        self.files[path] = Served(content, **behaviour)
        return f"https://{self.allowed}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_owner: ClassVar[WebServer]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server_owner.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        served = self.server_owner.files.get(path)
        if served is None:
            self._say(404)
        elif served.redirect:
            self._say(302, Location=served.redirect)
        elif served.statuses:
            self._say(served.statuses.pop(0))
        elif served.authorization not in {"", self.headers.get("Authorization", "")}:
            self._say(401)
        else:
            self._send(served)

    def _say(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, served: Served) -> None:
        start = self._start(served)
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted != served.etag:
            self._say(412)
            return
        body, total = served.content[start:], len(served.content)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if served.etag:
            self.send_header("ETag", served.etag)
        if served.length != -1:
            self.send_header("Content-Length", str(served.length or len(body)))
        self.end_headers()
        broken = served.breaks.pop(0) if served.breaks else None
        if served.replaced_by is not None:
            served.content, served.replaced_by, served.etag = served.replaced_by, None, '"2"'
        self.wfile.write(body[:broken])
        self.wfile.flush()
        if broken is not None or served.length is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _start(self, served: Served) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found and served.ranges else 0


def _wait_listening(port: int) -> None:
    def listening() -> None:
        with socket.create_connection((HOST, port), timeout=1):
            pass

    def check() -> None:
        try:
            listening()
        except OSError as error:
            raise AssertionError(f"nobody listens on {port}") from error

    eventually(check, within=30)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
