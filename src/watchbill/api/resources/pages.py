"""The built web page, read once at start and served from memory. Only known names are served: no path of a
request ever reaches the file system."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from watchbill.api.http.call import Call
from watchbill.api.http.endpoint import Handler
from watchbill.api.http.reply import GZIP, VARY, Answer, Reply, accepts, takes_gzip
from watchbill.api.resources.workloads import etag_matches
from watchbill.errors import NotFound

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "json": "application/json",
    "map": "application/json",
    "woff2": "font/woff2",
    "txt": "text/plain; charset=utf-8",
}
TEXT = frozenset({"html", "js", "css", "svg", "json", "map", "txt"})
POLICY = (
    b"content-security-policy",
    b"default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'",
)
FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")
ASK_AGAIN = (b"cache-control", b"no-cache")
ASSETS = "assets/"
DOCUMENTS = frozenset({"index.html", "docs.html"})


@dataclass(frozen=True, slots=True)
class File:
    """`zipped` None = it does not shrink."""

    body: bytes
    zipped: bytes | None
    media_type: str
    etag: bytes


Page = dict[str, File]
"""The files by their path below the page's folder."""


def read_page(root: Traversable | None = None, *, base_path: str = "") -> Page:
    """All files of the built page by their path below its folder; empty where it is not built. What its
    documents name is below `base_path`, from whatever address of the page they are asked for."""
    root = files("watchbill.api") / "page" if root is None else root
    page = dict(_walk(root, "")) if root.is_dir() else {}
    for name in page.keys() & DOCUMENTS:
        page[name] = _file(page[name].body.replace(b'="./', f'="{base_path}/'.encode()), "html")
    return page


def unknown_address(page: Page, method: str, path: str, accept: bytes | None) -> Reply | None:
    """What no route serves, for people's browsers: the page, which has a sentence and ways on. None for
    programs, and below the API's addresses, where an error has the API's shape."""
    index = page.get("index.html")
    is_for_people = method in ("GET", "HEAD") and accepts(accept, "text/html")
    if index is None or not is_for_people or path.startswith(("/api/", f"/{ASSETS}")):
        return None
    headers = [POLICY, ASK_AGAIN, (b"vary", b"accept")]
    return Reply(body=index.body, media_type=index.media_type, headers=headers, status=404)


def page_handlers(page: Page) -> tuple[Handler, ...]:
    async def get_page(call: Call) -> Answer:
        return _reply(call, _find(page, "index.html"), ASK_AGAIN)

    async def get_docs(call: Call) -> Answer:
        return _reply(call, _find(page, "docs.html"), ASK_AGAIN)

    async def get_favicon(call: Call) -> Answer:
        return _reply(call, _find(page, call.scope["path"][1:]), ASK_AGAIN)

    async def get_asset(call: Call) -> Answer:
        return _reply(call, _find(page, ASSETS + call.scope["path_params"]["name"]), FOREVER)

    return get_page, get_docs, get_favicon, get_asset


def _find(page: Page, name: str) -> File:
    if not page:
        raise NotFound(
            "The web page is not part of this installation; the API works without it.",
            details="In a checkout, `make demo` builds it; a released package always has it.",
        )
    if name not in page:
        raise NotFound("There is no such file.")
    return page[name]


def _reply(call: Call, file: File, caching: tuple[bytes, bytes]) -> Reply:
    headers = [POLICY, caching, (b"etag", file.etag), VARY]
    if etag_matches(call.headers.get(b"if-none-match"), file.etag):
        return Reply(status=304, headers=headers)
    if file.zipped is not None and takes_gzip(call.headers.get(b"accept-encoding")):
        headers.append(GZIP)
        return Reply(body=file.zipped, media_type=file.media_type, headers=headers)
    return Reply(body=file.body, media_type=file.media_type, headers=headers)


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, File]]:
    files: list[tuple[str, File]] = []
    for entry in sorted(folder.iterdir(), key=lambda file: file.name):
        if entry.is_dir():
            files += _walk(entry, f"{prefix}{entry.name}/")
        elif (ending := entry.name.rpartition(".")[2]) in MEDIA_TYPES:
            files.append((prefix + entry.name, _file(entry.read_bytes(), ending)))
    return files


@cache
def _file(body: bytes, ending: str) -> File:
    zipped = gzip.compress(body, mtime=0) if ending in TEXT else body
    return File(
        body=body,
        zipped=zipped if len(zipped) < len(body) else None,
        media_type=MEDIA_TYPES[ending],
        etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode(),
    )
