from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine_builder.models import (
    a_model,
    a_model_with_external_data,
    saved,
    saved_with_external_data,
)

from engine_builder import source
from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.fetch import Fetched, Fetcher, locate
from engine_builder.onnx_model import externals
from engine_builder.progress import Progress


def _fetch(
    uri: str, root: Path, *, into: Path | None = None, max_bytes: int = 1 << 20, expected: str | None = None
) -> Fetched:
    return Fetcher(
        location=locate(uri, root),
        externals=externals,
        max_bytes=max_bytes,
        progress=Progress(quiet=True),
        into=into,
        expected=expected,
    ).fetch()


def _refused(uri: str, root: Path, **kwargs: object) -> tuple[Reason, str]:
    with pytest.raises(JobError) as caught:
        _fetch(uri, root, **kwargs)  # type: ignore[arg-type]
    return caught.value.reason, caught.value.message


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a source volume with a model in det/1/, beside a secret that is outside of it."""
    saved(a_model(), tmp_path / "secret.onnx")
    return saved(a_model(), tmp_path / "source/det/1/model.onnx").parents[2]


def test_a_file_and_its_directory_are_the_same_source(root: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((root / "det/1/model.onnx").read_bytes()).hexdigest()
    for uri in ("pvc://models/det/1/model.onnx", "pvc://models/det/1", "pvc://models/det/1/"):
        assert _fetch(uri, root).sha256 == digest
    copy = tmp_path / "copy"
    copy.mkdir()
    assert _fetch(str(root / "det/1"), tmp_path, into=copy).files == {"model.onnx": digest}
    assert (copy / "model.onnx").read_bytes() == (root / "det/1/model.onnx").read_bytes()


def test_a_source_with_external_data_has_the_digest_that_sha256sum_makes(root: Path, tmp_path: Path) -> None:
    folder = saved_with_external_data(tmp_path / "big", "weights/w 1.bin").parent
    (folder / "unrelated.txt").write_text("not part of the source")
    listing = subprocess.run(  # noqa: S602 - the line that the documentation gives
        "sha256sum model.onnx 'weights/w 1.bin' | LC_ALL=C sort | sha256sum",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert _fetch(str(folder), root).sha256 == listing.split()[0]


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1), st.integers())
)
def test_a_listing_digest_depends_on_every_name_and_content(files: dict[str, int]) -> None:
    digests = {name: hashlib.sha256(str(number).encode()).hexdigest() for name, number in files.items()}
    digest = source.listing_digest(digests)
    assert digest == source.listing_digest(dict(reversed(digests.items())))
    for name in digests:
        assert digest != source.listing_digest({**digests, name: "0" * 64})
        assert digest != source.listing_digest({n: d for n, d in digests.items() if n != name})


@pytest.mark.parametrize(
    "path",
    ["../secret.onnx", "det/../../secret.onnx", "/etc/passwd", "..", "det/1/..", "a\\b", "a\nb", "a\0b"],
)
def test_a_path_that_could_leave_the_source_is_refused(root: Path, path: str) -> None:
    assert _refused(f"pvc://models/{path}", root)[0] is Reason.UNSAFE_SOURCE


@given(st.lists(st.sampled_from(["..", ".", "", "a", "/", "b/c", "...", "~"]), max_size=6).map("/".join))
def test_whatever_path_is_safe_stays_below_its_root(text: str) -> None:
    try:
        path = source.safe_path(text, what="test")
    except JobError:
        return
    resolved = PurePosixPath(os.path.normpath(PurePosixPath("/root") / path))
    assert resolved.is_relative_to("/root")


@pytest.mark.parametrize("where", ["det/1/link.onnx", "det/link/model.onnx", "link/1/model.onnx"])
def test_a_link_at_any_component_is_refused(root: Path, where: str) -> None:
    part = Path(*Path(where).parts[: [p.startswith("link") for p in Path(where).parts].index(True) + 1])
    real = root / str(part).replace("link.onnx", "model.onnx").replace("det/link", "det/1").replace(
        "link", "det"
    )
    (root / part).symlink_to(real)
    reason, message = _refused(f"pvc://models/{where}", root)
    assert reason is Reason.UNSAFE_SOURCE
    assert "symbolic link" in message


def test_a_link_out_of_the_source_gives_nothing_away(root: Path) -> None:
    (root / "det/1/model.onnx").unlink()
    (root / "det/1/model.onnx").symlink_to("../../../secret.onnx")
    assert _refused("pvc://models/det/1", root)[0] is Reason.UNSAFE_SOURCE


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(root: Path) -> None:
    os.mkfifo(root / "det/pipe.onnx")
    assert _refused("pvc://models/det/pipe.onnx", root)[0] is Reason.UNSAFE_SOURCE


def test_a_missing_source_is_named_with_what_is_there_instead(root: Path) -> None:
    reason, message = _refused("pvc://models/det/2/model.onnx", root)
    assert reason is Reason.SOURCE_NOT_FOUND
    assert "pvc://models/det/2/model.onnx" in message
    assert "'det' holds 1" in message
    assert "source.uri" in message


def test_a_missing_mount_or_a_file_on_the_way_is_not_found(root: Path) -> None:
    assert _refused("pvc://models/x.onnx", root / "nowhere")[0] is Reason.SOURCE_NOT_FOUND
    assert _refused("pvc://models/det/1/model.onnx/x", root)[0] is Reason.SOURCE_NOT_FOUND


def test_a_directory_without_one_model_says_so(root: Path) -> None:
    reason, message = _refused("pvc://models/det", root)
    assert (reason, "holds no .onnx file" in message) == (Reason.SOURCE_NOT_FOUND, True)
    for name in ("a.onnx", "b.onnx"):
        saved(a_model(), root / "several" / name)
    assert "a.onnx, b.onnx" in _refused("pvc://models/several", root)[1]
    saved(a_model(), root / "several/model.onnx")
    assert _fetch("pvc://models/several", root).model == "model.onnx"


@pytest.mark.parametrize("uri", ["ftp://host/model.onnx", "http://host/model.onnx", "pvc:///model.onnx"])
def test_an_unknown_scheme_or_claim_says_what_is_supported(root: Path, uri: str) -> None:
    reason, message = _refused(uri, root)
    assert reason is Reason.SOURCE_NOT_FOUND
    assert "pvc://" in message


def test_a_wrong_digest_is_told_with_both_even_when_the_file_is_garbage(root: Path) -> None:
    wanted = "0" * 64
    reason, message = _refused("pvc://models/det/1", root, expected=wanted)
    assert reason is Reason.DIGEST_MISMATCH
    assert wanted in message
    assert hashlib.sha256((root / "det/1/model.onnx").read_bytes()).hexdigest() in message
    (root / "det/1/model.onnx").write_bytes(b"garbage")
    assert _refused("pvc://models/det/1", root, expected=wanted)[0] is Reason.DIGEST_MISMATCH
    assert _refused("pvc://models/det/1", root)[0] is Reason.INVALID_MODEL


def test_the_digest_of_the_model_alone_is_not_enough_with_external_data(root: Path) -> None:
    model = saved_with_external_data(root / "big")
    alone = hashlib.sha256(model.read_bytes()).hexdigest()
    assert _refused("pvc://models/big", root, expected=alone)[0] is Reason.DIGEST_MISMATCH


def test_a_source_past_the_limit_is_refused_before_it_is_copied(root: Path, tmp_path: Path) -> None:
    saved_with_external_data(root / "big")
    size = (root / "big/model.onnx").stat().st_size
    into = tmp_path / "copy"
    into.mkdir()
    assert _refused("pvc://models/big", root, into=into, max_bytes=size - 1)[0] is Reason.SOURCE_TOO_LARGE
    assert list(into.iterdir()) == []
    assert _refused("pvc://models/big", root, max_bytes=size + 15)[0] is Reason.SOURCE_TOO_LARGE
    assert _fetch("pvc://models/big", root, max_bytes=size + 16).size == size + 16


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "a/../../secret.bin",
        "model.onnx",
        "MANIFEST",
        "report.json",
        "./weights.bin",
        "reference.npz/x",
        "*/_ORT_MEM_ADDR_/*",
    ],
)
def test_external_data_with_an_unsafe_name_is_refused(root: Path, location: str) -> None:
    saved(a_model_with_external_data(location), root / "bad/m.onnx")
    assert _refused("pvc://models/bad", root)[0] is Reason.UNSAFE_SOURCE


def test_external_data_behind_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    saved(a_model_with_external_data("weights/w.bin"), root / "bad/model.onnx")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/w.bin").write_bytes(b"0" * 16)
    (root / "bad/weights").symlink_to(tmp_path / "elsewhere")
    assert _refused("pvc://models/bad", root)[0] is Reason.UNSAFE_SOURCE


def test_missing_external_data_is_not_found_and_short_data_is_invalid(root: Path) -> None:
    model = saved_with_external_data(root / "big")
    model.with_name("weights.bin").write_bytes(b"0" * 15)
    reason, message = _refused("pvc://models/big", root)
    assert (reason, "weights.bin" in message) == (Reason.INVALID_MODEL, True)
    model.with_name("weights.bin").unlink()
    assert _refused("pvc://models/big", root)[0] is Reason.SOURCE_NOT_FOUND


def test_external_data_keeps_its_relative_name_in_the_copy(root: Path, tmp_path: Path) -> None:
    saved_with_external_data(root / "big", "weights/w.bin")
    (root / "big/model.onnx").rename(root / "big/detector.onnx")
    into = tmp_path / "copy"
    into.mkdir()
    assert set(_fetch("pvc://models/big", root, into=into).files) == {"model.onnx", "weights/w.bin"}
    assert (into / "weights/w.bin").read_bytes() == (root / "big/weights/w.bin").read_bytes()
