"""Whether an outcome is explained: made, with the right answers, or refused for what the model is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from corpus.case import Outcome
from corpus.compiling import Compiled
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
_NOT_SUPPORTED = Reason.UNSUPPORTED_OPERATOR.value
_CONVERTER = ("the model cannot be", "the converted model")
"""Refusals by a library, not by a property of the model: each must be known."""

KNOWN: Mapping[str, str] = {
    "StringNormalizer::Locale": "the operator wants a locale that the system may lack",
}
"""Words of a message → why a refusal that isn't explained by itself is right."""


def problem(found: Outcome | Compiled) -> str:
    """Return what is wrong with what was found; empty when it is explained."""
    if any(words in found.message for words in KNOWN):
        return ""
    return _of_prepared(found) if isinstance(found, Outcome) else _of_compiled(found)


def _of_prepared(outcome: Outcome) -> str:
    if outcome.reason == _BUILT:
        lowest = LOWEST_COSINE[outcome.precision]
        if outcome.cosine is not None and outcome.cosine < lowest:
            return f"cosine {outcome.cosine:.6f} with the wheel's answers is below {lowest}"
        return ""
    if outcome.reason not in _EXPLAINED or any(words in outcome.message for words in _CONVERTER):
        return f"{outcome.reason}: {outcome.message}"
    return ""


def _of_compiled(compiled: Compiled) -> str:
    """What TensorRT's parser doesn't support may be refused as such, in words that say what; else nothing."""
    if compiled.reason == _BUILT:
        return ""
    said, told = compiled.said, f"{compiled.reason}: {compiled.message}"
    if compiled.reason != _NOT_SUPPORTED:
        return told
    if said.supported:
        return f"TensorRT's parser supports the model, and the builder says {told}"
    if said.lacking and not any(operator in compiled.message for operator in said.lacking):
        return f"{told} (of what lacks, {', '.join(sorted(said.lacking))}, it names nothing)"
    return ""


def table(columns: Sequence[str], found: Iterable[tuple[str, str]]) -> str:
    """Return how many ended how: of pairs (column, reason), a line for each reason."""
    counts = Counter(found)
    columns = [column for column in columns if any(each == column for each, _ in counts)]
    reasons = sorted({reason for _, reason in counts}, key=lambda reason: (reason != _BUILT, reason))
    rows = [["reason", *columns]]
    rows += [[reason, *(str(counts[column, reason]) for column in columns)] for reason in reasons]
    widths = [max(map(len, each)) for each in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
