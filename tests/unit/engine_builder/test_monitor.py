from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from engine_builder.compilers.monitor import FILE, Percent, Stop, Teller, read
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_nested_phases_become_one_percentage() -> None:
    percent = Percent()
    percent.start("Building engine", None, 4)
    assert percent.value == 0
    percent.step("Building engine", 0)
    assert percent.value == 25
    percent.start("Timing", "Building engine", 10)
    percent.step("Timing", 4)
    assert percent.value == 37  # half of the second quarter
    percent.start("Tactics", "Timing", 2)
    percent.step("Tactics", 0)
    assert percent.value == 38
    percent.finish("Tactics")
    percent.finish("Timing")
    percent.step("Building engine", 1)
    assert percent.value == 50
    percent.finish("Building engine")
    assert percent.value == 99  # the plan is still to be written


def test_a_parent_that_counts_on_does_not_count_a_phase_twice() -> None:
    percent = Percent()
    percent.start("all", None, 2)
    percent.start("first", "all", 1)
    percent.step("first", 0)
    percent.finish("first")
    assert percent.value == 50
    percent.step("all", 0)
    assert percent.value == 50


names = st.sampled_from(["a", "b", "c", "d"])
events = st.one_of(
    st.tuples(st.just("start"), names, st.one_of(st.none(), names), st.integers(-1, 5)),
    st.tuples(st.just("step"), names, st.integers(-1, 7)),
    st.tuples(st.just("finish"), names),
)


@given(st.lists(events, max_size=60))
def test_it_never_falls_and_never_says_done_whatever_tensorrt_tells(told: list[tuple[object, ...]]) -> None:
    percent, before = Percent(), 0
    for name, *arguments in told:
        getattr(percent, str(name))(*arguments)
        assert before <= percent.value <= 99
        before = percent.value


def test_the_percentage_is_in_a_file_while_it_is_built_and_gone_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teller = Teller(Progress(), tmp_path)
    for value in (1, 42, 42):
        teller.tell(value)
        assert (tmp_path / FILE).read_text() == f"{value}\n"
    assert capsys.readouterr().out == "progress 1 %\n"  # the next line comes seconds later
    teller.finish()
    teller.finish()
    assert not (tmp_path / FILE).exists()


def test_what_was_told_is_read_and_nothing_else(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    teller = Teller(Progress(quiet=True), tmp_path)
    teller.tell(42)
    assert read(tmp_path) == 42
    for text, expected in (("", None), ("-1", None), ("9" * 400, None), ("4 2", None), ("999", 100)):
        (tmp_path / FILE).write_text(text)
        assert read(tmp_path) == expected
    teller.finish()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / FILE).symlink_to("/etc/hostname")
    assert read(tmp_path) is None


def test_a_place_that_is_gone_stops_no_build(tmp_path: Path) -> None:
    Teller(Progress(quiet=True), tmp_path / "gone").tell(5)


def test_sigterm_is_noted_and_raises_nothing() -> None:
    before, stop = signal.getsignal(signal.SIGTERM), Stop()
    with stop.listen():
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGTERM) == before
