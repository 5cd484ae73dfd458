"""gs:// and az:// as far as the gate: their libraries ask the right host, and only where it is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.integration.sources.reading import Reader

from engine_builder.contract import Reason

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNT = {"AZURE_STORAGE_ACCOUNT_NAME": "models"}
KEY = {**ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": "aHVzaC1odXNoLWh1c2g="}


@pytest.mark.parametrize(
    ("uri", "secret", "host"),
    [
        ("gs://models/det/1/model.onnx", None, "storage.googleapis.com"),
        ("az://det/1/model.onnx", ACCOUNT, "models.blob.core.windows.net"),
        ("az://det/1/model.onnx", KEY, "models.blob.core.windows.net"),
    ],
)
def test_a_cloud_that_is_not_allowed_is_not_asked(
    tmp_path: Path, uri: str, secret: dict[str, str] | None, host: str
) -> None:
    report, said = Reader(tmp_path, ("models.example",)).read(uri, secret=secret)
    assert (report.reason, f"add {host} to spec.allowedHosts" in report.message) == (
        Reason.HOST_NOT_ALLOWED,
        True,
    )
    assert "aHVzaC1odXNoLWh1c2g=" not in said
