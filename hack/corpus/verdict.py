"""Whether an outcome is explained: built with the right answers, or refused for what the model is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from corpus.case import Outcome
from engine_builder.contract import Reason

LOWEST_COSINE = {"FP32": 0.99999, "FP16": 0.999, "INT8": 0.98}
"""Lowest cosine with the wheel's answers. INT8's leaves a margin to the builder's own check."""
_BUILT = Reason.SUCCEEDED.value
_EXPLAINED = frozenset(
    {
        Reason.UNSUPPORTED_PRECISION.value,
        Reason.UNSUPPORTED_OPERATOR.value,
        Reason.ACCURACY_LOST.value,
    }
)
_CONVERTER = ("the model cannot be", "the converted model")
"""Refusals by a library, not by a property of the model: each must be known."""

KNOWN: Mapping[str, str] = {
    "StringNormalizer::Locale": "the operator wants a locale that the system may lack",
}
"""Words of a message → why a refusal that isn't explained by itself is right."""


def problem(outcome: Outcome) -> str:
    """Return what is wrong with an outcome; empty when it is explained."""
    if any(words in outcome.message for words in KNOWN):
        return ""
    if outcome.reason == _BUILT:
        lowest = LOWEST_COSINE[outcome.precision]
        if outcome.cosine is not None and outcome.cosine < lowest:
            return f"cosine {outcome.cosine:.6f} with the wheel's answers is below {lowest}"
        return ""
    if outcome.reason not in _EXPLAINED or any(words in outcome.message for words in _CONVERTER):
        return f"{outcome.reason}: {outcome.message}"
    return ""


def table(outcomes: Iterable[Outcome]) -> str:
    """Return how many models ended how, by precision and reason."""
    counts = Counter((outcome.precision, outcome.reason) for outcome in outcomes)
    precisions = [name for name in LOWEST_COSINE if any(p == name for p, _ in counts)]
    reasons = sorted({reason for _, reason in counts}, key=lambda reason: (reason != _BUILT, reason))
    rows = [["reason", *precisions]]
    rows += [[reason, *(str(counts[name, reason]) for name in precisions)] for reason in reasons]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
