"""Whose word about the client counts, and how much a flood of refusals may write."""

import pytest

from watchbill.api.http.gate import Proxies
from watchbill.api.limits import LogThrottle
from watchbill.errors import Invalid

PROXIES = Proxies(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])


def applied(client: str, proxies: Proxies = PROXIES, **fields: str) -> tuple[str, str]:
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    scope = {"client": (client, 5), "scheme": "http", "headers": headers}
    proxies.apply(scope)
    return scope["client"][0], scope["scheme"]  # type: ignore[return-value, index]


@pytest.mark.parametrize(
    ("client", "forwarded", "origin"),
    [
        ("10.1.2.3", "198.51.100.4", "198.51.100.4"),
        ("192.0.2.7", "198.51.100.4, 10.9.9.9", "198.51.100.4"),
        ("10.1.2.3", "203.0.113.9, 198.51.100.4", "198.51.100.4"),
        ("10.1.2.3", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("10.1.2.3", "spoofed, 10.0.0.2", "10.0.0.2"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("2001:db8::1", "[2001:db9::5]", "2001:db9::5"),
        ("::ffff:10.1.2.3", "198.51.100.4", "198.51.100.4"),
        ("198.51.100.77", "127.0.0.1", "198.51.100.77"),
        ("192.0.2.8", "127.0.0.1", "192.0.2.8"),
    ],
)
def test_the_client_is_the_first_that_is_no_proxy_of_ours(
    client: str, forwarded: str, origin: str
) -> None:
    assert applied(client, x_forwarded_for=forwarded)[0] == origin


@pytest.mark.parametrize(
    ("client", "sent", "scheme"),
    [
        ("10.1.2.3", "https", "https"),
        ("10.1.2.3", "http, HTTPS", "https"),
        ("10.1.2.3", "gopher", "http"),
        ("198.51.100.77", "https", "http"),
    ],
)
def test_the_scheme_counts_from_proxies_alone(client: str, sent: str, scheme: str) -> None:
    assert applied(client, x_forwarded_proto=sent)[1] == scheme


def test_without_proxies_nobody_is_believed() -> None:
    sent = {"x_forwarded_for": "198.51.100.4", "x_forwarded_proto": "https"}
    assert applied("127.0.0.1", Proxies([]), **sent) == ("127.0.0.1", "http")


def test_what_is_no_network_stops_the_start() -> None:
    with pytest.raises(Invalid):
        Proxies(["the proxy"])


def test_a_flood_writes_a_line_a_second() -> None:
    now = [0.0]
    throttle = LogThrottle(lambda: now[0])
    assert [throttle.admits("a") for _ in range(5)] == [0, None, None, None, None]
    assert throttle.admits("b") == 0
    now[0] = 1.5
    assert throttle.admits("a") == 4
    assert throttle.admits("a") is None


def test_cookies_are_bound_to_https_where_people_use_it() -> None:
    """Also where nobody named the proxy that ends TLS, or where it says something else."""
    for networks in ([], ["10.0.0.0/8"]):
        proxies = Proxies(networks, is_https=True)
        assert applied("10.1.2.3", proxies, x_forwarded_proto="http")[1] == "https"
