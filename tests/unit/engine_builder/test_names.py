from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder import names

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKS = [
    names.is_engine,
    names.is_server,
    names.is_release,
    names.is_model,
    names.is_file,
    names.is_version,
    names.is_staging,
    names.is_digest,
]


@pytest.mark.parametrize("check", CHECKS)
@given(text=st.text(max_size=30) | st.from_regex(r"[a-z0-9./~\\ \n-]{0,12}", fullmatch=True))
def test_no_name_leaves_its_directory_or_hides(check: Callable[[str], bool], text: str) -> None:
    if check(text):
        assert text not in {"", ".", ".."}
        assert not set(text) & set("/\\\0\n ~")
        assert not text.startswith((".", "-"))
        assert ".." not in text


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (names.is_version, ["1", "2147483647"], ["0", "-1", "01", "2147483648", "1.0", "\u0661", "1\n"]),
        (names.is_release, ["26.07"], ["26.7", "26.07.1", "26-07", "26.07\n", "\u0662\u0666.07"]),
        (
            names.is_model,
            ["a", "Text_1.v-2", "_x", "m" * 128 + ".candidate"],
            ["", ".a", "a b", "a..b", "m" * 200],
        ),
        (
            names.is_file,
            ["labels_y.txt", "_", "A-b.c"],
            ["1", "1.txt", ".x", "-x", "a..b", "ü", "x\n", "x" * 256],
        ),
        (names.is_server, ["a10", "a.b"], ["A10", "a..b", "-a", "a-", "a_b", "x" * 254]),
        (names.is_engine, ["onnxruntime-0123456789abcdef"], ["Onnx", "a/b", ".hidden", "a.b"]),
        (names.is_digest, ["0" * 64], ["0" * 63, "A" * 64, "g" * 64]),
    ],
)
def test_names_are_what_kubernetes_and_triton_call_so(
    check: Callable[[str], bool], good: list[str], bad: list[str]
) -> None:
    assert [n for n in good if not check(n)] == []
    assert [n for n in bad if check(n)] == []
