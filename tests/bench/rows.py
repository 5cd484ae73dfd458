"""All rows, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import candidates, comparison, switches
from tests.bench.restarts import RESTARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.finding import Finding
    from tests.bench.ground import Ground

ROWS: Mapping[str, Callable[[Ground], Sequence[Finding]]] = {
    "added": switches.added,
    "removed": switches.removed,
    "batching": switches.batching_changed,
    "labels": switches.labels_changed,
    "wrong-answers": candidates.wrong_answers,
    "nan": candidates.not_a_number,
    "crash": candidates.crashing,
    "slow": candidates.slow,
    **{name: restart.with_operator for name, restart in RESTARTS.items()},
    **{f"{name}-stopped": restart.without_operator for name, restart in RESTARTS.items()},
    "compared": comparison.compared,
}
