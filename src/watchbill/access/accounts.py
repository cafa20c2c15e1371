"""Logins of accounts with a client id and its secret, and agents with their cluster's credential."""

from collections.abc import Callable
from datetime import datetime

from watchbill.errors import Unauthenticated
from watchbill.identity import ACCOUNT_PRINCIPAL, Account, AgentIdentity, Principal
from watchbill.store.identity.accounts import account_get, cluster_credential_get
from watchbill.store.identity.credential import is_secret, read_agent_credential, store_secret
from watchbill.store.postgres.database import Database

MAX_CREDENTIAL_CHARACTERS = 200


class LoginRefused(Unauthenticated):
    """`account`: the one whose id was named, for the audit log of its tenant; never for the caller."""

    def __init__(self, account: Account | None) -> None:
        super().__init__("The client id or the secret is wrong.")
        self.account = account


class Accounts:
    """Checks secrets."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._nobody = store_secret("no secret hashes like this account's")

    async def log_in(self, client_id: str, secret: str) -> Account:
        """Raises LoginRefused in the same words and time whether id or secret is wrong."""
        if max(len(client_id), len(secret)) > MAX_CREDENTIAL_CHARACTERS:
            raise LoginRefused(None)
        account = await account_get(self._db, client_id)
        is_right = is_secret(secret, self._nobody if account is None else account.secret)
        if account is None or not is_right or account.is_disabled or self._is_over(account):
            raise LoginRefused(account)
        return account

    def _is_over(self, account: Account) -> bool:
        return account.expires_at is not None and account.expires_at <= self._clock()


def principal_of(account: Account) -> Principal:
    return Principal(tenant_id=account.tenant_id, kind=ACCOUNT_PRINCIPAL, id=account.id)


async def identify_agent(db: Database, credential: str) -> AgentIdentity:
    """Raises Unauthenticated in the same words whatever is wrong."""
    cluster_id, secret = read_agent_credential(credential)
    stored = await cluster_credential_get(db, cluster_id)
    if stored is None or not is_secret(secret, stored[1]):
        raise Unauthenticated("The agent credential is not valid.")
    return AgentIdentity(tenant_id=stored[0], cluster_id=cluster_id)
