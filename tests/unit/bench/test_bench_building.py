from __future__ import annotations

from tests.bench.building import MOST, Built, judged

BARE = (3.0, 2.0, 9.0)


def test_the_compilers_own_seconds_are_no_overhead() -> None:
    assert Built(creating=0.5, compiling=62.0, noticing=1.0, compiler=60.0).overhead == 3.5


def test_medians_decide_against_a_bare_job() -> None:
    fits = Built(creating=0.5, compiling=8.0, noticing=1.0, compiler=3.0 + 5.0 - 3.0 * MOST + 1.5)
    slow = Built(creating=5.0, compiling=80.0, noticing=1.0, compiler=5.0)
    found = judged([fits, fits, slow], BARE)
    assert found.ok
    assert "1.50 times" in found.measured
    assert judged([fits, slow, slow], BARE).problems
