"""Files of web servers (`https://`), and the transfers that OCI registries share with them.

fsspec's own HTTP file system can neither make a range conditional nor refuse a redirect that
leaves TLS; requests can.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

import requests
import requests.adapters

from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.remote import Found, Interrupted

if TYPE_CHECKING:
    from engine_builder.credentials import Credentials

CHUNK = 1 << 20
TIMEOUT = (10.0, 60.0)
"""Seconds for a connection, and between two pieces of an answer."""
REDIRECTS = 5
PARTIAL = 206
"""Status of an answer that is a part of the file."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_OK = 200
_DENIED = frozenset({401, 403, 407})
_GONE = frozenset({404, 410})
_CHANGED = frozenset({412, 416})
_PASSING = frozenset({408, 425, 429})
_SERVER_ERRORS = 500


class _Patient(requests.adapters.HTTPAdapter):  # type: ignore[misc] # requests has no types of its own
    """Waits no longer than `TIMEOUT`, also where the caller (oras) sets no limit."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request."""
        return super().send(request, *args, **{**kwargs, "timeout": kwargs.get("timeout") or TIMEOUT})


def session(*, bundle: str) -> requests.Session:
    """Return a session that speaks TLS alone, follows few redirects and heeds nothing around it."""
    made = requests.Session()
    made.trust_env = False  # no proxies, no netrc
    made.verify = bundle
    made.max_redirects = REDIRECTS
    made.headers["Accept-Encoding"] = "identity"
    made.adapters.pop("http://")
    made.mount("https://", _Patient())
    return made


def get(made: requests.Session, url: str, *, headers: Mapping[str, str], uri: str) -> requests.Response:
    """Ask for a URL; the body is still to be read.

    Raises:
        JobError: `HostNotAllowed` for a redirect out of TLS, `SourceUnreachable` for a certificate.
        Interrupted: no answer.
    """
    try:
        return made.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.InvalidSchema as error:
        raise JobError(
            Reason.HOST_NOT_ALLOWED, f"{uri}: the server redirects to something else than https://"
        ) from error
    except requests.exceptions.TooManyRedirects as error:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri}: more than {REDIRECTS} redirects") from error
    except requests.exceptions.SSLError as error:
        raise JobError(
            Reason.SOURCE_UNREACHABLE,
            f"{uri}: the server's certificate is not trusted: put its authority into the key ca.crt of the "
            f"source's Secret ({_cause(error)})",
        ) from error
    except requests.exceptions.RequestException as error:
        raise Interrupted(f"no answer ({_cause(error)})") from error


def _cause(error: BaseException) -> str:
    """Return the innermost cause: requests and urllib3 wrap each other's."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def refuse(response: requests.Response, *, uri: str) -> NoReturn:
    """Raise what an answer that brings no file means."""
    status = response.status_code
    response.close()
    if status in _DENIED:
        raise JobError(
            Reason.ACCESS_DENIED,
            f"{uri}: the server answered {status}: look at secretName, and the rights of what it holds",
        )
    if status in _GONE:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri}: the server answered {status}: there is no such file")
    if status in _CHANGED:
        raise changed(uri)
    if status in _PASSING or status >= _SERVER_ERRORS:
        raise Interrupted(f"the server answered {status}")
    raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri}: the server answered {status}, which brings no file")


def changed(uri: str) -> JobError:
    """Return the fault of a source that is not what it was at the first look."""
    return JobError(
        Reason.SOURCE_CHANGED,
        f"{uri} was replaced while it was read; it is read again from the beginning",
    )


def pieces(response: requests.Response) -> Generator[bytes, None, None]:
    """Yield the body of an answer.

    Raises:
        Interrupted: it broke, or nothing came for long.
    """
    with response:
        try:
            yield from response.iter_content(CHUNK)
        except requests.exceptions.RequestException as error:
            raise Interrupted(f"the transfer broke ({_cause(error)})") from error


@dataclasses.dataclass
class Download:
    """One file behind a URL: looked at by the request that may also bring it."""

    session: requests.Session
    url: str
    uri: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    _waiting: requests.Response | None = dataclasses.field(default=None, init=False)

    def find(self) -> Found:
        """Return size and tag; the answer is kept for the reading that follows."""
        response = get(self.session, self.url, headers=self.headers, uri=self.uri)
        if response.status_code != _OK:
            refuse(response, uri=self.uri)
        self._waiting, size = response, response.headers.get("Content-Length", "")
        if not size.isdecimal() or response.headers.get("Content-Encoding", "identity") != "identity":
            raise JobError(
                Reason.UNSAFE_SOURCE,
                f"{self.uri}: the server does not say how many bytes the file has (Content-Length), or packs "
                "it; use a server that sends plain files",
            )
        return Found(int(size), _tag(response))

    def read(self, found: Found, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on."""
        response, self._waiting = self._waiting, None
        if response is None or start:
            response = self._again(found, start)
        if _tag(response) != found.tag:
            response.close()
            raise changed(self.uri)
        yield from pieces(response)

    def _again(self, found: Found, start: int) -> requests.Response:
        headers = {**self.headers, "Range": f"bytes={start}-"}
        if found.tag.startswith('"'):
            headers["If-Match"] = found.tag
        response = get(self.session, self.url, headers=headers, uri=self.uri)
        if response.status_code == _OK and start == 0:
            return response
        if response.status_code == _OK:
            response.close()
            raise JobError(
                Reason.SOURCE_UNREACHABLE,
                f"{self.uri}: the transfer broke after {start} bytes, and the server can't go on from "
                "there; it is read again from the beginning",
            )
        if response.status_code != PARTIAL:
            refuse(response, uri=self.uri)
        said = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if said is None or (int(said[1]), int(said[3])) != (start, found.size):
            response.close()
            raise changed(self.uri)
        return response


def _tag(response: requests.Response) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


class Web:
    """Files of one web server, with the query of the URI (a signed URL has one)."""

    def __init__(self, uri: str, *, credentials: Credentials, bundle: str) -> None:
        parts = urlsplit(uri)
        self._host, self._query = parts.netloc, parts.query
        self._uri = f"https://{parts.netloc}{parts.path}"
        self._session = session(bundle=bundle)
        self._headers = _authorization(credentials, self._session)
        self._downloads: dict[str, Download] = {}

    def find(self, path: str) -> Found:
        """Return a file as it is now; web servers have no directories."""
        url = f"https://{self._host}/{quote(path)}" + (f"?{self._query}" if self._query else "")
        self._downloads[path] = Download(self._session, url, self._uri_of(path), self._headers)
        return self._downloads[path].find()

    def names(self, path: str) -> list[str]:
        """Web servers list nothing."""
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{self._uri_of(path)}: name a file")

    def read(self, path: str, found: Found, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on."""
        if path not in self._downloads:  # asked in an earlier process
            self.find(path)
        return self._downloads[path].read(found, start)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _uri_of(self, path: str) -> str:
        return f"https://{self._host}/{quote(path)}"


def _authorization(credentials: Credentials, made: requests.Session) -> dict[str, str]:
    token, user = credentials.get("token"), credentials.get("username")
    if token is not None:
        return {"Authorization": f"Bearer {token}"}
    if user is not None:
        made.auth = (user, credentials.get("password") or "")
    return {}
