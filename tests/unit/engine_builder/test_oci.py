from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from engine_builder import oci
from engine_builder.contract import Reason
from engine_builder.credentials import Credentials
from engine_builder.errors import JobError

URI = "oci://registry.example/det:1"


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha512:" + "0" * 128,
        "sha256:" + "g" * 64,
        "sha256:" + "../" * 21 + "x",
        "sha256:" + "A" * 64,
    ],
)
def test_a_digest_that_is_none_never_becomes_a_file_name(digest: str) -> None:
    with pytest.raises(JobError) as caught:
        oci._sha256({"digest": digest}, URI)
    assert caught.value.reason is Reason.UNSAFE_SOURCE


def _logins(**entry: Any) -> Credentials:
    return Credentials({oci.LOGIN_KEY: json.dumps({"auths": {"registry.example": entry}})})


def test_a_docker_login_is_read_for_its_registry_alone() -> None:
    packed = base64.b64encode(b"reader:pass:word").decode()
    expected = ("reader", "pass:word")
    assert oci._login(_logins(auth=packed), "registry.example", URI) == expected
    found = _logins(username="reader", password="pass:word")
    assert oci._login(found, "registry.example", URI) == expected
    assert oci._login(_logins(auth=packed), "other.example", URI) is None


@pytest.mark.parametrize("text", ["no json", "[]", '{"auths": {"registry.example": {"auth": "%%%"}}}'])
def test_a_login_that_docker_did_not_write_is_denied_and_not_told(text: str) -> None:
    with pytest.raises(JobError) as caught:
        oci._login(Credentials({oci.LOGIN_KEY: text}), "registry.example", URI)
    assert caught.value.reason is Reason.ACCESS_DENIED
    assert "%%%" not in caught.value.message


def test_folders_that_all_files_share_are_left_out() -> None:
    layer = oci.Layer("sha256:0", 1, "", is_tar=False)
    named = {"models/det/model.onnx": layer, "models/det/weights/w.bin": layer}
    assert set(oci._without_common_folder(dict(named))) == {"model.onnx", "weights/w.bin"}
    beside = {**named, "README.md": layer}
    assert oci._without_common_folder(dict(beside)) == beside
