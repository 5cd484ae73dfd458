from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.journal import OPERATOR, Effect, Journal, Line

if TYPE_CHECKING:
    from pathlib import Path


def note(journal: Journal, *names: str) -> None:
    """Write lines as `engine_builder.faults` does."""
    log = journal.directory / "log"
    with log.open("a") as file:
        for name in names:
            file.write(f"0 {OPERATOR} 1 {name} \n")


def an_effect(step: str, name: str, *, nth: int) -> Effect:
    return Effect(step=step, name=name, number=9, nth=nth, line=Line(OPERATOR, 1, name, ""))


def test_effects_are_numbered_in_the_run_and_in_their_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "faults")
    journal.begin("first")
    note(journal, "load", "load")
    journal.begin("second")
    note(journal, "write", "load")
    found = [(effect.step, str(effect), effect.nth) for effect in journal.effects()]
    assert found == [
        ("first", "load#1", 1),
        ("first", "load#2", 2),
        ("second", "write#1", 1),
        ("second", "load#3", 1),
    ]


def test_target_is_found_by_its_place_in_its_step_however_many_came_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "faults", target=an_effect("second", "load", nth=2))
    journal.begin("first")
    note(journal, "load", "load", "load")
    assert not (journal.directory / "kill").exists()
    journal.begin("second")
    assert (journal.directory / "kill").read_text() == "load#5"
    assert not journal.killed
    (journal.directory / "kill").unlink()
    assert journal.killed


def test_run_without_a_target_kills_nobody(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "faults")
    journal.begin("first")
    assert not (journal.directory / "kill").exists()
    assert not journal.killed
