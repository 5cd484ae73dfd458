"""Prepare the models of the onnx wheel at every precision, and tell by reason what came of them.

Exits with 1 when a library crashed, an answer differs from the wheel's, or a refusal is not explained.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

# The children are forks of this process: what is imported here they need not import again.
import onnxruntime.quantization
import onnxruntime.transformers.float16  # noqa: F401

from corpus import case, verdict, wheel
from corpus.case import Outcome

_SAMPLE_STEP = 4
_LARGE = "light/"
_LARGE_SAMPLE = ("light/light_shufflenet", "light/light_squeezenet")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser("corpus", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="models with this in their name")
    parser.add_argument("--sample", action="store_true", help="two large nets and every fourth of the others")
    parser.add_argument("--verbose", action="store_true", help="a line for every case")
    arguments = parser.parse_args()
    models = [model for model in wheel.models() if arguments.only in model.name]
    if arguments.sample:
        models = _sample(models)
    began, outcomes = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="corpus.") as folder:
        for outcome in _run(models, Path(folder)):
            outcomes.append(outcome)
            wrong = verdict.problem(outcome)
            if arguments.verbose or wrong:
                _print(outcome, wrong)
    print(verdict.table(outcomes))
    print(f"{len(models)} models, {len(outcomes)} cases, {time.monotonic() - began:.0f} s")
    return int(any(map(verdict.problem, outcomes)) or not outcomes)


def _sample(models: Sequence[wheel.WheelModel]) -> list[wheel.WheelModel]:
    small = [model for model in models if not model.name.startswith(_LARGE)]
    return [*(model for model in models if model.name in _LARGE_SAMPLE), *small[::_SAMPLE_STEP]]


def _run(models: Sequence[wheel.WheelModel], root: Path) -> Iterator[Outcome]:
    """Run all cases of the models, on as many cores as there are."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(mp_context=context) as pool:
        for outcomes in pool.map(partial(_outcomes, root=root), models):
            yield from outcomes


def _outcomes(model: wheel.WheelModel, *, root: Path) -> list[Outcome]:
    found = []
    for precision in case.precisions(model):
        repository = root / f"{model.name}-{precision.value}".replace("/", "-")
        repository.mkdir()
        found.append(case.run(model, precision, root=repository, number=1))
    return found


def _print(outcome: Outcome, wrong: str) -> None:
    cosine = "" if outcome.cosine is None else f", cosine {outcome.cosine:.6f}"
    said = wrong or outcome.message
    print(
        f"{'PROBLEM ' if wrong else ''}{outcome.model} {outcome.precision} {outcome.seconds:.1f} s: "
        f"{outcome.reason}{cosine}: {said}",
        flush=True,
    )
