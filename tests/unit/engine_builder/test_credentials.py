from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.cloud import Cloud, az_options, gs_options, s3_options
from engine_builder.contract import Reason
from engine_builder.credentials import Credentials
from engine_builder.errors import JobError
from engine_builder.remote import Interrupted

if TYPE_CHECKING:
    from pathlib import Path

URI = "az://models/det/1.onnx"


def test_a_secret_is_read_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026/token").write_text("hush\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "token").symlink_to("..data/token")
    assert Credentials.read(tmp_path, uri=URI).values == {"token": "hush"}


def test_without_a_secret_there_are_no_credentials(tmp_path: Path) -> None:
    assert Credentials.read(None, uri=URI).values == {}
    with pytest.raises(JobError, match="does not exist in this namespace, or is empty") as caught:
        Credentials.read(tmp_path, uri=URI)
    assert caught.value.reason is Reason.ACCESS_DENIED


def test_a_secret_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(JobError, match="must be text"):
        Credentials.read(tmp_path, uri=URI)


@given(st.lists(st.text("abcdef0123456789", min_size=6)), st.text())
def test_no_value_is_left_in_a_text(values: list[str], between: str) -> None:
    credentials = Credentials({str(number): value for number, value in enumerate(values)})
    hidden = credentials.hide(between + between.join(values))
    assert not any(value in hidden for value in values)
    assert not any(value in repr(credentials) for value in values)


def test_s3_is_asked_with_the_keys_of_the_secret_or_as_nobody() -> None:
    secret = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_SESSION_TOKEN": "session",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_REGION": "eu-central-1",
    }
    found = s3_options(Credentials(secret), bundle="/ca")
    assert (found["anon"], found["key"], found["secret"], found["token"]) == (False, "key", "hush", "session")
    assert found["endpoint_url"] == "http://minio:9000"
    assert found["client_kwargs"] == {"region_name": "eu-central-1", "verify": "/ca"}
    assert s3_options(Credentials(), bundle="/ca")["anon"] is True


def test_gs_is_asked_with_a_service_account_or_as_nobody() -> None:
    assert gs_options(Credentials(), uri=URI) == {"token": "anon"}
    key = Credentials({"GOOGLE_APPLICATION_CREDENTIALS": '{"type": "service_account"}'})
    assert gs_options(key, uri=URI) == {"token": {"type": "service_account"}}
    with pytest.raises(JobError, match="in JSON"):
        gs_options(Credentials({"GOOGLE_APPLICATION_CREDENTIALS": "/etc/key.json"}), uri=URI)


def test_az_needs_an_account() -> None:
    with pytest.raises(JobError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        az_options(Credentials(), uri=URI)
    account = {"AZURE_STORAGE_ACCOUNT_NAME": "store"}
    assert az_options(Credentials(account), uri=URI)["anon"] is True
    found = az_options(Credentials({**account, "AZURE_STORAGE_SAS_TOKEN": "sig"}), uri=URI)
    assert (found["anon"], found["sas_token"]) == (False, "sig")
    whole = Credentials({"AZURE_STORAGE_CONNECTION_STRING": "AccountName=store"})
    assert az_options(whole, uri=URI) == {"connection_string": "AccountName=store"}


def _azure(name: str, status: int) -> Exception:
    import azure.core.exceptions

    error: Exception = getattr(azure.core.exceptions, name)("said")
    error.status_code = status  # type: ignore[attr-defined]
    return error


def _google(status: int) -> Exception:
    from gcsfs.retry import HttpError

    return HttpError({"code": status, "message": "said"})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (_azure("ResourceNotFoundError", 404), Reason.SOURCE_NOT_FOUND),
        (_azure("ClientAuthenticationError", 403), Reason.ACCESS_DENIED),
        (_azure("HttpResponseError", 403), Reason.ACCESS_DENIED),
        (_azure("ResourceModifiedError", 412), Reason.SOURCE_CHANGED),
        (_azure("HttpResponseError", 503), None),
        (_azure("HttpResponseError", 429), None),
        (_azure("ServiceRequestError", 0), None),
        (_google(401), Reason.ACCESS_DENIED),
        (_google(404), Reason.SOURCE_NOT_FOUND),
        (_google(412), Reason.SOURCE_CHANGED),
        (_google(503), None),
        (_google(400), Reason.SOURCE_NOT_FOUND),
        (FileNotFoundError("x"), Reason.SOURCE_NOT_FOUND),
        (PermissionError("x"), Reason.ACCESS_DENIED),
        (TimeoutError(), None),
    ],
)
def test_what_the_stores_libraries_say_becomes_a_reason_or_another_attempt(
    error: Any, reason: Reason | None
) -> None:
    found = Cloud(None, bucket="models", uri=URI)._translated(error, "det/1.onnx")
    if reason is None:
        assert isinstance(found, Interrupted)
    else:
        assert isinstance(found, JobError)
        assert (found.reason, URI in found.message) == (reason, True)
