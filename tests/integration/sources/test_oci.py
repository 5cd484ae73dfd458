"""oci:// against a real registry: layers by their titles, tars, logins, digests."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.integration.sources.reading import Reader
from tests.integration.sources.servers import a_token, oci_registry
from tests.unit.engine_builder.models import a_model, saved, saved_with_external_data

from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.fetch import SingleFile
from engine_builder.progress import Progress
from engine_builder.remote import Access

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.sources.servers import Registry, WebServer

ONNX = "application/octet-stream"
TAR = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def reader(registry: Registry, tmp_path: Path) -> Reader:
    return Reader(tmp_path, (registry.name,))


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    return saved(a_model(), tmp_path / "m.onnx").read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and its external data in a folder below."""
    return saved_with_external_data(tmp_path / "detector", "weights/w.bin").parent


def _tar(folder: Path, *, mode: str = "w", name: str = "detector") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, arcname=name)
    return packed.getvalue()


@pytest.mark.parametrize("title", ["", "model.onnx", "detector.onnx"])
def test_a_single_layer_is_the_model(registry: Registry, reader: Reader, model: bytes, title: str) -> None:
    uri = registry.push("models/single", "1", (model, ONNX, title))
    report, _ = reader.read(uri, secret=registry.login())
    assert (report.reason, report.sha256) == (Reason.SUCCEEDED, hashlib.sha256(model).hexdigest())


def test_a_file_besides_the_model_is_the_one_of_its_kind_in_the_artefact(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    for key, value in registry.login().items():
        (tmp_path / "secret" / key).write_text(value)
    access = Access(allowed_hosts=(registry.name,), credentials=tmp_path / "secret")

    def copy(uri: str, into: str) -> str:
        file = SingleFile(uri, tmp_path, field="build.calibration", max_bytes=1000, access=access)
        return file.copy(tmp_path / into, require_space=lambda _: None, progress=Progress(quiet=True))

    uri = registry.push("data/one", "1", (b"numbers", ONNX, "c.npz"), (b"words", ONNX, "README.md"))
    assert copy(uri, "copy") == hashlib.sha256(b"numbers").hexdigest()
    assert (tmp_path / "copy").read_bytes() == b"numbers"
    assert not (tmp_path / ".scratch").exists()
    several = registry.push("data/two", "1", (b"1", ONNX, "a.npz"), (b"2", ONNX, "b.npz"))
    with pytest.raises(JobError, match=r"must hold one \.npz file, and holds several: a\.npz, b\.npz"):
        copy(several, "other")


def test_layers_keep_the_folders_of_their_titles(
    registry: Registry, reader: Reader, folder: Path, tmp_path: Path
) -> None:
    layers = [((folder / name).read_bytes(), ONNX, name) for name in ("model.onnx", "weights/w.bin")]
    uri = registry.push("models/layers", "1", *layers, (b"# read me", "text/markdown", "README.md"))
    report, _ = reader.read(uri, secret=registry.login(), into=tmp_path / "repository")
    assert report.reason is Reason.SUCCEEDED, report.message
    entry = tmp_path / "repository/store/onnxruntime-0123456789abcdef"
    assert (entry / "weights/w.bin").read_bytes() == layers[1][0]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_packed_folder_is_unpacked_and_nothing_of_it_stays(
    registry: Registry, reader: Reader, folder: Path, tmp_path: Path, mode: str
) -> None:
    kind = f"{TAR}+gzip" if mode == "w:gz" else TAR
    uri = registry.push("models/packed", mode[2:] or "tar", (_tar(folder, mode=mode), kind, "detector"))
    looked_up, _ = reader.read(uri, secret=registry.login())
    report, _ = reader.read(
        uri, secret=registry.login(), sha256=looked_up.sha256, into=tmp_path / "repository"
    )
    assert report.reason is Reason.SUCCEEDED, report.message
    entry = tmp_path / "repository/store/onnxruntime-0123456789abcdef"
    assert (entry / "weights/w.bin").read_bytes() == (folder / "weights/w.bin").read_bytes()
    assert not (entry / ".scratch").exists()
    assert list((tmp_path / "repository/.staging").iterdir()) == []


def test_an_artefact_by_its_digest_is_that_and_no_other(
    registry: Registry, reader: Reader, model: bytes
) -> None:
    registry.push("models/digest", "1", (model, ONNX, "model.onnx"))
    wrong = f"oci://{registry.name}/models/digest@sha256:{'0' * 64}"
    assert reader.refused(wrong, secret=registry.login())[0] is Reason.SOURCE_NOT_FOUND


def test_what_leads_out_of_the_artefact_is_refused(
    registry: Registry, reader: Reader, model: bytes, tmp_path: Path
) -> None:
    uri = registry.push("models/escape", "title", (model, ONNX, "../model.onnx"), (b"x", ONNX, "x"))
    assert reader.refused(uri, secret=registry.login())[0] is Reason.UNSAFE_SOURCE
    path = saved(a_model(), tmp_path / "bad/model.onnx").parent
    uri = registry.push("models/escape", "tar", (_tar(path, name="../bad"), TAR, ""))
    assert reader.refused(uri, secret=registry.login())[0] is Reason.UNSAFE_SOURCE


def test_links_in_a_tar_are_no_files(registry: Registry, reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/model.onnx").symlink_to("/etc/passwd")
    uri = registry.push("models/linked", "1", (_tar(tmp_path / "linked"), TAR, ""))
    assert reader.refused(uri, secret=registry.login())[0] is Reason.SOURCE_NOT_FOUND


def test_a_tar_that_swells_past_the_limit_is_refused(
    registry: Registry, reader: Reader, folder: Path
) -> None:
    (folder / "zeros.bin").write_bytes(bytes(32 << 20))
    packed = _tar(folder, mode="w:gz")
    assert len(packed) < 1 << 20
    uri = registry.push("models/swollen", "1", (packed, f"{TAR}+gzip", ""))
    reason, message = reader.refused(uri, secret=registry.login(), max_bytes=8 << 20)
    assert (reason, "maxSourceSize" in message) == (Reason.SOURCE_TOO_LARGE, True)


def test_a_wrong_login_is_denied_and_not_told(registry: Registry, reader: Reader, model: bytes) -> None:
    uri = registry.push("models/login", "1", (model, ONNX, "model.onnx"))
    report, said = reader.read(uri, secret=registry.login("wrong-and-secret"))
    assert report.reason is Reason.ACCESS_DENIED
    assert "wrong-and-secret" not in said + report.message
    nobody = {"ca.crt": registry.certificate.authority}
    assert reader.refused(uri, secret=nobody)[0] is Reason.ACCESS_DENIED


def test_username_and_password_are_a_login_too(registry: Registry, reader: Reader, model: bytes) -> None:
    uri = registry.push("models/basic", "1", (model, ONNX, "model.onnx"))
    secret = {
        "username": registry.user,
        "password": registry.password,
        "ca.crt": registry.certificate.authority,
    }
    assert reader.read(uri, secret=secret)[0].reason is Reason.SUCCEEDED


def test_a_token_is_got_where_the_registry_sends_for_it(
    registry: Registry, web: WebServer, reader: Reader, model: bytes
) -> None:
    registry.push("models/token", "1", (model, ONNX, "model.onnx"))
    login = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    answer = a_token(registry.certificate, "models/token")
    tokens = web.put("/token", answer, authorization=f"Basic {login}")
    with oci_registry(registry.directory, registry.certificate, tokens=tokens) as other:
        uri, hosts = f"oci://{other.name}/models/token:1", [other.name, web.allowed]
        report, said = reader.read(uri, secret=other.login(), hosts=hosts)
        assert report.reason is Reason.SUCCEEDED, report.message
        assert json.loads(answer)["token"] not in said
        assert reader.refused(uri, secret=other.login("wrong"), hosts=hosts)[0] is Reason.ACCESS_DENIED
        reason, message = reader.refused(uri, secret=other.login(), hosts=[other.name])
        assert (reason, f"add {web.allowed} to" in message) == (Reason.HOST_NOT_ALLOWED, True)


def test_what_is_not_there_is_named(registry: Registry, reader: Reader, folder: Path) -> None:
    registry.push("models/there", "1", (b"x", ONNX, "notes.txt"), (b"y", ONNX, "more.txt"))
    for uri in (f"oci://{registry.name}/models/there:2", f"oci://{registry.name}/models/nowhere:1"):
        reason, message = reader.refused(uri, secret=registry.login())
        assert (reason, uri in message) == (Reason.SOURCE_NOT_FOUND, True)
    reason, message = reader.refused(f"oci://{registry.name}/models/there:1", secret=registry.login())
    assert (reason, "holds no .onnx file" in message) == (Reason.SOURCE_NOT_FOUND, True)


def test_a_registry_that_is_not_allowed_is_not_asked(
    registry: Registry, reader: Reader, model: bytes
) -> None:
    uri = registry.push("models/hosts", "1", (model, ONNX, "model.onnx"))
    reason, message = reader.refused(uri, secret=registry.login(), hosts=["ghcr.io"])
    assert (reason, f"add {registry.name} to" in message) == (Reason.HOST_NOT_ALLOWED, True)
