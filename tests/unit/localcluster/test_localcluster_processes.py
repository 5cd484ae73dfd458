import os
import subprocess
from pathlib import Path

import pytest

from localcluster.processes import Process, end, end_all, identify, is_running, parse_mark, parse_stat


@pytest.mark.parametrize("name", ["etcd", "a b", ") R (", "kube-apiserver"])
def test_start_time_is_found_whatever_the_program_is_called(name: str) -> None:
    stat = f"42 ({name}) S " + " ".join(str(field) for field in range(4, 53))
    assert parse_stat(stat) == ("S", 22)


def test_own_process_is_running() -> None:
    assert is_running(identify(os.getpid()) or Process(0, 0))


def test_reused_pid_is_another_process_and_is_not_ended() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        now = identify(child.pid)
        assert now is not None
        earlier = Process(now.pid, now.start_time - 1)
        end(earlier)
        assert not is_running(earlier)
        assert child.poll() is None
        child.kill()


def test_ended_process_that_nobody_reaped_does_not_run() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = identify(child.pid)
        assert process is not None
        assert end_all(lambda: {process} if is_running(process) else set()) == 1
        assert identify(child.pid) is None


def test_mark_names_the_state_folder_of_the_cluster() -> None:
    assert parse_mark(b"PATH=/bin\0LOCALCLUSTER_PROCESS=/var/lib/x\0") == Path("/var/lib/x")


def test_environment_that_only_mentions_the_mark_has_none() -> None:
    assert parse_mark(b"NOTE=LOCALCLUSTER_PROCESS=/x\0") is None
