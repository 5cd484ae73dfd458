"""What integration tests share."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.apiserver import ApiServer, Binaries, running_api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server with our CRDs."""
    directory = tmp_path_factory.mktemp("api-server")
    with running_api_server(directory, Binaries.build(REPOSITORY)) as server:
        applied = server.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        assert applied.returncode == 0, applied.stderr
        waited = server.kubectl(
            "wait", "--for=condition=Established", "--timeout=30s", "-f", str(REPOSITORY / "crds")
        )
        assert waited.returncode == 0, waited.stderr
        yield server


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    """A namespace that no other test uses."""
    name = f"test-{secrets.token_hex(5)}"
    made = api_server.kubectl("create", "namespace", name)
    assert made.returncode == 0, made.stderr
    return name
