from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from engine_builder.compilers import timing_cache
from engine_builder.contract import Target

if TYPE_CHECKING:
    from engine_builder.compilers.timing_cache import CacheFile
    from engine_builder.volume import Layout

A10 = Target("NVIDIA-A10", "8.6")


@pytest.fixture
def cache(layout: Layout) -> CacheFile:
    return timing_cache.at(layout, version="10.9.0.34", target=A10)


def test_timings_lie_by_version_and_target_outside_the_store(layout: Layout, cache: CacheFile) -> None:
    assert cache.path == layout.root / ".cache/tensorrt/10.9.0.34/NVIDIA-A10-8.6.timing"
    odd = timing_cache.at(layout, version="10.9.0.34", target=Target("../x/y", "8.6"))
    assert odd.path.parent == cache.path.parent
    assert "/" not in odd.path.name


def test_what_is_merged_is_loaded(layout: Layout, cache: CacheFile) -> None:
    assert cache.load() == b""
    assert cache.merge(lambda standing: standing + b"one,", staging=layout.staging) == "kept: 4 bytes"
    assert cache.merge(lambda standing: standing + b"two,", staging=layout.staging) == "kept: 8 bytes"
    assert cache.load() == b"one,two,"
    assert list(layout.staging.iterdir()) == []


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "empty", "link"])
def test_a_damaged_cache_is_none(layout: Layout, cache: CacheFile, damage: str) -> None:
    cache.merge(lambda _standing: b"timings" * 100, staging=layout.staging)
    content = cache.path.read_bytes()
    if damage == "link":
        cache.path.rename(cache.path.with_name("other"))
        cache.path.symlink_to("other")
    else:
        cache.path.write_bytes(
            {
                "garbage": b"\x00\xff" * 50,
                "truncated": content[:-5],
                "flipped": content[:-1] + b"?",
                "empty": b"",
            }[damage]
        )
    assert cache.load() == b""
    assert cache.merge(lambda standing: standing + b"new", staging=layout.staging) == "kept: 3 bytes"
    assert cache.load() == b"new"


def test_a_build_does_not_wait_long_for_another_with_the_gpu_in_its_hand(
    layout: Layout, cache: CacheFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing_cache, "_PATIENCE_SECONDS", 0.1)
    cache.merge(lambda _standing: b"old", staging=layout.staging)
    with cache.path.with_suffix(".lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another build" in cache.merge(lambda _standing: b"new", staging=layout.staging)
    assert cache.load() == b"old"


def test_a_volume_without_locks_keeps_timings_all_the_same(
    layout: Layout, cache: CacheFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert cache.merge(lambda _standing: b"new", staging=layout.staging) == "kept: 3 bytes"
    assert cache.load() == b"new"


def test_a_cache_that_grew_too_large_is_begun_anew(
    layout: Layout, cache: CacheFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.merge(lambda _standing: b"old", staging=layout.staging)
    monkeypatch.setattr(timing_cache, "LARGEST_BYTES", 200)
    assert "begun anew" in cache.merge(lambda _standing: b"x" * 200, staging=layout.staging)
    assert cache.load() == b""


def test_a_full_volume_costs_the_timings_and_not_the_build(small_volume: Layout) -> None:
    cache = timing_cache.at(small_volume, version="10.9.0.34", target=A10)
    assert "No space left" in cache.merge(lambda _standing: b"x" * (5 << 20), staging=small_volume.staging)
    assert cache.load() == b""


def test_a_crash_throws_the_caches_of_its_target_away(layout: Layout, cache: CacheFile) -> None:
    other = timing_cache.at(layout, version="10.9.0.34", target=Target("NVIDIA-L4", "8.9"))
    for one in (cache, other):
        one.merge(lambda _standing: b"t", staging=layout.staging)
    timing_cache.discard_all(layout, target=A10)
    assert (cache.load(), other.load()) == (b"", b"t")
