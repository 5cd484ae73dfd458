from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine_builder.tokens import TOKEN_SECONDS, derive_key, sign_request, verify_request

KEY = derive_key(b"master", "keeper", "uid-1")
NOW = 1_800_000_000.0


def _sign(method: str = "PUT", path: str = "/v1/x", body: bytes = b"body", key: bytes = KEY) -> str:
    return sign_request(key, method=method, path=path, body=body, now=NOW)


def _verify(
    token: str, method: str = "PUT", path: str = "/v1/x", body: bytes = b"body", now: float = NOW
) -> str | None:
    return verify_request(KEY, token, method=method, path=path, body=body, now=now)


@given(st.text(max_size=20), st.text(max_size=50), st.binary(max_size=100))
def test_a_token_admits_its_own_request(method: str, path: str, body: bytes) -> None:
    assert _verify(_sign(method, path, body), method, path, body) is None


@given(st.data())
def test_a_token_changed_anywhere_admits_nothing(data: st.DataObject) -> None:
    token = _sign()
    position = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(
        st.characters(min_codepoint=33, max_codepoint=0x2FF).filter(lambda c: c != token[position])
    )
    assert _verify(token[:position] + other + token[position + 1 :]) is not None


@given(st.text(max_size=200))
def test_arbitrary_text_is_no_token(text: str) -> None:
    assert _verify(text) is not None


def test_a_token_admits_no_other_request() -> None:
    assert "another request" in (_verify(_sign(), method="GET") or "")
    assert "another request" in (_verify(_sign(), path="/v1/y") or "")
    assert "body" in (_verify(_sign(), body=b"other") or "")


def test_a_token_ends_after_a_minute_and_none_comes_from_the_future() -> None:
    assert _verify(_sign(), now=NOW + TOKEN_SECONDS - 1) is None
    assert "expired" in (_verify(_sign(), now=NOW + TOKEN_SECONDS + 1) or "")
    assert "clocks" in (_verify(_sign(), now=NOW - TOKEN_SECONDS - 1) or "")


def test_another_objects_key_signs_nothing_here() -> None:
    for other in (derive_key(b"master", "keeper", "uid-2"), derive_key(b"master", "triton", "uid-1")):
        assert "signature" in (_verify(_sign(key=other)) or "")
