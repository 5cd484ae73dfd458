from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from engine_builder import files, volume
from engine_builder.volume import Owner

if TYPE_CHECKING:
    from pathlib import Path

    from engine_builder.volume import Layout

OURS = Owner("cluster-1", "team", "claim-1")
OTHER = Owner("cluster-2", "team", "claim-1")


def test_the_first_owner_stays(layout: Layout) -> None:
    assert volume.claim(layout, OURS) == OURS
    assert volume.claim(layout, OURS) == OURS
    assert volume.claim(layout, OTHER) == OURS
    assert list(layout.staging.iterdir()) == []


def test_of_many_at_once_one_becomes_the_owner(layout: Layout) -> None:
    owners = [Owner(f"cluster-{n}", "team", "claim") for n in range(8)]
    found: list[Owner] = []
    threads = [threading.Thread(target=lambda o=o: found.append(volume.claim(layout, o))) for o in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"cluster": "c"}', b"\xff"])
def test_an_unreadable_marker_is_nobodys_we_know(layout: Layout, content: bytes) -> None:
    (layout.root / ".owner").write_bytes(content)
    assert volume.claim(layout, OURS) != OURS


def test_an_empty_marker_is_of_a_writer_that_crashed(layout: Layout) -> None:
    (layout.root / ".owner").touch()
    assert volume.claim(layout, OURS) == OURS


def test_a_volume_without_hard_links_is_marked_too(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert volume.claim(layout, OURS) == OURS
    assert volume.claim(layout, OTHER) == OURS


def test_the_lock_is_held_by_one_until_it_lets_go(layout: Layout) -> None:
    first = volume.try_lock(layout)
    assert first is not None
    assert volume.try_lock(layout) is None
    os.close(first)
    second = volume.try_lock(layout)
    assert second is not None
    os.close(second)


def test_a_probe_tells_what_the_volume_can_do_and_leaves_nothing(small_volume: Layout) -> None:
    found = volume.probe(small_volume)
    assert (found.rename, found.links, found.fsync) == (True, True, True)
    assert found.bytes_total == 4 << 20
    assert 0 < found.bytes_free <= found.bytes_total
    assert list(small_volume.staging.iterdir()) == []


def test_what_cannot_be_done_is_found_out(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    assert volume.probe(layout).links is False
    monkeypatch.setattr(os, "rename", refuse)
    assert volume.probe(layout).rename is False


def test_a_full_volume_can_still_be_cleaned(small_volume: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume without room for one more name: removal must not need any."""
    victim = small_volume.store / "victim"
    victim.mkdir()
    files.write_file(victim / "file", b"x" * 100)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    files.discard(victim, trash=small_volume.trash)
    assert not victim.exists()


def test_a_half_written_file_never_has_the_final_name(small_volume: Layout) -> None:
    target = small_volume.servers / "s.json"
    files.replace_file(target, b"old", staging=small_volume.staging)
    with pytest.raises(OSError, match="No space"):
        files.replace_file(target, b"x" * (8 << 20), staging=small_volume.staging)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5Ki"), (9.8 * (1 << 30), "9.8Gi"), (2**50, "1024.0Ti")],
)
def test_sizes_read_as_people_write_them(size: float, text: str) -> None:
    assert files.human(size) == text


def test_reading_follows_no_link_and_waits_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert files.read_file(tmp_path / "file") == b"content"
    assert [files.read_file(tmp_path / name) for name in ("link", "missing", "file/x")] == [None, None, None]
    assert files.read_file(tmp_path) is None
    assert files.read_file(tmp_path / "pipe") is None
