"""Secrets planted everywhere in a cluster, and looked for everywhere in Watchbill: in what the agent sends, in
every column of the database, in logs, metrics and answers."""

import base64
import io
import json
import logging
import random
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import structlog

from tests.conftest import Engine, fresh_database
from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from tests.fixtures.makers import condition, container, gather, pod, root, uid
from tests.fixtures.samples import OPERATIONS, SAMPLES
from tests.fixtures.serving import Served, serving
from watchbill.api.http.contract import LoginRequirement
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.settings import Redaction
from watchbill.protocol import Batch, HelloRequest, Upsert, record_hash

RNG = random.Random(11)
LETTERS = string.ascii_letters + string.digits


def chance(length: int = 32) -> str:
    return "".join(RNG.choice(LETTERS) for _ in range(length))


class Canaries:
    """Makes secrets and remembers the part of each that must not be found again."""

    def __init__(self) -> None:
        self.planted: list[str] = []

    def plain(self, prefix: str = "") -> str:
        secret = chance()
        self.planted.append(secret)
        return prefix + secret

    def short(self) -> str:
        """No form of its own: only its name gives it away."""
        secret = "Zq" + chance(8)
        self.planted.append(secret)
        return secret

    def encoded(self) -> str:
        return base64.b64encode(self.plain().encode()).decode()


NAMES = ("API_KEY", "HF_TOKEN", "DB_SECRET", "PASSWORD", "LDAP_PWD", "AWS_CRED", "BASIC_AUTH",
         "SSH_PRIVATE", "AZURE_SAS", "SENTRY_DSN", "SQL_CONN", "URL_SIGNATURE")  # fmt: skip
FORMS = ("hf_", "ghp_", "github_pat_", "glpat-", "sk-", "nvapi-", "xoxb-", "AKIA", "AIza", "eyJ")


def planted() -> tuple[dict[str, Any], list[dict[str, Any]], Canaries]:
    """A training job and its pods with secrets wherever people put them."""
    c = Canaries()
    env = [{"name": name, "value": c.short()} for name in NAMES]
    env += [{"name": f"PLAIN_{n}", "value": c.plain(form)} for n, form in enumerate(FORMS)]
    env += [
        {"name": "MODE", "value": c.plain()},
        {"name": "CONFIG", "value": json.dumps({"api_key": c.short(), "n": 1})},
        {"name": "ENDPOINT", "value": f"https://ada:{c.short()}@db.example.com/x"},
        {"name": "CALLBACK", "value": f"https://x.example.com/p?token={c.short()}&y=1"},
        {"name": "BLOB", "value": c.encoded()},
        {
            "name": "PEM",
            "value": f"-----BEGIN PRIVATE KEY-----\n{c.plain()}\n-----END PRIVATE KEY-----",
        },
        {"name": "HEADER", "value": f"Authorization: Bearer {c.plain()}"},
        {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
    ]
    command = ["train", "--api-key", c.short(), f"--hf-token={c.short()}"]
    arguments = [
        "-e",
        f"DB_PASSWORD={c.short()}",
        f"postgres://ada:{c.short()}@db:5432/x",
        c.plain(),
        f'{{"secret": "{c.short()}"}}',
        f"run --password {c.short()} && echo {c.plain('sk-')}",
    ]
    image = f"ada:{c.short()}@registry.example.com/train:1"
    main = container(env=env, command=command, args=arguments, image=image)
    spec = {
        "pytorchReplicaSpecs": {
            "Master": {"replicas": 1, "template": {"spec": {"containers": [main]}}}
        }
    }
    result = (
        f"pull {c.plain('hf_')} failed: password={c.short()} at https://u:{c.short()}@r.example.com"
    )
    job = root(
        "kubeflow.org/v1",
        "PyTorchJob",
        spec=spec,
        status={"conditions": [condition("Created", message=f"made with token={c.short()}")]},
        annotations={
            "kubectl.kubernetes.io/last-applied-configuration": c.plain(),
            "note": c.plain(),
        },
    )
    waiting = pod(1, "pulling", spec_containers=[main])
    waiting["status"]["containerStatuses"][0]["state"]["waiting"]["message"] = result
    unplaced = pod(2, "waiting", spec_containers=[main])
    unplaced["status"]["conditions"][0]["message"] = f"no node for api_key={c.short()}: {c.plain()}"
    return job, [waiting, unplaced], c


def sent(redaction: Redaction) -> tuple[Upsert, Canaries]:
    job, pods, canaries = planted()
    result = derive(gather(job, pods), definitions(), replace(SETTINGS, redaction=redaction))
    return Upsert(
        record=result.record,
        record_hash=record_hash(result.record),
        transitions=result.transitions,
        observed_at=datetime.now(UTC),
    ), canaries


def hits(canaries: list[str], data: bytes | str) -> list[str]:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    forms = {
        canary: (canary, base64.b64encode(canary.encode()).decode().rstrip("=")[:-1])
        for canary in canaries
    }
    return [name for name, spelled in forms.items() if any(form in text for form in spelled)]


async def everything_kept(url: str) -> str:
    """Every column of every table, bytes as the text that they hold."""
    connection = await asyncpg.connect(url)
    tables = await connection.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')"
    )
    collected = []
    for (table,) in tables:
        # As the owner row security applies too: so as each tenant in turn.
        await connection.execute("SELECT set_config('watchbill.tenant_id', '1', false)")
        for row in await connection.fetch(f'SELECT * FROM "{table}"'):
            collected += [_text(value) for value in row.values()]
    await connection.close()
    return "\n".join(collected)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return "\n".join(_text(item) for item in value)
    return str(value)


@asynccontextmanager
async def logging_everything() -> AsyncIterator[io.StringIO]:
    """All that is logged, at the finest level, in the form of production."""
    text, before = io.StringIO(), structlog.get_config()
    handler = logging.StreamHandler(text)
    logging.getLogger().addHandler(handler)
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.DEBUG)
    structlog.configure(
        processors=[
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=structlog.PrintLoggerFactory(text),
        cache_logger_on_first_use=False,
    )
    try:
        yield text
    finally:
        structlog.configure(**before)
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(level)


async def reported(served: Served, upsert: Upsert) -> str:
    """The agent's report over HTTP. Returns the credential it came with."""
    made = await served.ask("POST", "/api/v1/clusters", json={"name": "north"})
    credential = str(made.json["credential"])
    hello = msgspec.json.encode(HelloRequest(protocol=1, agent_version="test"))
    headers = {"Content-Type": "application/json"}
    answer = await served.ask(
        "POST", "/agent/v1/hello", data=hello, token=credential, headers=headers
    )
    batch = msgspec.json.encode(Batch(stream_id=answer.json["streamId"], seq=1, items=(upsert,)))
    taken = await served.ask(
        "POST", "/agent/v1/batch", data=batch, token=credential, headers=headers
    )
    assert taken.json == {"seq": 1, "refused": []}
    return credential


async def answers(served: Served, own: str) -> str:
    """Every read there is, as an administrator; of one workload, the planted one."""
    collected = []
    for name, operation in OPERATIONS.items():
        if operation.method != "GET" or operation.login is LoginRequirement.AGENT:
            continue
        path = SAMPLES[name].path
        if "{workloadId}" in operation.path:
            path = operation.path.replace("{workloadId}", own) + "?" + path.partition("?")[2]
        for accept in ("*/*", "text/csv"):
            answer = await served.get(path, headers={"Accept": accept})
            collected.append(answer.body.decode() + str(answer.headers))
    for path in ("/api/v1/workloads?limit=500", "/api/v1/workloads/export?format=csv"):
        collected.append((await served.get(path)).body.decode())
    return "\n".join(collected)


async def test_nothing_that_is_promised_is_found_again(embedded_engine: Engine) -> None:
    upsert, canaries = sent(Redaction.DEFAULT)
    assert len(canaries.planted) >= 45
    url = await fresh_database(embedded_engine)
    assert hits(canaries.planted, msgspec.json.encode(upsert)) == []
    async with logging_everything() as logged, serving(url) as served:
        credential = await reported(served, upsert)
        token = await served.token()
        made = await served.ask("POST", "/api/v1/admin/accounts", json={"name": "ci"})
        wrong = {"grantType": "app_token", "appId": canaries.planted[0], "appSecret": token}
        await served.ask("POST", "/api/v1/token", json=wrong, token=None)
        await served.get(f"/api/v1/workloads?search={canaries.planted[1]}&access_token={token}")
        own = [served.secret, made.json["clientSecret"], credential.rpartition(".")[2], token]
        result = await answers(served, uid(1))
        assert '"EPOCHS"' in result or "API_KEY" in result, "the planted workload was read"
        await served.services.audit.flush()
        metrics = (await served.get("/metrics")).body
        kept = await everything_kept(url)
    assert "PyTorchJob" in kept
    for place in (result, kept, logged.getvalue(), metrics):
        assert (
            hits([secret for secret in canaries.planted if secret != canaries.planted[1]], place)
            == []
        )
        assert hits([*own, canaries.planted[1]], place) == []
    assert "secretKeyRef(db/url)" in result


async def test_strict_shows_no_value_at_all() -> None:
    upsert, canaries = sent(Redaction.STRICT)
    assert hits(canaries.planted, msgspec.json.encode(upsert)) == []
    values = set(upsert.record.workload.environment_variables.values())
    assert values <= {"***", "secretKeyRef(db/url)"}


def test_off_shows_what_the_other_modes_hide() -> None:
    """Also the proof that the canaries are where they are looked for."""
    upsert, canaries = sent(Redaction.OFF)
    result = hits(canaries.planted, msgspec.json.encode(upsert))
    assert len(result) >= 35
