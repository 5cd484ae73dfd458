from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine_builder.contract import ExitCode, Reason, Report

DOCS = Path(__file__).parents[3] / "docs"
FAULTS = [reason for reason in Reason if reason not in {Reason.SUCCEEDED, Reason.UNREACHABLE}]
"""`Unreachable` is the keeper's answer to the operator, and no reason that a user sees."""


@pytest.mark.parametrize("reason", FAULTS)
def test_every_reason_has_a_remedy_in_the_documentation(reason: Reason) -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    assert re.search(rf"^\|[^|]*`{reason.value}`", page, re.MULTILINE), (
        f"docs/troubleshooting.md lacks {reason}"
    )


def test_the_table_of_exit_codes_is_right() -> None:
    page = (DOCS / "engines.md").read_text()
    for code in (ExitCode.USER_FAULT, ExitCode.PASSING_FAULT):
        (row,) = re.findall(rf"^\| {int(code)} \|.*$", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row):
            assert Report(Reason(name)).exit_code is code, name
