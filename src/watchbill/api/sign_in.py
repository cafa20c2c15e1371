"""Signing in, with the limits on how often it may be tried. Tokens and sessions share it."""

import re

from watchbill.api.call import Call
from watchbill.errors import Unauthenticated
from watchbill.store.access import SERVICE_ACCOUNT, USER, Account

LIMITED_ID_CHARACTERS = 200
_OURS = re.compile(r"wbc-[0-9a-f]{16}", re.ASCII)
"""What we make as client ids. Anything else may be a secret in the wrong field, and is not noted."""


async def sign_in(call: Call, client_id: str, secret: str) -> Account:
    """Raises Unauthenticated, TooMany."""
    limits, address = call.services.sign_ins, call.client_address
    counted_id = client_id[:LIMITED_ID_CHARACTERS]
    shown = client_id if _OURS.fullmatch(client_id) else ""
    call.note(kind=SERVICE_ACCOUNT if shown else "", subject=shown)
    limits.check(counted_id, address)
    try:
        account = await call.services.accounts.sign_in(client_id, secret)
    except Unauthenticated:
        limits.note(counted_id, address, is_failed=True)
        raise
    limits.note(counted_id, address, is_failed=False)
    call.note(
        tenant_id=account.tenant_id,
        kind=SERVICE_ACCOUNT if account.person_id is None else USER,
        subject=account.client_id,
    )
    return account
