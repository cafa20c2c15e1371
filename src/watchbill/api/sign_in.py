"""Signing in, with the limits on how often it may be tried. Tokens and sessions share it."""

from watchbill.api.call import Call
from watchbill.errors import Unauthenticated
from watchbill.store.access import Account

LIMITED_ID_CHARACTERS = 200


async def sign_in(call: Call, client_id: str, secret: str) -> Account:
    """Raises Unauthenticated, TooMany."""
    limits, address = call.services.sign_ins, call.client_address
    counted_id = client_id[:LIMITED_ID_CHARACTERS]
    limits.check(counted_id, address)
    try:
        account = await call.services.accounts.sign_in(client_id, secret)
    except Unauthenticated:
        limits.note(counted_id, address, is_failed=True)
        raise
    limits.note(counted_id, address, is_failed=False)
    return account
