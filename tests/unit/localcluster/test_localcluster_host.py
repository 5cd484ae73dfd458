import struct
import tarfile
from pathlib import Path

import pytest

from localcluster.builds import modules_digest
from localcluster.cli import main
from localcluster.dns import holds_answer, question
from localcluster.errors import ClusterError
from localcluster.images import names_in, write_archive
from localcluster.mounts import Mount, parse_mountinfo
from localcluster.nodes import NODES


def test_mount_points_with_blanks_are_read() -> None:
    line = "36 35 98:0 / /mnt/a\\040b rw,noatime master:1 - tmpfs localcluster-volume rw,size=1k"
    assert parse_mountinfo(line) == [Mount(Path("/mnt/a b"), "tmpfs")]


def test_name_in_an_archive_is_found(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF")
    write_archive(tmp_path / "pause.tar", image="localhost/pause:1", program=program)
    assert names_in(tmp_path / "pause.tar") == ["localhost/pause:1"]


def test_file_that_is_no_archive_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("nothing")
    with pytest.raises(ClusterError, match="docker-archive"):
        names_in(tmp_path / "x.tar")


def test_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w"):
        pass
    with pytest.raises(ClusterError, match=r"x\.tar"):
        names_in(tmp_path / "x.tar")


def test_module_change_leads_to_other_binaries(tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "go" / "go.mod", tmp_path / "two" / "go" / "go.mod"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(f"module {path.parts[-3]}")
    assert modules_digest(tmp_path / "one") != modules_digest(tmp_path / "two")


@pytest.mark.parametrize(
    ("flags", "answers", "answered"),
    [(0x8180, 1, True), (0x8180, 0, False), (0x8183, 1, False)],
)
def test_dns_reply_counts_only_with_an_answer(flags: int, answers: int, answered: bool) -> None:  # noqa: FBT001
    reply = struct.pack("!6H", 7, flags, 1, answers, 0, 0) + question(7, "a.b")[12:]
    assert holds_answer(7, reply) is answered
    assert not holds_answer(8, reply)


def test_nodes_share_neither_address_nor_cgroup_nor_port() -> None:
    for values in zip(
        *((node.address, node.cgroup, node.health_port, node.pod_range) for node in NODES), strict=True
    ):
        assert len(set(values)) == len(NODES)


def test_unknown_binary_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["binaries", "kubelt"]) == 1
    assert "kubelt" in capsys.readouterr().err
