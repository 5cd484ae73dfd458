from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder import hosts
from engine_builder.gate import Gate, GateError
from triton_operator.resources.model_repository import ALLOWED_HOST_PATTERN


def _allows(line: str, host: str, port: int = 443) -> bool:
    return hosts.is_allowed([hosts.parse(line)], host, port)


def _gate(*lines: str) -> Gate:
    return Gate([hosts.parse(line) for line in lines])


def _found(*addresses: str, port: int = 443) -> list[tuple[object, object, int, str, object]]:
    """Return what a name is looked up as."""
    return [(0, 0, 0, "", (address, port)) for address in addresses]


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        ("models.example", "models.example", 443),
        ("models.example", "MODELS.example.", 443),
        ("minio.storage.svc:9000", "minio.storage.svc", 9000),
        ("*.s3.eu-central-1.amazonaws.com", "bucket.s3.eu-central-1.amazonaws.com", 443),
        ("*.example", "a.b.example", 443),
        ("10.0.0.7:9000", "10.0.0.7", 9000),
        ("[fd00::7]", "fd00:0::7", 443),
        ("[fd00::7]:9000", "[fd00::7]", 9000),
    ],
)
def test_a_line_allows_what_it_names(line: str, host: str, port: int) -> None:
    assert _allows(line, host, port)


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        ("models.example", "models.example", 80),
        ("models.example", "evil-models.example", 443),
        ("models.example", "a.models.example", 443),
        ("*.example", "example", 443),
        ("*.example", "badexample", 443),
        ("*.example", ".example", 443),
        ("minio:9000", "minio", 443),
        ("10.0.0.7", "10.0.0.71", 443),
    ],
)
def test_a_line_allows_nothing_else(line: str, host: str, port: int) -> None:
    assert not _allows(line, host, port)


@pytest.mark.parametrize(
    "line", ["", "*", "*.", "https://a", "a/b", "a b", "a:0", "a:65536", "a:x", "user@a", "a..:1 ", "fd00::7"]
)
def test_a_line_that_says_nothing_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        hosts.parse(line)


@given(st.from_regex(ALLOWED_HOST_PATTERN, fullmatch=True))
def test_whatever_the_schema_admits_is_read_but_for_a_port_that_no_host_has(line: str) -> None:
    try:
        entry = hosts.parse(line)
    except ValueError:
        assert not 0 < int(line.rpartition(":")[2]) <= 65535
        return
    assert entry.allows(entry.host.replace("*", "x"), entry.port)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "0.1.2.3", "::", "169.254.0.1", "169.254.169.254"),  # noqa: S104
        *("fe80::1", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "224.0.0.1", "ff02::1"),
        *("255.255.255.255", "240.0.0.1"),
        # IPv4 in the clothes of IPv6
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "::127.0.0.1"),
    ],
)
def test_some_addresses_are_never_asked(address: str) -> None:
    assert hosts.never(ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize(
    "address", ["10.96.0.1", "192.168.1.1", "52.219.0.1", "fd00::7", "2a00::1", "64:ff9b::808:808"]
)
def test_private_and_public_addresses_may_be_asked(address: str) -> None:
    assert hosts.never(ipaddress.ip_address(address)) is None


@given(st.ip_addresses(network="127.0.0.0/8") | st.ip_addresses(network="169.254.0.0/16"))
def test_an_address_is_refused_in_whichever_form_it_comes(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    forms = (
        address,
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(0x0064_FF9B << 96 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    )
    assert all(hosts.never(form) is not None for form in forms)


# What stands between a process and its network.


def test_a_name_that_the_list_does_not_have_is_not_looked_up() -> None:
    gate = _gate("models.example")
    gate.require_host("models.example", 443)
    with pytest.raises(GateError, match=r"add evil.example:8443 to spec.allowedHosts"):
        gate.require_host("evil.example", 8443)
    assert "evil.example" in gate.refusal


def test_an_allowed_name_leads_only_to_addresses_that_may_be_asked() -> None:
    gate = _gate("models.example")
    admitted = gate.admitted("models.example", 443, _found("169.254.169.254", "10.0.0.7", "127.0.0.1"))
    assert [each[4][0] for each in admitted] == ["10.0.0.7"]
    gate.check_connection(("10.0.0.7", 443))
    with pytest.raises(GateError, match=r"resolves to 169\.254\.169\.254"):
        gate.admitted("models.example", 443, _found("169.254.169.254"))


def test_a_connection_goes_to_an_address_that_was_looked_at_and_to_no_other() -> None:
    gate = _gate("models.example")
    gate.admitted("models.example", 443, _found("52.219.0.1"))
    gate.check_connection(("52.219.0.1", 443))
    for target in (("52.219.0.2", 443), ("52.219.0.1", 80), ("::1", 443, 0, 0), ("models.example", 443)):
        with pytest.raises(GateError):
            gate.check_connection(target)


def test_loopback_is_reached_only_where_the_list_has_that_very_address_and_port() -> None:
    gate = _gate("localhost:7070", "127.0.0.1:7070")
    assert gate.admitted("localhost", 7070, _found("127.0.0.1"))
    gate.check_connection(("127.0.0.1", 7070))
    with pytest.raises(GateError):
        gate.check_connection(("127.0.0.1", 7071))
    with pytest.raises(GateError):
        _gate("localhost:7070").admitted("localhost", 7070, _found("127.0.0.1"))


def test_a_metadata_service_is_not_reached_even_where_the_list_has_it() -> None:
    gate = _gate("169.254.169.254", "metadata.internal")
    with pytest.raises(GateError, match="metadata service"):
        gate.check_connection(("169.254.169.254", 443))
    with pytest.raises(GateError):
        gate.admitted("metadata.internal", 443, _found("169.254.169.254"))
