"""What a browser carries for us from one request to the next and can neither change nor make up."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from watchbill.access.tokens.jose import InvalidToken, check_shape, members, unique_json
from watchbill.access.tokens.tokens import ALGORITHM, Keyring

LONGEST = timedelta(minutes=15)
"""No seal is good for longer, nor for so long after its key was retired."""


class SignedState:
    """Signed with the tokens' keys, but of a type of its own: a seal is no token and no token a seal."""

    def __init__(self, keyring: Keyring, clock: Callable[[], datetime], *, purpose: str) -> None:
        self._keyring = keyring
        self._clock = clock
        self._type = f"{purpose}+jwt"

    async def seal(self, content: dict[str, str], *, seconds: int) -> str:
        key = await self._keyring.signing()
        ends = int(self._clock().timestamp()) + seconds
        header = {"alg": ALGORITHM, "typ": self._type, "kid": key.kid}
        payload = json.dumps(content | {"exp": ends}).encode()
        return jws.serialize_compact(header, payload, key.key, [ALGORITHM])

    async def open(self, text: str) -> dict[str, Any]:
        """Raises InvalidToken."""
        try:
            check_shape(text)
            header = members(text, 0)
            if (header.get("alg"), header.get("typ")) != (ALGORITHM, self._type):
                raise InvalidToken
            key = await self._keyring.verifying(str(header.get("kid")))
            if key is None or self._is_over(key.retired_at):
                raise InvalidToken
            signed = jws.deserialize_compact(text, key.key, [ALGORITHM])
            content: dict[str, Any] = unique_json(signed.payload or b"")
        except (JoseError, ValueError) as error:
            raise InvalidToken from error
        if self._clock().timestamp() >= content["exp"]:
            raise InvalidToken
        return content

    def _is_over(self, retired_at: datetime | None) -> bool:
        """A key that was retired at once opens nothing; an ordinary one what it sealed before."""
        return retired_at is not None and self._clock() > retired_at + LONGEST
