"""Versions come and go, and the settings of a model change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import by_hand
from tests.bench.finding import Finding, judged
from tests.bench.ground import MODEL, NEW, OLD

from load import Record, analysis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.ground import Ground
    from tritonclient.grpc.model_config_pb2 import ModelConfig

LAST_ANSWER_SECONDS = 1.0


def added(ground: Ground) -> Sequence[Finding]:
    """Version 2 is built, tried, promoted; version 1 stays."""
    ground.return_to(OLD)
    change = ground.under_load(lambda: ground.serve(OLD, NEW))
    setbacks = [*analysis.setbacks(change.records), *analysis.setbacks(_straight(change.records), by=_pod)]
    problems = []
    if setbacks:
        earlier, later = setbacks[0]
        problems.append(f"{len(setbacks)} setbacks, such as {later} after {earlier}")
    if not analysis.answered_by(change.records, NEW):
        problems.append("version 2 never answered")
    finding = judged(
        "version 2 added, promoted; version 1 kept",
        "0 failed; answers right for their version; once a pod answered with 2 it never answers with 1",
        change,
        more=[f"{len(setbacks)} setbacks"],
        problems=problems,
    )
    return [finding]


def removed(ground: Ground) -> Sequence[Finding]:
    """Version 2 leaves the spec."""
    ground.return_to(OLD, NEW)
    change = ground.under_load(lambda: ground.serve(OLD))
    last = analysis.last_answer(change.records, NEW)
    problems = []
    if last is None:
        problems.append("version 2 never answered before")
    elif last - change.began > LAST_ANSWER_SECONDS:
        problems.append(f"the last answer from 2 came after {last - change.began:.2f} s")
    finding = judged(
        "version 2 removed",
        "0 failed among requests without a version; last answer from 2 at most 1 s after the API server "
        "took the change",
        change,
        more=[f"last answer from 2 after {(last or change.began) - change.began:.2f} s"],
        problems=problems,
    )
    return [finding]


def batching_changed(ground: Ground) -> Sequence[Finding]:
    """Every pod gets another configuration for the same versions."""
    serving = {"dynamicBatching": {"preferredBatchSizes": [4, 8], "maxQueueDelayMicroseconds": 200}}

    def runs_with_it(config: ModelConfig) -> bool:
        return bool(config.dynamic_batching.max_queue_delay_microseconds == 200)

    return [_settings_changed(ground, "batching changed", serving, runs_with_it)]


def labels_changed(ground: Ground) -> Sequence[Finding]:
    """Labels lie in files: Triton loads every version anew."""
    serving = {"labels": {"y": ["cat", "dog"]}}

    def runs_with_it(config: ModelConfig) -> bool:
        return bool(config.output[0].label_filename)

    return [_settings_changed(ground, "labels changed", serving, runs_with_it)]


def _settings_changed(
    ground: Ground, what: str, serving: Mapping[str, object], runs_with_it: Callable[[ModelConfig], bool]
) -> Finding:
    ground.return_to(OLD, NEW)

    def apply() -> None:
        ground.serve(OLD, NEW, serving=serving)
        with by_hand.connected(ground.stage) as pods:

            def taken_up() -> None:
                configurations = pods.configurations(MODEL)
                assert all(map(runs_with_it, configurations)), configurations

            ground.stage.eventually(taken_up)

    change = ground.under_load(apply)
    return judged(what, "0 failed", change)


def _straight(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if ":" in record.stream]


def _pod(record: Record) -> str:
    return record.stream.partition(":")[0]
