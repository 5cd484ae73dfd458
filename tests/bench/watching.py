"""When the API server said what: a watch in a thread, with the time at which each change arrived.

A watch ends with the process, or with the API server: closing a response that a thread reads blocks.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import requests
from tests.integration.kube import path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.kube import Kube

Object = dict[str, Any]

LONG_SECONDS = 300.0


class Watch:
    """The changes to objects of a kind in a namespace since the watch began."""

    def __init__(self, kube: Kube, kind: str) -> None:
        self._seen: list[tuple[float, Object]] = []
        self._news = threading.Condition()
        session = requests.Session()
        session.trust_env = False
        url = f"{kube.url}{path_of(kind, namespace=kube.namespace)}?watch=true&timeoutSeconds=3600"
        self._response = session.get(url, stream=True, timeout=(10, 3600))
        self._response.raise_for_status()
        self._thread = threading.Thread(target=self._follow, name=f"watch of {kind}", daemon=True)
        self._thread.start()

    def first(self, check: Callable[[Object], bool]) -> tuple[float, Object]:
        """Return the first object seen, now or later, of which this is true, and when it was seen."""

        def found() -> tuple[float, Object] | None:
            return next((each for each in self._seen if check(each[1])), None)

        with self._news:
            result = self._news.wait_for(found, timeout=LONG_SECONDS)
        assert result is not None, f"not seen within {LONG_SECONDS:g} s"
        return result

    def _follow(self) -> None:
        with contextlib.suppress(requests.RequestException, OSError):
            for line in self._response.iter_lines():
                with self._news:
                    self._seen.append((time.monotonic(), json.loads(line)["object"]))
                    self._news.notify_all()
