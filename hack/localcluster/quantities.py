"""Kubernetes quantities, as far as sizes of storage need them."""

import re
from decimal import ROUND_CEILING, Decimal

_UNITS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(["k", "M", "G", "T", "P", "E"], start=1)},
    **{unit: 1024**power for power, unit in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], start=1)},
    **{unit: Decimal(1).scaleb(-3 * power) for power, unit in enumerate(["m", "u", "n"], start=1)},
}
_QUANTITY = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)(?P<unit>[A-Za-z]*)(?P<exponent>(?<=[eE])[+-]?\d+)?")


def to_bytes(quantity: str) -> int:
    """Return a quantity as bytes, rounded up; raise ValueError when it is none."""
    found = _QUANTITY.fullmatch(quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity, like 100Mi or 5G")
    number = Decimal(found["number"])
    if found["exponent"]:
        scaled = number.scaleb(int(found["exponent"])) if found["unit"] in {"e", "E"} else None
    else:
        scaled = number * _UNITS[found["unit"]] if found["unit"] in _UNITS else None
    if scaled is None:
        raise ValueError(f"{quantity!r} has an unknown unit")
    return int(scaled.to_integral_value(ROUND_CEILING))
