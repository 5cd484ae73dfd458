"""Real servers to read sources from, and the jobs that read them as processes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.integration.sources.servers import (
    S3,
    Certificate,
    Registry,
    WebServer,
    make_certificate,
    oci_registry,
    s3_gateway,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for this host, of an authority that nobody knows."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 gateway."""
    with s3_gateway(tmp_path_factory.mktemp("s3")) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Registry]:
    """An OCI registry."""
    with oci_registry(tmp_path_factory.mktemp("registry"), certificate) as running:
        yield running


@pytest.fixture
def web(certificate: Certificate) -> Iterator[WebServer]:
    """A web server with TLS."""
    server = WebServer(certificate)
    yield server
    server.stop()
