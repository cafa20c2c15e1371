"""The built page: known files only, typed, cached, compressed; and what else the server says of itself."""

import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import pytest_asyncio
import structlog
from prometheus_client.parser import text_string_to_metric_families

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.samples import PAGES
from tests.fixtures.serving import Served, listening
from watchbill.api import app
from watchbill.api.app import build_app
from watchbill.api.resources import pages

SCRIPT = b"console.log('watchbill');" * 100
FILES = {
    "index.html": b"<!doctype html><title>Watchbill</title>" + b" " * 500,
    "docs.html": b"<!doctype html><title>API</title>" + b" " * 500,
    "favicon.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "assets/app-1a2b3c.js": SCRIPT,
    "assets/app-1a2b3c.css": b"body{margin:0}",
    "assets/pixel.png": b"\x89PNG",
    ".sources": b"a stamp of the build",
    "assets/notes.py": b"print('no')",
}
PAGE_PATHS = [
    "/",
    "/workloads",
    "/workloads/x/y",
    "/fleet",
    "/idle",
    "/usage",
    "/nodes",
    "/projects",
    "/admin",
    "/clusters",
    "/login",
]


@pytest_asyncio.fixture(scope="module")
async def paged(shared: Served, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    root: Path = tmp_path_factory.mktemp("page")
    for name, body in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(body)
    with patch.object(app, "read_page", lambda **options: pages.read_page(root, **options)):
        built = build_app(shared.services)
    async with listening(built) as url:
        yield replace(shared, url=url)


@pytest.mark.parametrize("path", PAGE_PATHS)
async def test_every_page_address_is_the_page(paged: Served, path: str) -> None:
    answer = await paged.get(path, token=None)
    assert (answer.status, answer.body) == (200, FILES["index.html"])
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    policy = answer.headers["Content-Security-Policy"]
    for rule in ("default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/assets/app-1a2b3c.js", "text/javascript; charset=utf-8"),
        ("/assets/app-1a2b3c.css", "text/css; charset=utf-8"),
        ("/assets/pixel.png", "image/png"),
    ],
)
async def test_assets_are_kept_for_ever(paged: Served, path: str, media_type: str) -> None:
    answer = await paged.get(path, token=None)
    assert answer.body == FILES[path[1:]]
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


async def test_docs_and_favicon(paged: Served) -> None:
    assert (await paged.get("/docs", token=None)).body == FILES["docs.html"]
    assert (await paged.get("/favicon.svg", token=None)).body == FILES["favicon.svg"]
    assert_is_error(await paged.get("/favicon.ico", token=None), 404)


async def test_compressed_where_it_is_taken(paged: Served) -> None:
    path = f"{paged.url}/assets/app-1a2b3c.js"
    for accepted, is_zipped in (
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("br", False),
        ("", False),
    ):
        async with paged.session.get(
            path, headers={"Accept-Encoding": accepted}, auto_decompress=False
        ) as response:
            body = await response.read()
            assert ("Content-Encoding" in response.headers) == is_zipped, accepted
            assert (gzip.decompress(body) if is_zipped else body) == SCRIPT
            assert response.headers["Vary"] == "accept-encoding"


async def test_an_unchanged_file_is_not_sent_again(paged: Served) -> None:
    etag = (await paged.get("/", token=None)).headers["ETag"]
    again = await paged.get("/", token=None, headers={"If-None-Match": etag})
    assert (again.status, again.body) == (304, b"")


async def test_ranges_are_not_served(paged: Served) -> None:
    many = "bytes=" + ",".join(f"{n}-{n}" for n in range(500))
    answer = await paged.get("/assets/app-1a2b3c.js", token=None, headers={"Range": many})
    assert (answer.status, answer.body) == (200, SCRIPT)


@pytest.mark.parametrize(
    "path",
    ["/assets/", "/assets/none.js", "/assets/../.sources", "/assets/%2e%2e/.sources", "/.sources",
     "/assets/..%2findex.html", "/assets//app-1a2b3c.js", "/assets/notes.py", "/index.html",
     "/assets/%00", "/assets/app-1a2b3c.js/", "/assets/%2fetc%2fpasswd"],
)  # fmt: skip
async def test_nothing_else_is_served(paged: Served, path: str) -> None:
    assert_is_error(await paged.get(path, token=None), 404)


async def test_a_browser_at_an_unknown_address_gets_the_page_and_a_program_an_error(
    paged: Served,
) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    for path in ("/nosuch", "/fleet/nosuch", "/index.html"):
        answer = await paged.get(path, token=None, headers=browser)
        assert (answer.status, answer.body) == (404, FILES["index.html"])
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert_is_error(await paged.get(path, token=None), 404)
    for path in ("/api/v1/nosuch", "/api/nosuch", "/assets/none.js"):
        assert_is_error(await paged.get(path, token=None, headers=browser), 404)
    assert_is_error(await paged.ask("POST", "/nosuch", token=None, headers=browser), 404)
    for accept in ("application/json, text/html; q=0", "text/html-fragment", "text/htm"):
        answer = await paged.get("/nosuch", token=None, headers={"Accept": accept})
        assert_is_error(answer, 404)


async def test_without_a_built_page_the_server_says_so(shared: Served) -> None:
    with patch.object(app, "read_page", lambda **_: {}):
        built = build_app(shared.services)
    async with listening(built) as url:
        served = replace(shared, url=url)
        for path in PAGES:
            if "{" not in path and path != "/device":
                answer = await served.get(path, token=None)
                assert_is_error(answer, 404)
                assert "not part of this installation" in answer.json["message"]
        assert (await served.get("/api/v1/me")).status == 200


async def test_the_documents(shared: Served) -> None:
    merged = (await shared.get("/openapi.json", token=None)).json
    bare = (await shared.get("/contract/openapi.json", token=None)).json
    contract = json.loads((Path(__file__).parents[2] / "contract" / "openapi.json").read_bytes())
    assert bare == contract
    assert set(bare["paths"]) < set(merged["paths"])
    assert merged["servers"] == [{"url": "/"}]


async def test_the_servers_own_metrics(server: Served) -> None:
    await server.get("/api/v1/workloads")
    await server.get("/nothing-<b>")
    await server.ask("PURGE", "/also-nothing")
    answer = await server.get("/metrics")
    families = {
        family.name: family for family in text_string_to_metric_families(answer.body.decode())
    }
    counted = {
        (sample.labels["operation"], sample.labels["status"]): sample.value
        for sample in families["watchbill_requests"].samples
        if sample.name == "watchbill_requests_total"
    }
    assert counted["get_workloads", "200"] == 1
    assert counted["none", "404"] == 2
    assert b"nothing" not in answer.body
    assert b"PURGE" not in answer.body
    (progress,) = families["watchbill_requests_in_progress"].samples
    assert progress.value == 1


async def test_one_line_a_request_and_no_secret_in_it(server: Served) -> None:
    token = await server.token()
    with structlog.testing.capture_logs() as captured:
        await server.get("/api/v1/workloads?search=hunter2&filterBy=name==hunter3")
        await server.get("/api/v1/me", token=None, headers={"Cookie": "watchbill_session=hunter4"})
        await server.get("/a%0Ab\u2028c".replace("\u2028", "%E2%80%A8"))
        assert (await server.get("/readyz", token=None)).status == 200
    lines = [
        line for line in captured if line["event"] == "request" and line["log_level"] == "info"
    ]
    assert [line["status"] for line in lines] == [200, 401, 404]
    assert [line["operation"] for line in lines] == ["get_workloads", "get_me", "none"]
    assert lines[0]["subject"] == server.client_id
    text = repr(captured)
    assert "hunter" not in text
    assert token not in text
    assert len({line["request_id"] for line in lines}) == 3
