"""s3:// against a real gateway, with wrong keys, replaced objects and folders."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import pytest
from tests.integration.sources.reading import Reader
from tests.unit.engine_builder.models import a_model, saved, saved_with_external_data

from engine_builder.contract import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.sources.servers import S3


@pytest.fixture
def reader(s3: S3, tmp_path: Path) -> Reader:
    return Reader(tmp_path, (s3.allowed,))


@pytest.fixture
def bucket() -> str:
    return f"models-{secrets.token_hex(4)}"


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    return saved(a_model(), tmp_path / "m.onnx").read_bytes()


def test_an_object_and_its_folder_are_the_same_source(
    s3: S3, reader: Reader, bucket: str, model: bytes
) -> None:
    uri = s3.put(bucket, "det/1/model.onnx", model)
    digest = hashlib.sha256(model).hexdigest()
    for each in (uri, f"s3://{bucket}/det/1", f"s3://{bucket}/det/1/"):
        report, _ = reader.read(each, secret=s3.secret)
        assert (report.reason, report.sha256) == (Reason.SUCCEEDED, digest), report.message


def test_a_large_model_comes_with_its_external_data(
    s3: S3, reader: Reader, bucket: str, tmp_path: Path
) -> None:
    path = saved_with_external_data(tmp_path / "large", "weights/w 1.bin")
    weights = (path.parent / "weights/w 1.bin").read_bytes() + secrets.token_bytes(40 << 20)
    s3.put(bucket, "det/1/model.onnx", path.read_bytes())
    s3.put(bucket, "det/1/weights/w 1.bin", weights)
    report, said = reader.read(f"s3://{bucket}/det/1", secret=s3.secret, into=tmp_path / "repository")
    assert report.reason is Reason.SUCCEEDED, report.message
    assert "w 1.bin: 40.0Mi of 40.0Mi read" in said
    entry = tmp_path / "repository/store/onnxruntime-0123456789abcdef"
    assert (entry / "weights/w 1.bin").read_bytes() == weights
    assert not (entry / ".scratch").exists()


def test_what_is_not_there_is_named(s3: S3, reader: Reader, bucket: str, model: bytes) -> None:
    s3.put(bucket, "det/1/model.onnx", model)
    for uri in (f"s3://{bucket}/det/2/model.onnx", f"s3://{bucket}x/det/1/model.onnx"):
        reason, message = reader.refused(uri, secret=s3.secret)
        assert (reason, uri in message) == (Reason.SOURCE_NOT_FOUND, True)
    s3.put(bucket, "several/a.onnx", model)
    s3.put(bucket, "several/b.onnx", model)
    assert "a.onnx, b.onnx" in reader.refused(f"s3://{bucket}/several", secret=s3.secret)[1]


@pytest.mark.parametrize("key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_denied_and_no_secret_told(
    s3: S3, reader: Reader, bucket: str, model: bytes, key: str
) -> None:
    uri = s3.put(bucket, "m.onnx", model)
    report, said = reader.read(uri, secret={**s3.secret, key: "wrong-and-secret"})
    assert (report.reason, "secretName" in report.message) == (Reason.ACCESS_DENIED, True)
    for text in (report.message, said):
        assert "wrong-and-secret" not in text
        assert s3.secret["AWS_SECRET_ACCESS_KEY"] not in text


def test_nobody_is_asked_who_we_are_where_there_are_no_keys(
    s3: S3, reader: Reader, bucket: str, model: bytes
) -> None:
    uri = s3.put(bucket, "m.onnx", model)
    secret = {"AWS_ENDPOINT_URL": s3.secret["AWS_ENDPOINT_URL"]}
    assert reader.refused(uri, secret=secret)[0] is Reason.ACCESS_DENIED


def test_an_endpoint_that_is_not_allowed_is_not_asked(
    s3: S3, reader: Reader, bucket: str, model: bytes
) -> None:
    uri = s3.put(bucket, "m.onnx", model)
    reason, message = reader.refused(uri, secret=s3.secret, hosts=["models.example"])
    assert (reason, f"add {s3.allowed} to" in message) == (Reason.HOST_NOT_ALLOWED, True)
    reason, message = reader.refused(uri, secret={k: v for k, v in s3.secret.items() if "KEY" in k})
    assert (reason, "amazonaws.com" in message) == (Reason.HOST_NOT_ALLOWED, True)


def test_an_object_past_the_limit_is_refused(s3: S3, reader: Reader, bucket: str, model: bytes) -> None:
    uri = s3.put(bucket, "m.onnx", model)
    reason, _ = reader.refused(uri, secret=s3.secret, max_bytes=len(model) - 1)
    assert reason is Reason.SOURCE_TOO_LARGE


def test_another_content_than_the_digest_says_is_refused(
    s3: S3, reader: Reader, bucket: str, model: bytes, tmp_path: Path
) -> None:
    uri = s3.put(bucket, "m.onnx", model)
    reason, _ = reader.refused(uri, secret=s3.secret, sha256="0" * 64, into=tmp_path / "repository")
    assert reason is Reason.DIGEST_MISMATCH
    assert list((tmp_path / "repository/.staging").iterdir()) == []


def test_an_object_that_is_replaced_in_the_middle_is_noticed(s3: S3, bucket: str) -> None:
    """Read a block, replace the object, read on: in this process, as nothing else can stop in between."""
    script = f"""
from engine_builder.cloud import BLOCK, open_store
from engine_builder.credentials import Credentials, trust
from engine_builder.errors import JobError
import botocore.session

secret = {s3.secret!r}
uri = "s3://{bucket}/w.bin"
client = botocore.session.get_session().create_client(
    "s3", endpoint_url=secret["AWS_ENDPOINT_URL"], aws_access_key_id=secret["AWS_ACCESS_KEY_ID"],
    aws_secret_access_key=secret["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
credentials = Credentials(secret)
store = open_store(uri, credentials=credentials, bundle=trust(credentials))
found = store.find("w.bin")
pieces = store.read("w.bin", found, 0)
assert len(next(pieces)) == BLOCK
client.put_object(Bucket="{bucket}", Key="w.bin", Body=b"y" * found.size)
try:
    next(pieces)
except JobError as error:
    print(error.reason.value)
"""
    import subprocess
    import sys

    s3.put(bucket, "w.bin", b"x" * (20 << 20))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == Reason.SOURCE_CHANGED.value, done.stderr
