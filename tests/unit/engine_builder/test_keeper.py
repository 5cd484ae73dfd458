from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.engine_builder.models import ENGINE, a_manifest, an_engine, everything

from engine_builder import files, keeper, tokens, volume
from engine_builder.api import MOST_BODY_BYTES, KeeperServer
from engine_builder.contract import (
    CheckRequest,
    KeeperError,
    Snapshot,
    SweepRequest,
    SweepResult,
    TreeManifest,
    TreeState,
    from_json,
    to_json,
)
from engine_builder.keeper import Keeper
from engine_builder.volume import Layout, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = b"k" * 32
OURS = Owner("cluster-1", "team", "claim-1")
TREE = "/v1/trees/a10/26.07"
MANIFEST = a_manifest(m=('backend: "onnxruntime"', {"1": ENGINE}))


def _a_check(samples: str) -> CheckRequest:
    return CheckRequest("127.0.0.1:1", "m", "1", ENGINE, 0.9, samples=samples)


class Client:
    """The operator's side: signs and sends."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, method: str, path: str, value: Any = None, *, key: bytes = SECRET) -> tuple[int, bytes]:
        body = b"" if value is None else to_json(value).encode()
        token = tokens.sign_request(key, method=method, path=path, body=body)
        return self.send(method, path, body, Authorization=f"Bearer {token}")

    def refused(self, method: str, path: str, value: Any = None, *, key: bytes = SECRET) -> tuple[int, str]:
        status, body = self.call(method, path, value, key=key)
        return status, from_json(KeeperError, body).reason

    def ready(self) -> str:
        status, body = self.send("GET", "/readyz")
        return "" if status == 200 else from_json(KeeperError, body).reason

    def wait_ready(self, reason: str = "") -> None:
        deadline = time.monotonic() + 10
        while self.ready() != reason:
            assert time.monotonic() < deadline, f"still {self.ready()!r}"
            time.sleep(0.01)


@contextmanager
def serving(root: Path, owner: Owner = OURS) -> Iterator[Client]:
    """Run a real keeper on a port of the loopback."""
    service = Keeper(root, owner)
    with KeeperServer(("127.0.0.1", 0), keeper=service, key=SECRET) as server:
        threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}),
            threading.Thread(target=service.start),
        ]
        for thread in threads:
            thread.start()
        try:
            yield Client(server.server_address[1])
        finally:
            server.shutdown()
            service.stop()
            for thread in threads:
                thread.join()


@pytest.fixture
def client(layout: Layout) -> Iterator[Client]:
    an_engine(layout)
    with serving(layout.root) as found:
        found.wait_ready()
        yield found


def test_a_tree_is_written_read_swept_and_seen_in_the_snapshot(client: Client, layout: Layout) -> None:
    status, body = client.call("PUT", TREE, MANIFEST)
    state = from_json(TreeState, body)
    assert status == 200
    assert state == TreeState("a10", "26.07", MANIFEST.revision, {"m": {"1": ENGINE}})
    assert from_json(TreeState, client.call("GET", TREE)[1]) == state
    assert (layout.servers / "a10/26.07/m/1/model.onnx").read_bytes() == b"model"

    snapshot = from_json(Snapshot, client.call("GET", "/v1/snapshot")[1])
    assert snapshot.trees == (state,)
    assert set(snapshot.engines) == {ENGINE}
    assert snapshot.volume.links
    assert snapshot.volume.bytes_free > 0

    kept = client.call("POST", "/v1/sweep", SweepRequest((), ("a10/26.07",), ()))[1]
    assert from_json(SweepResult, kept).engines == ()
    swept = client.call("POST", "/v1/sweep", SweepRequest((), (), ()))[1]
    assert from_json(SweepResult, swept) == SweepResult((ENGINE,), ("a10/26.07",), ())


def test_the_snapshot_tells_how_far_builds_are(client: Client, layout: Layout) -> None:
    for uid, told in (("a", "42\n"), ("b", None), ("c", "soon")):
        (layout.staging / uid).mkdir()
        if told is not None:
            (layout.staging / uid / "progress").write_text(told)
    snapshot = from_json(Snapshot, client.call("GET", "/v1/snapshot")[1])
    assert set(snapshot.staging) == {"a", "b", "c"}
    assert snapshot.progress == {"a": 42}


def test_an_older_keeper_says_nothing_of_progress() -> None:
    volume = '{"bytes_free":1,"bytes_total":2,"fsync":true,"links":true,"rename":true}'
    older = f'{{"engines":{{}},"staging":["a"],"trees":[],"volume":{volume}}}'
    assert from_json(Snapshot, older).progress == {}


def test_the_same_tree_again_touches_nothing_and_logs_nothing(
    client: Client, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    client.call("PUT", TREE, MANIFEST)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["event"] == "tree changed"
    assert lines[-1]["revision"] == MANIFEST.revision
    before = everything(layout.root)
    assert client.call("PUT", TREE, MANIFEST)[0] == 200
    client.call("GET", "/v1/snapshot")
    assert client.ready() == ""
    after = everything(layout.root)
    assert {k: v for k, v in after.items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }
    assert capsys.readouterr().out == ""


def test_damage_by_hand_is_put_right_by_the_same_manifest(client: Client, layout: Layout) -> None:
    client.call("PUT", TREE, MANIFEST)
    model = layout.servers / "a10/26.07/m"
    (model / "1").unlink()
    (model / "2.tmp").mkdir()
    (model / "config.pbtxt").write_text("changed")
    assert from_json(TreeState, client.call("GET", TREE)[1]).revision == ""
    assert from_json(TreeState, client.call("PUT", TREE, MANIFEST)[1]).revision == MANIFEST.revision
    assert sorted(p.name for p in model.iterdir()) == ["1", "config.pbtxt"]


def test_a_tree_with_an_engine_that_is_not_there_is_refused_whole(client: Client, layout: Layout) -> None:
    client.call("PUT", TREE, MANIFEST)
    before = everything(layout.servers)
    bad = a_manifest(m=("new", {"1": ENGINE}), other=("c", {"1": "onnxruntime-gone"}))
    status, body = client.call("PUT", TREE, bad)
    assert status == 409
    assert from_json(KeeperError, body).reason == "EngineMissing"
    assert "onnxruntime-gone" in from_json(KeeperError, body).message
    assert everything(layout.servers) == before


@pytest.mark.parametrize(
    ("method", "path", "value", "expected"),
    [
        ("GET", "/v1/trees/a10/26.7", None, (400, "InvalidName")),
        ("GET", "/v1/trees/../26.07", None, (400, "InvalidName")),
        ("PUT", "/v1/trees/A10/26.07", MANIFEST, (400, "InvalidName")),
        ("PUT", "/v1/trees/%2e%2e/26.07", MANIFEST, (400, "InvalidName")),
        ("PUT", TREE, a_manifest(**{"../m": ("c", {})}), (400, "InvalidManifest")),
        ("PUT", TREE, {"models": "?"}, (400, "InvalidBody")),
        ("PUT", TREE, None, (400, "InvalidBody")),
        ("POST", "/v1/checks", {"address": "a"}, (400, "InvalidBody")),
        ("POST", "/v1/checks", _a_check("samples-gone"), (404, "EngineMissing")),
        ("POST", "/v1/checks", _a_check("../x"), (400, "InvalidName")),
        ("GET", "/v1/engines/..%2f..%2fetc/report", None, (400, "InvalidName")),
        ("GET", "/v1/engines/onnxruntime-gone/report", None, (404, "EngineMissing")),
        ("GET", "/v1/nothing", None, (404, "NotFound")),
        ("PUT", "/v1/snapshot", None, (404, "NotFound")),
        ("GET", "/v1/snapshot?x=1", None, (404, "NotFound")),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(
    client: Client, method: str, path: str, value: Any, expected: tuple[int, str]
) -> None:
    assert client.refused(method, path, value) == expected


def test_an_engines_report_is_read_as_it_is(client: Client, layout: Layout) -> None:
    status, body = client.call("GET", f"/v1/engines/{ENGINE}/report")
    assert (status, body) == (200, (layout.store / ENGINE / "report.json").read_bytes())


def test_nothing_below_v1_is_answered_without_a_signature_of_our_key(client: Client, layout: Layout) -> None:
    before = everything(layout.servers)
    assert client.refused("PUT", TREE, MANIFEST, key=b"x" * 32) == (401, "Unauthorized")
    for headers in (
        {},
        {"Authorization": "Basic x"},
        {"Authorization": "Bearer é".encode().decode("latin-1")},
    ):
        assert client.send("GET", "/v1/snapshot", **headers)[0] == 401
    token = tokens.sign_request(SECRET, method="PUT", path=TREE, body=b"{}")
    changed = to_json(MANIFEST).encode()
    assert client.send("PUT", TREE, changed, Authorization=f"Bearer {token}")[0] == 401
    old = tokens.sign_request(SECRET, method="GET", path="/v1/snapshot", body=b"", now=time.time() - 300)
    assert client.send("GET", "/v1/snapshot", Authorization=f"Bearer {old}")[0] == 401
    assert everything(layout.servers) == before


def test_a_body_without_or_past_its_length_is_refused_unread(client: Client) -> None:
    assert client.send("PUT", TREE, **{"Content-Length": str(MOST_BODY_BYTES + 1)})[0] == 413
    assert client.send("PUT", TREE, **{"Content-Length": "-1"})[0] == 411
    assert client.send("PUT", TREE, **{"Transfer-Encoding": "chunked"})[0] == 411


def test_an_idle_or_broken_connection_holds_up_nobody(client: Client) -> None:
    idle = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(10)]
    idle[0].sendall(b"\x00\xff nonsense\r\n\r\n")
    idle[1].sendall(b"PUT /v1/sweep HTTP/1.1\r\nContent-Length: 100\r\n\r\nshort")
    assert client.send("GET", "/healthz")[0] == 200
    for connection in idle:
        connection.close()


def test_many_changes_at_once_come_one_after_another(client: Client, layout: Layout) -> None:
    manifests = [a_manifest(m=(f"config {n}", {"1": ENGINE})) for n in range(8)]
    answers: list[tuple[int, bytes]] = []
    threads = [
        threading.Thread(target=lambda m=m: answers.append(client.call("PUT", TREE, m))) for m in manifests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 8
    revisions = {from_json(TreeState, body).revision for _, body in answers}
    assert revisions == {m.revision for m in manifests}


def test_a_second_keeper_waits_for_the_lock_and_takes_over(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keeper, "_LOCK_POLL_SECONDS", 0.02)
    an_engine(layout)
    with serving(layout.root) as first:
        first.wait_ready()
        with serving(layout.root) as second:
            second.wait_ready("Locked")
            assert second.refused("PUT", TREE, MANIFEST) == (503, "Locked")
            assert second.call("GET", "/v1/snapshot")[0] == 200
            assert second.send("GET", "/healthz")[0] == 200
            assert first.call("PUT", TREE, MANIFEST)[0] == 200
            log = capsys.readouterr().out
            assert log.count('"reason": "Locked"') == 1
    with serving(layout.root) as third:
        third.wait_ready()


def test_a_foreign_volume_is_read_but_never_written(layout: Layout) -> None:
    an_engine(layout)
    volume.claim(layout, Owner("cluster-2", "other", "claim-9"))
    before = everything(layout.root)
    with serving(layout.root) as client:
        client.wait_ready("ForeignVolume")
        status, body = client.call("PUT", TREE, MANIFEST)
        assert status == 503
        assert "cluster-2" in from_json(KeeperError, body).message
        assert client.refused("POST", "/v1/sweep", SweepRequest((), (), ())) == (503, "ForeignVolume")
        assert client.call("GET", "/v1/snapshot")[0] == 200
    assert {k: v for k, v in everything(layout.root).items() if k != ".lock"} == before


def test_what_a_stopped_keeper_left_goes_at_the_start(layout: Layout) -> None:
    for path in (layout.trash / "left/over", layout.staging / "keeper-tree/x", layout.staging / "job-1"):
        path.mkdir(parents=True)
    with serving(layout.root) as client:
        client.wait_ready()
    assert list(layout.trash.iterdir()) == []
    assert [p.name for p in layout.staging.iterdir()] == ["job-1"]


def test_a_full_volume_is_507_changes_nothing_and_can_be_swept(small_volume: Layout) -> None:
    an_engine(small_volume)
    an_engine(small_volume, "unused", content=b"x" * 100_000)
    with serving(small_volume.root) as client:
        client.wait_ready()
        client.call("PUT", TREE, MANIFEST)
        before = everything(small_volume.servers)
        ballast = small_volume.root / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0" * 4096)
        large = a_manifest(m=("#" * 200_000, {"1": ENGINE}))
        assert client.refused("PUT", TREE, large) == (507, "VolumeFull")
        assert everything(small_volume.servers) == before
        assert client.ready() == ""
        swept = client.call("POST", "/v1/sweep", SweepRequest((ENGINE,), ("a10/26.07",), ()))
        assert from_json(SweepResult, swept[1]).engines == ("unused",)
        ballast.unlink()
        assert client.call("PUT", TREE, large)[0] == 200


def test_a_volume_that_fails_is_503_and_unready(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", fail)
        assert client.ready() == "VolumeError"
        assert client.refused("PUT", TREE, MANIFEST) == (503, "VolumeError")
    with monkeypatch.context() as patch:
        patch.setattr(files, "make_directory", fail)
        assert client.refused("PUT", TREE, MANIFEST) == (503, "VolumeError")
    assert client.call("PUT", TREE, MANIFEST)[0] == 200


def test_an_error_of_ours_is_500_and_the_keeper_lives_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keeper.tree, "apply", lambda *_: 1 // 0)
        status, body = client.call("PUT", TREE, MANIFEST)
    assert status == 500
    assert b"Traceback" not in body
    assert client.call("PUT", TREE, MANIFEST)[0] == 200


def test_an_empty_tree_is_a_tree(client: Client, layout: Layout) -> None:
    empty = TreeManifest(())
    assert from_json(TreeState, client.call("PUT", TREE, empty)[1]).revision == empty.revision
    assert (layout.servers / "a10/26.07").is_dir()
    assert from_json(TreeState, client.call("GET", "/v1/trees/l4/26.07")[1]).revision == ""
