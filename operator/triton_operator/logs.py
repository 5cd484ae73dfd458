"""Logs: one line per event, as JSON in a cluster, with the object it is about."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["json", "text"]

_QUIET = ("kopf", "aiohttp.access", "aiohttp.server", "kubernetes", "asyncio", "urllib3")
_FOREIGN_FIELDS = ("k8s_skip", "k8s_ref", "settings", "taskName")
"""What kopf and asyncio add to records, and nobody reads."""


def about(
    kind: str, namespace: str, name: str, *, generation: int | None = None, **more: Any
) -> dict[str, Any]:
    """Return the `extra` of a log call about one object.

    `log.info("promoted", extra=about("InferenceModel", "vision", "det", generation=3))`
    """
    fields = {"kind": kind, "namespace": namespace, "object": name, **more}
    return fields if generation is None else {**fields, "generation": generation}


def configure(*, level: str = "INFO", style: LogFormat = "json", stream: TextIO | None = None) -> None:
    """Send all logs to one stream (stderr by default), those of libraries from WARNING on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_json_formatter() if style == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class _JsonFormatter(JsonFormatter):
    """JSON in one line; the object's name stands under `name`, the logger's under `logger`."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        if "object" in log_data:
            log_data["name"] = log_data.pop("object")
        for field in _FOREIGN_FIELDS:
            log_data.pop(field, None)
        return super().process_log_record(log_data)


def _json_formatter() -> logging.Formatter:
    # `name` is taken in Python's records, so objects travel as `object` and get their name here
    return _JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
        json_ensure_ascii=False,
        json_default=str,
    )


class _TextFormatter(logging.Formatter):
    """For people at a terminal: time, level, object, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(where)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        fields = vars(record)
        record.where = ""
        if "object" in fields:
            record.where = f"{fields.get('kind')} {fields.get('namespace')}/{fields['object']}: "
        return super().format(record)
