"""The environment's proxies, as Go's net/http and curl understand them."""

import asyncio

import aiohttp
import pytest

from watchbill.client.proxies import connector_for, is_socks, proxy_for

PROXIES = {"HTTP_PROXY": "http://plain:3128", "https_proxy": "secure:3128"}


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxy"),
    [
        ("http://kube.example.com:6443", "", "http://plain:3128"),
        ("https://kube.example.com:6443", "", "http://secure:3128"),
        ("https://localhost:6443", "", None),
        ("http://[kube:6443", "", None),
        ("http://kube.example.com:64430000", "", None),
        ("http://kube.example.com", "kube.example.com:²", "http://plain:3128"),
        ("https://127.0.0.1:6443", "", None),
        ("https://[::1]:6443", "", None),
        ("https://kube.example.com", "*", None),
        ("https://kube.example.com", "example.com", None),
        ("https://kube.example.com", ".example.com", None),
        ("https://kube.example.com", "*.example.com", None),
        ("https://kubeexample.com", "example.com", "http://secure:3128"),
        ("https://kube.example.com", "other.org, kube.example.com", None),
        ("https://kube.example.com:6443", "kube.example.com:6443", None),
        ("https://kube.example.com:8443", "kube.example.com:6443", "http://secure:3128"),
        ("https://kube.example.com", "kube.example.com:443", None),
        ("https://10.3.0.1", "10.0.0.0/8", None),
        ("https://11.3.0.1", "10.0.0.0/8", "http://secure:3128"),
        ("https://10.3.0.1", "10.3.0.1", None),
        ("https://10.3.0.1:6443", "10.3.0.1:6443", None),
        ("https://[fd00::7]:6443", "fd00::/8", None),
        ("https://[fd00::7]:6443", "[fd00::7]:6443", None),
        ("https://kube.example.com", "10.0.0.0/8", "http://secure:3128"),
    ],
)
def test_which_proxy_a_request_takes(url: str, no_proxy: str, proxy: str | None) -> None:
    assert proxy_for(url, {**PROXIES, "NO_PROXY": no_proxy}) == proxy


def test_without_variables_there_is_none() -> None:
    assert proxy_for("https://kube.example.com", {}) is None
    assert proxy_for("https://kube.example.com", {"HTTP_PROXY": "http://plain:3128"}) is None
    assert is_socks(proxy_for("https://kube.example.com", {"HTTPS_PROXY": "socks5://s:1080"}))


async def test_what_a_socks_proxy_refuses_is_a_failed_connection() -> None:
    """As where the server behind it is away: whoever asks repeats the request, and does not end."""

    async def unreachable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)  # version 5, one method, none
        writer.write(b"\x05\x00")
        await reader.readexactly(10)  # connect, an IPv4 address, a port
        writer.write(b"\x05\x04\x00\x01" + bytes(6))
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(unreachable, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    connector = connector_for(f"socks5://127.0.0.1:{port}")
    async with proxy, aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectionError, match="unreachable"):
            await session.get("http://192.0.2.1/")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("socks5://proxy.example.com", ("proxy.example.com", 1080)),
        ("socks5h://proxy.example.com:/", ("proxy.example.com", 1080)),
        ("socks5://ada:p%40ss@[fd00::7]", ("fd00::7", 1080)),
        ("socks5://proxy.example.com:9050/", ("proxy.example.com", 9050)),
    ],
)
async def test_a_socks_proxy_without_a_port_has_the_usual_one(
    url: str, address: tuple[str, int]
) -> None:
    connector = connector_for(url)
    assert (connector._proxy_host, connector._proxy_port) == address  # type: ignore[attr-defined]
    await connector.close()
