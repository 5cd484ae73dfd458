"""https:// against a real server with TLS that misbehaves: redirects, breaks, replacements, wrong lengths."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import pytest
from tests.integration.sources.reading import Reader
from tests.integration.sources.servers import WebServer
from tests.unit.engine_builder.models import a_model, saved, saved_with_external_data

from engine_builder.contract import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.sources.servers import Certificate


@pytest.fixture
def reader(web: WebServer, tmp_path: Path) -> Reader:
    return Reader(tmp_path, (web.allowed,))


@pytest.fixture
def trusted(web: WebServer) -> dict[str, str]:
    """Return a Secret with the server's authority alone."""
    return {"ca.crt": web.certificate.authority}


@pytest.fixture
def other(certificate: Certificate) -> Iterator[WebServer]:
    server = WebServer(certificate)
    yield server
    server.stop()


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    return saved(a_model(), tmp_path / "m.onnx").read_bytes()


def _large(web: WebServer, tmp_path: Path, *, megabytes: int = 3, **behaviour: object) -> tuple[str, str]:
    """Serve a model with so much external data; return its URL and what its digest is."""
    path = saved_with_external_data(tmp_path / "large")
    weights = path.with_name("weights.bin")
    weights.write_bytes(weights.read_bytes() + bytes(range(256)) * 4096 * megabytes)
    uri = web.put("/det/1/model.onnx", path.read_bytes())
    web.put("/det/1/weights.bin", weights.read_bytes(), **behaviour)
    lines = sorted(
        f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in (path, weights)
    )
    return uri, hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_model_with_its_external_data_comes_over_https(
    web: WebServer, reader: Reader, trusted: dict[str, str], tmp_path: Path
) -> None:
    uri, digest = _large(web, tmp_path)
    report, said = reader.read(uri, secret=trusted, sha256=digest, into=tmp_path / "repository")
    assert (report.reason, report.sha256) == (Reason.SUCCEEDED, digest)
    assert "weights.bin: 3.0Mi of 3.0Mi read" in said
    entry = tmp_path / "repository/store/onnxruntime-0123456789abcdef"
    assert (entry / "weights.bin").read_bytes() == web.files["/det/1/weights.bin"].content
    assert sorted(path.name for path in entry.iterdir()) == [
        *("MANIFEST", "model.onnx", "reference.npz", "report.json", "weights.bin")
    ]
    found, _ = reader.read(uri, secret=trusted)
    assert (found.sha256, found.size_bytes) == (digest, sum(len(f.content) for f in web.files.values()))


def test_a_transfer_that_breaks_goes_on_where_it_broke(
    web: WebServer, reader: Reader, trusted: dict[str, str], tmp_path: Path
) -> None:
    uri, digest = _large(web, tmp_path, breaks=[1 << 20, 1 << 20])
    report, _ = reader.read(uri, secret=trusted)
    assert (report.reason, report.sha256) == (Reason.SUCCEEDED, digest)
    resumed = [headers for path, headers in web.asked if path.endswith("weights.bin") and "range" in headers]
    assert len(resumed) == 2
    assert {headers["if-match"] for headers in resumed} == {'"1"'}
    assert [int(headers["range"].removeprefix("bytes=")[:-1]) for headers in resumed] == sorted(
        int(headers["range"].removeprefix("bytes=")[:-1]) for headers in resumed
    )


def test_a_file_that_is_replaced_in_the_middle_is_not_put_together_from_both(
    web: WebServer, reader: Reader, trusted: dict[str, str], tmp_path: Path
) -> None:
    uri, _ = _large(web, tmp_path, breaks=[1 << 20], replaced_by=b"x" * (3 << 20))
    reason, message = reader.refused(uri, secret=trusted)
    assert reason is Reason.SOURCE_CHANGED
    assert "weights.bin" in message


def test_a_break_without_ranges_is_read_again_from_the_beginning_by_the_next_attempt(
    web: WebServer, reader: Reader, trusted: dict[str, str], tmp_path: Path
) -> None:
    uri, digest = _large(web, tmp_path, breaks=[1 << 20], ranges=False)
    reason, message = reader.refused(uri, secret=trusted)
    assert reason is Reason.SOURCE_UNREACHABLE
    assert "can't go on from there" in message
    assert reader.read(uri, secret=trusted)[0].sha256 == digest


def test_a_length_that_is_a_lie_ends_after_bounded_attempts(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    uri = web.put("/m.onnx", model, length=len(model) + 100)
    reason, message = reader.refused(uri, secret=trusted)
    assert reason in {Reason.SOURCE_UNREACHABLE, Reason.SOURCE_CHANGED}
    assert uri in message
    assert len(web.asked) <= 5


def test_a_file_without_a_length_is_refused(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    reason, message = reader.refused(web.put("/m.onnx", model, length=-1), secret=trusted)
    assert (reason, "Content-Length" in message) == (Reason.UNSAFE_SOURCE, True)


def test_a_file_past_the_limit_is_refused_before_it_is_read(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    uri = web.put("/m.onnx", model)
    assert reader.refused(uri, secret=trusted, max_bytes=len(model) - 1)[0] is Reason.SOURCE_TOO_LARGE
    assert reader.read(uri, secret=trusted, max_bytes=len(model))[0].reason is Reason.SUCCEEDED


def test_a_wrong_digest_is_told_with_both(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes, tmp_path: Path
) -> None:
    uri = web.put("/m.onnx", model)
    reason, message = reader.refused(uri, secret=trusted, sha256="0" * 64, into=tmp_path / "repository")
    assert reason is Reason.DIGEST_MISMATCH
    assert hashlib.sha256(model).hexdigest() in message


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_what_passes_is_asked_again(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes, status: int
) -> None:
    uri = web.put("/m.onnx", model, statuses=[status, status])
    assert reader.read(uri, secret=trusted)[0].reason is Reason.SUCCEEDED
    assert len(web.asked) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410, 400])
def test_what_does_not_pass_is_told_at_once(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes, status: int
) -> None:
    reason = Reason.ACCESS_DENIED if status in {401, 403} else Reason.SOURCE_NOT_FOUND
    uri = web.put("/m.onnx", model, statuses=[status])
    found, message = reader.refused(uri, secret=trusted)
    assert (found, str(status) in message, uri in message) == (reason, True, True)
    assert len(web.asked) == 1


def test_a_server_that_stays_away_ends_after_bounded_attempts(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    uri = web.put("/m.onnx", model, statuses=[503] * 99)
    reason, message = reader.refused(uri, secret=trusted)
    assert (reason, "4 attempts" in message) == (Reason.SOURCE_UNREACHABLE, True)
    assert len(web.asked) == 4
    web.stop()
    assert reader.refused(uri, secret=trusted)[0] is Reason.SOURCE_UNREACHABLE


def test_a_certificate_of_an_unknown_authority_is_refused(
    web: WebServer, reader: Reader, model: bytes
) -> None:
    reason, message = reader.refused(web.put("/m.onnx", model))
    assert (reason, "ca.crt" in message) == (Reason.SOURCE_UNREACHABLE, True)
    assert web.asked == []


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_credentials_are_sent_and_never_told(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes, kind: str
) -> None:
    secrets = {
        "bearer": ({"token": "hush-hush"}, "Bearer hush-hush"),
        "basic": ({"username": "reader", "password": "hush-hush"}, "Basic cmVhZGVyOmh1c2gtaHVzaA=="),
    }
    secret, header = secrets[kind]
    uri = web.put("/m.onnx", model, authorization=header)
    report, said = reader.read(uri, secret={**trusted, **secret})
    assert report.reason is Reason.SUCCEEDED
    assert "hush" not in said
    reason, message = reader.refused(uri, secret={**trusted, **dict.fromkeys(secret, "wrong")})
    assert (reason, "secretName" in message) == (Reason.ACCESS_DENIED, True)


def test_a_signed_url_works_and_its_signature_is_not_told(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    uri = web.put("/m.onnx", model) + "?sig=hush-hush"
    report, said = reader.read(uri, secret=trusted)
    assert report.reason is Reason.SUCCEEDED
    assert web.asked[0][0] == "/m.onnx?sig=hush-hush"
    web.files["/m.onnx"].statuses = [403]
    refused, more = reader.read(uri, secret=trusted)
    assert refused.reason is Reason.ACCESS_DENIED
    assert "hush" not in said + more + refused.message


def test_a_secret_that_is_not_there_is_told(web: WebServer, reader: Reader, model: bytes) -> None:
    reason, message = reader.refused(web.put("/m.onnx", model), secret={})
    assert (reason, "does not exist" in message) == (Reason.ACCESS_DENIED, True)


# Where a redirect may lead.


def test_a_redirect_to_an_allowed_host_is_followed_without_the_credentials(
    web: WebServer, other: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    there = other.put("/there.onnx", model)
    uri = web.put("/m.onnx", b"", redirect=there)
    report, _ = reader.read(uri, secret={**trusted, "token": "hush-hush"}, hosts=[web.allowed, other.allowed])
    assert report.reason is Reason.SUCCEEDED
    assert "authorization" in web.asked[0][1]
    assert "authorization" not in other.asked[0][1]


def test_a_redirect_to_a_host_that_is_not_allowed_leads_nowhere(
    web: WebServer, other: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    uri = web.put("/m.onnx", b"", redirect=other.put("/there.onnx", model))
    reason, message = reader.refused(uri, secret=trusted)
    assert (reason, f"add {other.allowed} to spec.allowedHosts" in message) == (Reason.HOST_NOT_ALLOWED, True)
    assert other.asked == []


@pytest.mark.parametrize(
    "target",
    [
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::1]/x",
        "https://0x7f000001/x",
        "https://2130706433/x",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
    ],
)
def test_a_redirect_to_what_is_forbidden_leads_nowhere(
    web: WebServer, reader: Reader, trusted: dict[str, str], target: str
) -> None:
    began = time.monotonic()
    reason, _ = reader.refused(web.put("/m.onnx", b"", redirect=target), secret=trusted)
    assert reason is Reason.HOST_NOT_ALLOWED
    assert time.monotonic() - began < 15
    assert len(web.asked) == 1


def test_a_name_that_resolves_to_loopback_is_refused_even_when_it_is_allowed(
    web: WebServer, reader: Reader, trusted: dict[str, str], model: bytes
) -> None:
    uri = web.put("/m.onnx", model).replace("127.0.0.1", "localhost")
    reason, message = reader.refused(uri, secret=trusted, hosts=[f"localhost:{web.port}"])
    assert (reason, "resolves to" in message) == (Reason.HOST_NOT_ALLOWED, True)
    assert web.asked == []


def test_redirects_without_end_are_left(web: WebServer, reader: Reader, trusted: dict[str, str]) -> None:
    uri = web.put("/m.onnx", b"", redirect="/m.onnx")
    assert reader.refused(uri, secret=trusted)[0] is Reason.SOURCE_NOT_FOUND
    assert len(web.asked) == 6
