"""The keeper's log: one JSON line per transition on stdout."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone


def log(event: str, *, level: str = "info", **fields: object) -> None:
    """Write one line; at rest nothing calls this."""
    line = {
        "time": datetime.now(tz=timezone.utc).isoformat(timespec="milliseconds"),
        "level": level,
        "event": event,
        **fields,
    }
    sys.stdout.write(json.dumps(line, default=str) + "\n")
    sys.stdout.flush()
