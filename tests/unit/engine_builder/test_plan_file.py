from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.compilers import plan_file, plan_header
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

    from engine_builder.volume import Layout


def a_plan(
    magic: bytes = b"vtrt", version: tuple[int, int, int, int] = (1, 7, 1, 116), size: int = 200
) -> bytes:
    return struct.pack("<4sIQQ4B", magic, 0, 2, size, *version).ljust(size, b"\0")


def test_a_header_tells_version_and_size() -> None:
    header = plan_header.read(a_plan())
    assert (header.version_text, header.size) == ("1.7.1.116", 200)
    plan_header.check(header, written=200, compiler_version="1.7.1.116")


def test_a_plan_of_tensorrt_tells_its_version_and_no_size() -> None:
    header = plan_header.read(a_plan(b"ftrt", (10, 9, 0, 34)))
    assert (header.version_text, header.size) == ("10.9.0.34", None)
    plan_header.check(header, written=5000, compiler_version="10.9.0")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 40, a_plan()[:63], b"\0" * 64])
def test_what_is_no_plan_is_told(content: bytes) -> None:
    with pytest.raises(JobError, match="no whole plan"):
        plan_header.read(content)


def test_a_short_plan_and_one_of_another_version_are_told() -> None:
    header = plan_header.read(a_plan())
    with pytest.raises(JobError, match="says 200 bytes and has 199"):
        plan_header.check(header, written=199, compiler_version="1.7.1.116")
    with pytest.raises(JobError, match=r"of TensorRT 1\.7\.1\.116, and 1\.6\.1\.120 made it"):
        plan_header.check(header, written=200, compiler_version="1.6.1.120")


@given(pieces=st.lists(st.binary(max_size=100), max_size=8))
def test_pieces_of_any_size_become_the_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("plan") / "model.plan"
    with plan_file.create(path) as plan:
        assert [plan.take(memoryview(piece)) for piece in pieces] == [len(piece) for piece in pieces]
    whole = b"".join(pieces)
    assert path.read_bytes() == whole
    assert (plan.written, plan.beginning) == (len(whole), whole[:64])
    assert plan.sha256 == hashlib.sha256(whole).hexdigest()


def test_a_volume_that_fills_up_ends_the_plan_with_its_error(small_volume: Layout) -> None:
    """TensorRT ignores what the writer answers: the error comes when the file is closed."""
    taken = []

    def write() -> None:
        with plan_file.create(small_volume.root / "model.plan") as plan:
            taken.extend(plan.take(b"x" * size) for size in (3 << 20, 3 << 20, 1))
            taken.append(plan.written)

    with pytest.raises(OSError, match="No space left"):
        write()
    assert taken == [3 << 20, 0, 0, 3 << 20]


def test_a_plan_is_never_written_over_another(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"other")
    with pytest.raises(FileExistsError), plan_file.create(tmp_path / "model.plan"):
        pass
