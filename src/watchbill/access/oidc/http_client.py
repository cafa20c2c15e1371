"""Requests to issuers: to addresses that an administrator configured, without redirects, small and short."""

import base64
from collections.abc import Mapping
from typing import Any

import aiohttp

from watchbill.access.tokens.jose import unique_json
from watchbill.errors import Unavailable

TOTAL_SECONDS = 5.0
MAX_BYTES = 256 * 1024


class ProviderRefused(Unavailable):
    """The issuer understood and said no. Its reasons may quote what was sent, so they are not read."""


async def get_json(url: str, *, bearer: str | None = None) -> Any:
    """Raises Unavailable for whatever is no small JSON answer in time; Declined for a refusal."""
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    return await _ask("GET", url, headers=headers)


async def post_form(
    url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
) -> Any:
    """Raises Unavailable; Declined for a refusal."""
    headers = {}
    if basic is not None:
        pair = base64.b64encode(":".join(basic).encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    return await _ask("POST", url, data=dict(form), headers=headers)


async def _ask(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any
) -> Any:
    timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.request(
                method,
                url,
                allow_redirects=False,
                headers={"Accept": "application/json", **(headers or {})},
                **options,
            ) as answer,
        ):
            if 400 <= answer.status < 500:
                raise ProviderRefused(f"The issuer answered {answer.status}.")
            if answer.status != 200:
                raise Unavailable(f"The issuer answered {answer.status}.")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(16 * 1024):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise Unavailable("The issuer's answer is too large.")
            return unique_json(bytes(body))
    except ValueError as error:
        raise Unavailable("The issuer's answer is no JSON.") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable("The issuer does not answer.") from error
