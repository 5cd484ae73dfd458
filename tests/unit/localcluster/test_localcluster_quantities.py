import pytest

from localcluster.quantities import to_bytes


@pytest.mark.parametrize(
    ("quantity", "size"),
    [
        ("0", 0),
        ("128974848", 128974848),
        ("100Mi", 100 * 1024**2),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("5G", 5 * 10**9),
        ("5k", 5000),
        (".5Ki", 512),
        ("129e6", 129_000_000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1500m", 2),
    ],
)
def test_size_in_bytes(quantity: str, size: int) -> None:
    assert to_bytes(quantity) == size


@pytest.mark.parametrize("text", ["", "Mi", "5 Gi", "-1Gi", "5gi", "1e", "5K", "1Mi3"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|unit"):
        to_bytes(text)
