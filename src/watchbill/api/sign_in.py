"""Signing in, with the limits on how often it may be tried. Tokens and sessions share it."""

from watchbill.access.accounts import SignInRefused
from watchbill.api.call import Call
from watchbill.store.access import SERVICE_ACCOUNT, USER, Account

LIMITED_ID_CHARACTERS = 200


async def sign_in(call: Call, client_id: str, secret: str) -> Account:
    """Raises SignInRefused, TooMany. The audit log names accounts that there are, in their own tenant's log:
    anything else may be a secret in the wrong field."""
    limits, address = call.services.sign_ins, call.client_address
    counted_id = client_id[:LIMITED_ID_CHARACTERS]
    call.note()
    limits.check(counted_id, address)
    try:
        async with call.services.strangers.looking_up(address, client_id + secret):
            account = await call.services.accounts.sign_in(client_id, secret)
    except SignInRefused as error:
        limits.note(counted_id, address, is_failed=True)
        if error.account is not None:
            _note(call, error.account)
        raise
    limits.note(counted_id, address, is_failed=False)
    _note(call, account)
    return account


def _note(call: Call, account: Account) -> None:
    call.note(
        tenant_id=account.tenant_id,
        kind=SERVICE_ACCOUNT if account.person_id is None else USER,
        subject=account.client_id,
    )
