"""Object stores of clouds and their like (`s3://`, `gs://`, `az://`), through fsspec."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import fsspec

from engine_builder import web
from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.remote import Found, Interrupted

if TYPE_CHECKING:
    from engine_builder.credentials import Credentials

BLOCK = 16 << 20
"""Bytes of one request: what a transfer that breaks has to fetch again."""

_TAGS = ("generation", "ETag", "etag")
_DENIED = frozenset({401, 403})
_CHANGED = frozenset({412})
_NOT_FOUND = frozenset({404, 410})
_CLIENT_ERRORS = range(400, 500)
_PASSING = frozenset({408, 429})
_CONNECT_SECONDS, _READ_SECONDS = 10, 60
_UNKNOWN_KEYS = frozenset({"InvalidAccessKeyId", "XAdminUserNotFound"})
"""S3's code for a key that it doesn't know, and that of gateways which say 404 with it."""
_REFUSED = frozenset({"NoCredentialsError", "RefreshError", "ClientAuthenticationError"})
_STORES = ("botocore.", "aiobotocore.", "aiohttp.", "azure.core.", "gcsfs.", "google.auth.", "fsspec.")


def s3_options(credentials: Credentials, *, bundle: str) -> dict[str, Any]:
    """Return the options of s3fs; without keys nobody is logged in, and nothing around it is asked."""
    key = credentials.get("AWS_ACCESS_KEY_ID")
    return {
        "anon": key is None,
        "key": key,
        "secret": credentials.get("AWS_SECRET_ACCESS_KEY"),
        "token": credentials.get("AWS_SESSION_TOKEN"),
        "endpoint_url": credentials.get("AWS_ENDPOINT_URL"),
        "client_kwargs": {"region_name": credentials.get("AWS_REGION") or "us-east-1", "verify": bundle},
        "config_kwargs": {
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retries": {"max_attempts": 2, "mode": "standard"},
        },
        "default_fill_cache": False,
    }


def gs_options(credentials: Credentials, *, uri: str) -> dict[str, Any]:
    """Return the options of gcsfs: a service account's key, or nobody."""
    key = credentials.get("GOOGLE_APPLICATION_CREDENTIALS")
    if key is None:
        return {"token": "anon"}
    try:
        return {"token": json.loads(key)}
    except ValueError as error:
        raise JobError(
            Reason.ACCESS_DENIED,
            f"{uri}: GOOGLE_APPLICATION_CREDENTIALS of the Secret must hold a service account's key in JSON",
        ) from error


def az_options(credentials: Credentials, *, uri: str) -> dict[str, Any]:
    """Return the options of adlfs: a connection string, or an account with a key, a SAS token or nothing."""
    text = credentials.get("AZURE_STORAGE_CONNECTION_STRING")
    if text is not None:
        return {"connection_string": text}
    account = credentials.get("AZURE_STORAGE_ACCOUNT_NAME")
    if account is None:
        raise JobError(
            Reason.ACCESS_DENIED,
            f"{uri}: the source's Secret must have AZURE_STORAGE_ACCOUNT_NAME (or "
            "AZURE_STORAGE_CONNECTION_STRING): the URI names no storage account",
        )
    key, sas = credentials.get("AZURE_STORAGE_ACCOUNT_KEY"), credentials.get("AZURE_STORAGE_SAS_TOKEN")
    anon = key is None and sas is None
    return {"account_name": account, "account_key": key, "sas_token": sas, "anon": anon}


def open_store(uri: str, *, credentials: Credentials, bundle: str) -> Cloud:
    """Return the object store that a URI names.

    Raises:
        JobError: `AccessDenied` where the Secret lacks what the store needs.
    """
    scheme, _, rest = uri.partition("://")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # credentials come from Secrets alone
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # gRPC's connections pass by the gate
    options = {
        "s3": lambda: s3_options(credentials, bundle=bundle),
        "gs": lambda: gs_options(credentials, uri=uri),
        "az": lambda: az_options(credentials, uri=uri),
    }[scheme]()
    system = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
    if scheme == "s3":
        system.retries = 1  # `RemoteLocation` asks again, and a gate stays closed
    return Cloud(system, bucket=rest.partition("/")[0], uri=uri)


class Cloud:
    """A bucket or container."""

    def __init__(self, system: Any, *, bucket: str, uri: str) -> None:
        self._system, self._bucket, self._uri = system, bucket, uri

    def find(self, path: str) -> Found | None:
        """Return an object as it is now, or None where others lie below the path."""
        try:
            found = self._system.info(self._key(path))
        except Exception as error:
            raise self._translated(error, path) from error
        if found["type"] == "directory":
            return None
        return Found(int(found["size"]), _tag(found))

    def names(self, path: str) -> list[str]:
        """Return what lies below a path."""
        try:
            found = self._system.ls(self._key(path), detail=False)
        except Exception as error:
            raise self._translated(error, path) from error
        return [str(name).rstrip("/").rpartition("/")[2] for name in found]

    def read(self, path: str, found: Found, start: int) -> Iterator[bytes]:
        """Yield an object's bytes from `start` on."""
        try:
            with self._system.open(self._key(path), "rb", block_size=BLOCK, cache_type="none") as file:
                self._require_same(found, file.details)
                file.seek(start)
                while piece := file.read(BLOCK):
                    yield piece
            self._require_same(found, self._system.info(self._key(path)))  # not all make ranges conditional
        except JobError:
            raise
        except Exception as error:
            raise self._translated(error, path) from error

    def close(self) -> None:
        """Connections end with the process."""

    def _key(self, path: str) -> str:
        return f"{self._bucket}/{path}" if path else self._bucket

    def _require_same(self, found: Found, now: Mapping[str, Any]) -> None:
        if (_tag(now), int(now["size"])) != (found.tag, found.size):
            raise web.changed(self._uri)

    def _translated(self, error: Exception, path: str) -> Exception:
        status = _status(error)
        if isinstance(error, PermissionError) or status in _DENIED or _is_refusal(error):
            return JobError(
                Reason.ACCESS_DENIED,
                f"{self._uri}: the store refuses to show {path!r} ({_said(error)}): look at secretName, "
                "and at the rights of what that Secret holds",
            )
        if isinstance(error, FileNotFoundError) or status in _NOT_FOUND:
            return JobError(
                Reason.SOURCE_NOT_FOUND,
                f"{self._uri}: {path!r} does not exist in {self._bucket}; put the file there or "
                "correct the URI",
            )
        if type(error).__name__ == "FileExpired" or status in _CHANGED:
            return web.changed(self._uri)
        if status in _CLIENT_ERRORS and status not in _PASSING:
            return JobError(Reason.SOURCE_NOT_FOUND, f"{self._uri}: the store says: {_said(error)}")
        if isinstance(error, OSError | asyncio.TimeoutError) or _is_of_a_store(error):
            return Interrupted(f"the store does not answer as it should ({_said(error)})")
        return error


def _is_refusal(error: Exception) -> bool:
    response = getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None
    return code in _UNKNOWN_KEYS or type(error).__name__ in _REFUSED


def _is_of_a_store(error: Exception) -> bool:
    return type(error).__module__.startswith(_STORES)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error of any of the libraries, or None."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        found = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
        if isinstance(found, int):
            return found
    for name in ("status_code", "code", "status"):
        found = getattr(error, name, None)
        if isinstance(found, int):
            return found
    return _status(error.__cause__) if error.__cause__ is not None else None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _tag(found: Mapping[str, Any]) -> str:
    return next((str(found[name]) for name in _TAGS if found.get(name)), "")
