from __future__ import annotations

import io
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from triton_operator.logs import about, configure

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = before
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_carries_the_object_it_is_about(stream: io.StringIO) -> None:
    configure(stream=stream)
    logging.getLogger("triton_operator.app").info(
        "promoted", extra=about("InferenceModel", "vision", "det", generation=3, version=2)
    )
    (line,) = lines(stream)
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "triton_operator.app",
        "message": "promoted",
        "kind": "InferenceModel",
        "namespace": "vision",
        "name": "det",
        "generation": 3,
        "version": 2,
    }


def test_traceback_stays_in_one_line(stream: io.StringIO) -> None:
    configure(stream=stream)
    try:
        1 / 0  # noqa: B018 - raises
    except ZeroDivisionError:
        logging.getLogger("triton_operator").exception("reconcile failed")
    (line,) = lines(stream)
    assert "ZeroDivisionError" in line["exc_info"]
    assert "\n" in line["exc_info"]


def test_libraries_are_heard_from_warning_on(stream: io.StringIO) -> None:
    configure(stream=stream, level="DEBUG")
    logging.getLogger("kopf.objects").info(
        "Handler 'x' succeeded.", extra={"k8s_skip": True, "settings": object()}
    )
    logging.getLogger("kopf._core").warning("watching is stopped", extra={"k8s_ref": {}})
    (line,) = lines(stream)
    assert (line["logger"], line["message"]) == ("kopf._core", "watching is stopped")
    assert set(line) == {"time", "level", "logger", "message"}


def test_what_json_can_not_hold_is_written_as_text(stream: io.StringIO) -> None:
    configure(stream=stream)
    logging.getLogger("triton_operator").info("odd", extra={"what": {1, 2}, "ümlaut": "ß"})
    (line,) = lines(stream)
    assert line["ümlaut"] == "ß"
    assert line["what"] in ("{1, 2}", [1, 2])


def test_warnings_of_python_become_lines(stream: io.StringIO) -> None:
    configure(stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (line,) = lines(stream)
    assert "DeprecationWarning: old" in line["message"]


def test_text_names_the_object_for_people(stream: io.StringIO) -> None:
    configure(stream=stream, style="text")
    log = logging.getLogger("triton_operator")
    log.info("promoted", extra=about("InferenceModel", "vision", "det"))
    log.info("started")
    promoted, started = stream.getvalue().splitlines()
    assert promoted.endswith("INFO    InferenceModel vision/det: promoted")
    assert started.endswith("INFO    started")
