from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from tests.unit.engine_builder.models import ENGINE, KEY, a_draft, an_engine

from engine_builder import files, store
from engine_builder.contract import Reason, StoreManifest
from engine_builder.errors import Cancelled, JobError

if TYPE_CHECKING:
    from pathlib import Path

    from engine_builder.volume import Layout


def _sealed(place: Path, content: bytes = b"mine", *, key: str = KEY) -> StoreManifest:
    files.make_directory(place / "weights")
    for name in (store.MODEL_FILE, "weights/w.bin"):
        files.write_file(place / name, content)
    return store.seal(place, a_draft(key=key))


def test_an_engine_appears_whole_with_what_it_holds(layout: Layout) -> None:
    with store.staging(layout, "uid") as place:
        manifest = _sealed(place)
        assert store.list_engines(layout) == []
        store.publish(layout, place, manifest)
    assert dict(store.entries(layout)) == {ENGINE: manifest}
    assert set(manifest.files) == {"model.onnx", "weights/w.bin"}
    assert manifest.size_bytes == 8
    assert store.damaged_files(layout, manifest) == []
    assert list(layout.staging.iterdir()) == []


@pytest.mark.usefixtures("strict_umask")
def test_triton_of_another_uid_may_read_everything(layout: Layout) -> None:
    with store.staging(layout, "uid") as place:
        store.publish(layout, place, _sealed(place))
    for path in (layout.store / ENGINE, *(layout.store / ENGINE).rglob("*")):
        expected = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.fixture
def strict_umask() -> object:
    import os

    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_faster_attempt_wins_and_the_other_leaves_nothing(layout: Layout) -> None:
    winner = an_engine(layout, content=b"first")
    with store.staging(layout, "late") as place:
        assert store.publish(layout, place, _sealed(place)) == winner
    assert (layout.store / ENGINE / "model.onnx").read_bytes() == b"first"
    assert list(layout.staging.iterdir()) == []


@pytest.mark.parametrize("damage", ["manifest", "garbage", "file", "size", "empty", "plain file"])
def test_a_damaged_entry_gives_way(layout: Layout, damage: str) -> None:
    an_engine(layout)
    entry = layout.store / ENGINE
    if damage == "manifest":
        (entry / store.MANIFEST).unlink()
    elif damage == "garbage":
        (entry / store.MANIFEST).write_text("{")
    elif damage == "file":
        (entry / store.MODEL_FILE).unlink()
    elif damage == "size":
        (entry / store.MODEL_FILE).write_bytes(b"")
    else:
        files.delete(entry)
        if damage == "plain file":
            entry.write_text("not a directory")
        else:
            entry.mkdir()
    with store.staging(layout, "again") as place:
        manifest = store.publish(layout, place, _sealed(place))
    assert store.damaged_files(layout, manifest) == []
    assert list(layout.trash.iterdir()) == []


def test_an_entry_of_another_key_is_never_taken_for_ours(layout: Layout) -> None:
    an_engine(layout, key="cd" * 32)
    with pytest.raises(JobError, match="cdcd"):
        store.find(layout, engine=ENGINE, key=KEY)
    with store.staging(layout, "uid") as place, pytest.raises(JobError):
        store.publish(layout, place, _sealed(place))
    assert (layout.store / ENGINE / "model.onnx").read_bytes() == b"model"


def test_verification_reads_every_byte(layout: Layout) -> None:
    manifest = an_engine(layout)
    (layout.store / ENGINE / "model.onnx").write_bytes(b"modeL")
    assert store.is_whole(layout, manifest)
    assert store.damaged_files(layout, manifest) == ["model.onnx"]


def test_names_in_the_store_that_are_no_engines_are_no_entries(layout: Layout) -> None:
    an_engine(layout)
    (layout.store / "copy").symlink_to(ENGINE)
    (layout.store / "Other").mkdir()
    assert [name for name, _ in store.entries(layout)] == [ENGINE]


@pytest.mark.parametrize("uid", ["", "..", "a/b", ".x", "keeper-tree"])
def test_a_staging_directory_has_a_pods_uid_for_its_name(layout: Layout, uid: str) -> None:
    with pytest.raises(JobError), store.staging(layout, uid):
        pass


@pytest.mark.parametrize("error", [Cancelled, OSError, JobError])
def test_whatever_ends_an_attempt_its_staging_goes(layout: Layout, error: type[BaseException]) -> None:
    (layout.staging / "uid").mkdir()
    (layout.staging / "uid/of an earlier container").touch()
    reason = (Reason.INVALID_MODEL, "no") if error is JobError else ()

    def attempt() -> None:
        with store.staging(layout, "uid") as place:
            assert list(place.iterdir()) == []
            files.write_file(place / "half", b"")
            raise error(*reason)

    with pytest.raises(error):
        attempt()
    assert list(layout.staging.iterdir()) == []


def test_too_little_space_is_told_with_both_figures(small_volume: Layout) -> None:
    store.require_space(small_volume, 1 << 20)
    with pytest.raises(JobError, match=r"4\.0Mi free and 5\.2Mi are needed") as caught:
        store.require_space(small_volume, 4 << 20)
    assert caught.value.reason is Reason.VOLUME_FULL
