"""A source read as a job reads it, in a process of its own: its report, and what it said."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from engine_builder.contract import Reason, Report, from_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_JOB = """
import json, sys
from pathlib import Path
from engine_builder import job, prepare
from engine_builder.progress import Progress
from engine_builder.remote import Access

asked, progress = json.loads(sys.argv[1]), Progress()
access = Access(
    allowed_hosts=tuple(asked["hosts"]),
    credentials=Path(asked["credentials"]) if asked["credentials"] else None,
    pauses=(0.05, 0.1, 0.2),
)

def resolve():
    return prepare.resolve(
        asked["uri"], source_root=Path("/nowhere"), max_bytes=asked["max_bytes"], progress=progress,
        access=access,
    )

def make():
    return prepare.prepare(
        prepare.PrepareRequest(
            repository=Path(asked["repository"]), engine="onnxruntime-0123456789abcdef", key="ab" * 32,
            uri=asked["uri"], staging_uid="uid-1", sha256=asked["sha256"], max_bytes=asked["max_bytes"],
            access=access,
        ),
        progress,
    )

work = make if asked["repository"] else resolve
sys.exit(job.run_job(work, engine="", progress=progress, termination_log=Path(asked["log"])))
"""
"""The command's own work, with pauses between attempts that tests can wait for."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """A directory for what a job leaves behind, and the hosts that it may ask."""

    directory: Path
    hosts: tuple[str, ...]

    def read(
        self,
        uri: str,
        *,
        secret: Mapping[str, str] | None = None,
        hosts: Sequence[str] | None = None,
        sha256: str | None = None,
        max_bytes: int = 1 << 30,
        into: Path | None = None,
    ) -> tuple[Report, str]:
        """Look a source up, or prepare it `into` a repository; return the report and what was printed."""
        log = self.directory / "termination-log"
        if into is not None:
            into.mkdir(exist_ok=True)
        asked = {
            "uri": uri,
            "hosts": list(self.hosts if hosts is None else hosts),
            "credentials": str(self._mounted(secret)) if secret is not None else "",
            "repository": str(into or ""),
            "sha256": sha256,
            "max_bytes": max_bytes,
            "log": str(log),
        }
        done = subprocess.run(
            [sys.executable, "-c", _JOB, json.dumps(asked)],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
            env={**os.environ, "TMPDIR": str(self.directory)},
        )
        report = from_json(Report, log.read_text())
        said = done.stdout + done.stderr
        print(said)
        assert done.returncode == int(report.exit_code), said
        return report, said

    def refused(self, uri: str, **kwargs: object) -> tuple[Reason, str]:
        """Return the reason and the message of a source that can't be read."""
        report, _ = self.read(uri, **kwargs)  # type: ignore[arg-type]
        return report.reason, report.message

    def _mounted(self, secret: Mapping[str, str]) -> Path:
        """Return a directory that holds a Secret as Kubernetes mounts it."""
        directory = self.directory / "credentials"
        directory.mkdir(exist_ok=True)
        for path in directory.iterdir():
            path.unlink()
        for key, value in secret.items():
            (directory / key).write_text(value + "\n")
        return directory
