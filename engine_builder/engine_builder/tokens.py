"""Keys and signed requests between operator and keeper.

One master key stays in the operator's namespace; every object's key derives from it, and a
request carries a token that admits exactly this method, path and body for a minute.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

TOKEN_SECONDS = 60
"""How long a token is good for; also the clock skew that operator and keeper may have."""


def derive_key(master: bytes, purpose: str, uid: str) -> bytes:
    """Derive the key of one object from the operator's master key (HMAC-SHA256)."""
    return hmac.new(master, f"{purpose}:{uid}".encode(), hashlib.sha256).digest()


def sign_request(key: bytes, *, method: str, path: str, body: bytes, now: float | None = None) -> str:
    """Return a bearer token for exactly this request, good for `TOKEN_SECONDS`."""
    claims = {
        "method": method,
        "path": path,
        "body": hashlib.sha256(body).hexdigest(),
        "expires": (time.time() if now is None else now) + TOKEN_SECONDS,
    }
    payload = base64.urlsafe_b64encode(json.dumps(claims, sort_keys=True).encode()).decode()
    return f"{payload}.{_mac(key, payload)}"


def verify_request(
    key: bytes, token: str, *, method: str, path: str, body: bytes, now: float | None = None
) -> str | None:
    """Return why the token does not admit this request, or None when it does."""
    payload, _, signature = token.partition(".")
    if not hmac.compare_digest(_mac(key, payload).encode(), signature.encode()):
        return "the signature does not match the keeper's key"
    claims = json.loads(base64.urlsafe_b64decode(payload))
    expires = float(claims["expires"])
    now = time.time() if now is None else now
    if not now - TOKEN_SECONDS <= expires - TOKEN_SECONDS <= now + TOKEN_SECONDS:
        return "the token has expired, or the clocks of operator and keeper differ by over a minute"
    if (claims["method"], claims["path"]) != (method, path):
        return "the token was made for another request"
    if claims["body"] != hashlib.sha256(body).hexdigest():
        return "the body was changed on its way"
    return None


def _mac(key: bytes, payload: str) -> str:
    return hmac.new(key, payload.encode(), hashlib.sha256).hexdigest()
