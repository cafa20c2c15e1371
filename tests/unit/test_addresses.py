"""Addresses that cannot work are named at start, with what they should be and without their password."""

from unittest import mock

import pytest

from watchbill.addresses import check_database_url, check_http_url
from watchbill.errors import Invalid


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:hunter2@db.example.com:5432/x?sslmode=verify-full",
        "postgresql://ada@[2001:db8::1]:5432/x",
        "postgresql://ada@[fe80::1%25eth0]/x",
        "postgresql://ada@a.example.com:5432,b.example.com:5433/x?target_session_attrs=primary",
        "postgres://ada@/x?host=%2Frun%2Fpostgresql",
        "postgresql:///x?user=ada&host=/run/postgresql",
        "postgresql://a%40b:p%2Fw@db.example.com/x",
    ],
)
def test_addresses_of_databases(url: str) -> None:
    check_database_url(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgre://ada:hunter2@db.example.com/x", "must begin with postgresql://"),
        ("postgresql://ada:hunter2@[::1/x", "IPv6 address stands in brackets"),
        ("postgresql://ada:hunter2@db.example.com:0/x", "port"),
        ("postgresql://ada:hunter2@db.example.com:port/x", "port"),
        ("postgresql://ada:hunter2@a:5432,b:70000/x", "port"),
        ("postgresql://ada:hunter2@2001:db8::1/x", "port"),
        ("postgresql://ada:hunter2@db.example.com/x?sslmode=on", "verify-full"),
        ("postgresql://ada:hunter2@db.example.com/x?sslrootcert=/none", "sslrootcert"),
        ("postgresql://ada:hunter2/@db.example.com/x", "%2F"),
    ],
)
def test_what_is_wrong_with_an_address_of_a_database(url: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_database_url(url)
    refusal = f"{refused.value.message} {refused.value.details}"
    assert words in refusal
    assert "hunter2" not in refusal


def test_an_address_without_user_where_the_systems_user_has_no_name() -> None:
    with mock.patch("getpass.getuser", side_effect=KeyError("uid not found")):
        check_database_url("postgresql://ada@db.example.com/x")
        with pytest.raises(Invalid, match="names no user"):
            check_database_url("postgresql://db.example.com/x")


@pytest.mark.parametrize(
    "url",
    ["http://[::1]:8600", "https://watchbill.example.com", "https://example.com/watchbill/"],
)
def test_addresses_of_servers(url: str) -> None:
    check_http_url("It", url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "watchbill.example.com",
            "/watchbill",
            "ftp://a",
            "https://",
            "http://[::1",
            "http://a:0",
        ),
        *("http://a:b", "http://a b", "https://ada:hunter2@a", "https://a/?x=hunter2", ""),
    ],
)
def test_what_is_no_address_of_a_server(url: str) -> None:
    with pytest.raises(Invalid, match="It must be the URL of a server") as refused:
        check_http_url("It", url)
    assert "hunter2" not in refused.value.message
