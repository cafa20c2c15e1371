"""The whole server over a real socket, from a first token to a list."""

import aiohttp

from tests.conftest import RunningServer


async def test_a_token_opens_the_list(server: RunningServer) -> None:
    async with aiohttp.ClientSession(server.url) as http:
        answer = await http.get("/api/v1/workloads")
        assert answer.status == 401
        answer = await http.post(
            "/api/v2/token",
            data={
                "grant_type": "client_credentials",
                "client_id": server.client_id,
                "client_secret": server.client_secret,
            },
        )
        assert answer.status == 200
        token = (await answer.json())["access_token"]
        answer = await http.get("/api/v1/workloads", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 200
        assert await answer.json() == {"workloads": []}
