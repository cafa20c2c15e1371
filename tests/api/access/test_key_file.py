"""Signing keys that a dump of the database does not give away."""

from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import SETTINGS, serving
from watchbill.access.tokens.keyring import KeyEncryption, read_key_encryption
from watchbill.api.http.call import services_of
from watchbill.errors import Invalid, Unavailable
from watchbill.store.postgres.database import Database

SECRET = "0123456789abcdef" * 4


async def kept(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT private_jwk FROM signing_key")
    await connection.close()
    return [row["private_jwk"] for row in rows]


async def start_with(url: str, key_file: Path | None) -> None:
    db = await Database.open(url, pool_size=2)
    try:
        await services_of(db, replace(SETTINGS, key_file=key_file)).keyring.signing()
    finally:
        await db.close()


async def test_keys_are_sealed_and_tokens_go_on(embedded_engine: Engine, tmp_path: Path) -> None:
    url, file = await fresh_database(embedded_engine), tmp_path / "key"
    file.write_text(SECRET + "\n")
    async with serving(url) as served:
        token = await served.token()
    assert all('"d"' in row for row in await kept(url)), "open until there is a file"
    settings = replace(SETTINGS, key_file=file)
    async with serving(url, settings) as served:
        assert (await served.get("/api/v1/me", token=token)).status == 200
        assert (
            await served.ask("POST", "/api/v1/admin/keys/rotate", token=token, json={})
        ).status < 300
    sealed = await kept(url)
    assert len(sealed) == 2
    assert all(key.count(".") == 4 and '"d"' not in key for key in sealed)
    async with serving(url, settings) as served:
        assert (await served.get("/api/v1/me", token=token)).status == 200
    with pytest.raises(Unavailable, match="encrypted"):
        await start_with(url, None)
    file.write_text(SECRET[::-1])
    with pytest.raises(Unavailable, match="is not the file"):
        await start_with(url, file)


def test_a_key_in_anothers_place_is_refused() -> None:
    encryption = KeyEncryption(SECRET.encode())
    text = encryption.encrypt("k1", '{"d":"x"}')
    assert encryption.decrypt("k1", text) == '{"d":"x"}'
    with pytest.raises(Unavailable):
        encryption.decrypt("k2", text)
    for spoilt in (text[:-2], text[:-2] + ("AA" if not text.endswith("AA") else "BB"), "x", ""):
        with pytest.raises(Unavailable):
            encryption.decrypt("k1", spoilt)


def test_files_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="Cannot read"):
        read_key_encryption(tmp_path / "absent")
    short = tmp_path / "short"
    short.write_bytes(b"x" * 31 + b"\n")
    with pytest.raises(Invalid, match="fewer than 32"):
        read_key_encryption(short)
