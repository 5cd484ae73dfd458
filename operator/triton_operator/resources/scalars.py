"""String types that several kinds share: quantities, durations, names, digests, times."""

import datetime as dt
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

_DECIMAL = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
QUANTITY_PATTERN = rf"^\+?{_DECIMAL}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{_DECIMAL}))?$"
DURATION_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,3})?(h|m|s))+$"
SIZE_PATTERN = r"^[1-9][0-9]{0,9}([KMGT]i|[kMGT])$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
COSINE_PATTERN = r"^(0(\.[0-9]{1,12})?|1(\.0{1,12})?)$"
PERCENT_PATTERN = r"^(100|[1-9]?[0-9])%$"
INT_OR_PERCENT_MAX = 1000

_UNIT_BYTES: dict[str, int] = {
    **{unit: 1000**power for power, unit in enumerate("kMGT", start=1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGT", start=1)},
}
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str) -> float:
    """Return the seconds of a Go-style duration of hours, minutes and seconds.

    Args:
        text: for example `168h`, `1h30m`, `0.5s`.

    Raises:
        ValueError: the text is not such a duration.
    """
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration: write hours, minutes, seconds, such as 168h or 1h30m")
    parts = re.findall(r"([0-9.]+)([hms])", text)
    return sum(float(count) * _UNIT_SECONDS[unit] for count, unit in parts)


def parse_size(text: str) -> int:
    """Return the bytes of a size.

    Args:
        text: a whole number with a unit, for example `64Gi` or `500M`.

    Raises:
        ValueError: the text is not such a size.
    """
    if not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError(f"{text!r} is not a size: write a whole number with a unit, such as 64Gi or 500M")
    unit = text.lstrip("0123456789")
    return int(text.removesuffix(unit)) * _UNIT_BYTES[unit]


def _quantity_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _int_or_percent(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number, or a percentage such as '25%'")  # noqa: TRY004 - pydantic's
    if isinstance(value, str) and not re.fullmatch(PERCENT_PATTERN, value):
        raise ValueError(f"{value!r} is not a percentage from 0% to 100%")
    if isinstance(value, int) and not 0 <= value <= INT_OR_PERCENT_MAX:
        raise ValueError(f"{value} is not between 0 and {INT_OR_PERCENT_MAX}")
    return value


def _whole_seconds(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return value.astimezone(dt.UTC).replace(microsecond=0)


def _rfc3339(value: dt.datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Field(pattern=QUANTITY_PATTERN, max_length=64),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 64,
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""A Kubernetes quantity (`2`, `500m`, `64Mi`); whole numbers are read as text."""

IntOrPercent = Annotated[
    int | str,
    BeforeValidator(_int_or_percent),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maximum": INT_OR_PERCENT_MAX,
            "maxLength": 4,
            "pattern": PERCENT_PATTERN,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""A number of pods, or a percentage of them, as Kubernetes' IntOrString (`1`, `25%`)."""

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=32)]
"""A Go-style duration of hours, minutes and seconds; see `parse_duration`."""

Size = Annotated[str, Field(pattern=SIZE_PATTERN, max_length=16)]
"""Bytes as a whole number with a unit; see `parse_size`."""

DnsLabel = Annotated[str, Field(pattern=DNS_LABEL_PATTERN, min_length=1, max_length=63)]
DnsSubdomain = Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, min_length=1, max_length=253)]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN, max_length=64)]
LabelValue = Annotated[str, Field(max_length=63)]

Timestamp = Annotated[dt.datetime, AfterValidator(_whole_seconds), PlainSerializer(_rfc3339, return_type=str)]
"""A time in whole seconds UTC, as Kubernetes keeps it: what is read back equals what was written."""
