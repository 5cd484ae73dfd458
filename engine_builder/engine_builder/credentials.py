"""What the Secret of a source holds: a directory with a file for each key, as Kubernetes mounts it."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engine_builder.contract import Reason
from engine_builder.errors import JobError

CERTIFICATE_KEY = "ca.crt"
"""Authorities that are trusted besides the usual ones, in PEM."""

_SHORTEST_HIDDEN = 6


@dataclasses.dataclass(frozen=True)
class Credentials:
    """Keys and values of a Secret; values are text without the newline that editors add."""

    values: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, directory: Path | None, *, uri: str) -> Credentials:
        """Read a mounted Secret; without a directory there are no credentials.

        Raises:
            JobError: `AccessDenied` where the Secret is missing or empty.
        """
        if directory is None:
            return cls()
        try:
            found = [
                path for path in directory.iterdir() if not path.name.startswith("..") and path.is_file()
            ]
            values = {path.name: path.read_text(encoding="utf-8").rstrip("\r\n") for path in found}
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(
                Reason.ACCESS_DENIED,
                f"{uri}: the Secret of the source can't be read ({type(error).__name__}): its "
                "values must be text",
            ) from error
        if not values:
            raise JobError(
                Reason.ACCESS_DENIED,
                f"{uri}: the Secret that the source names does not exist in this namespace, or is empty",
            )
        return cls(values)

    def get(self, key: str) -> str | None:
        """Return the value of a key, or None where it is missing or empty."""
        return self.values.get(key) or None

    def hide(self, text: str) -> str:
        """Return a text for people without any of the values."""
        secrets = [
            v for key, v in self.values.items() if key != CERTIFICATE_KEY and len(v) >= _SHORTEST_HIDDEN
        ]
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text


def trust(credentials: Credentials) -> str:
    """Have this process trust the usual authorities and those of the Secret; return the file with them."""
    import certifi

    usual = os.environ.get("SSL_CERT_FILE") or certifi.where()
    own = credentials.get(CERTIFICATE_KEY)
    if own is not None:
        with tempfile.NamedTemporaryFile("w", prefix="ca-", suffix=".crt", delete=False) as file:
            file.write(Path(usual).read_text(encoding="utf-8") + "\n" + own + "\n")
        usual = file.name
    os.environ["SSL_CERT_FILE"] = usual  # OpenSSL's own, for the libraries that make contexts themselves
    return usual
