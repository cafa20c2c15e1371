"""300 made-up secrets where people put them.

Three secrets go into each place that promises to hide any: letters alone, hexadecimal digits, and a mixture.
Behind the beginnings of known tokens stands what their issuers draw: digits, letters or both.
"""

import random
import string

import pytest

from watchbill.kinds.derivation.redact import (
    redact_arguments,
    redact_image,
    redact_text,
    redact_value,
)
from watchbill.kinds.objects.settings import Redaction

MODE = Redaction.DEFAULT
_DRAW = random.Random(20261129)
_LETTERS = string.ascii_lowercase


def _drawn(alphabet: str, length: int) -> str:
    return "".join(_DRAW.choice(alphabet) for _ in range(length))


NAMES = [
    "TOKENIZER_API_KEY",
    "AUTHOR_TOKEN",
    "KEYCLOAK_CLIENT_SECRET",
    "PASSAGE_PASSWORD",
    "PRIMARY_KEY_PASSWORD",
    "KEEPALIVE_SECRET",
    "CONNECTOR_ACCESS_KEY",
    "TURKEY_DB_PASSWD",
    "spring.datasource.password",
    "MYSQL_PWD",
    "GITHUB_PAT",
    "SESSION_COOKIE",
    "SIGNING_JWT",
    "CREDIT_CARD_PASSPHRASE",
    "TEAM_WEBHOOK",
    "hfToken",
    "DbPassword",
    "AZURE_STORAGE_CONNECTION_STRING",
    "SENTRY_DSN",
    "BUNDLE_GEMS__EXAMPLE__COM",
]
TEXTS = """
{"tokens":["@"]}
{"tokens": ["</s>", "@"], "n": 1}
{"password":{"value":"@"}}
{"db": {"credentials": {"user": "ada", "value": "@"}}}
{"auths": {"r.example.com": {"auth": "@"}}}
{'api_keys': ['a b', '@'], 'n': 2}
{\\"secrets\\": {\\"a\\": \\"@\\"}}
[{"name": "DB_PASSWORD", "value": "@"}]
<property><name>fs.s3a.secret.key</name><value>@</value></property>
<password>@</password>
password: letters-@
token: "@"
curl -H 'X-Vault-Token: @' https://vault.example.com
curl -H "Api-Key: @ and more" https://h.example.com
curl --header 'Authorization: @'
curl -u ada:@ https://h.example.com
curl -uada:@ https://h.example.com
smtp://u:pa#@@host.example.com:25
postgres://ada:a?@@db:5432/x
redis://:@@redis:6379/0
https://ada:@@git.example.com/team/x.git
docker login -p @ registry.example.com
docker login registry.example.com -u ada -p @
podman login --password @ registry.example.com
sh -c "docker login -u ada -p @ r.example.com"
aws configure set aws_secret_access_key @
aws configure set profile.training.aws_session_token @ && python t.py
npm config set //registry.npmjs.org/:_authToken @
git config --global user.password @
dvc remote modify store secret_access_key @
mysql -uada -p@ models
sshpass -p @ ssh ada@host.example.com
redis-cli -h redis -a @ ping
mongosh -u ada -p @ db.example.com
ldapsearch -x -D cn=ada -w @
mc alias set store https://s3.example.com ada @
vault login @
wandb login --relogin @
wandb login --host https://wandb.example.com @
kubectl create secret generic db --from-literal=url=@
skopeo copy --src-creds ada:@ docker://a docker://b
machine h.example.com login ada password @
export MODEL=x HF_TOKEN=@ && python t.py
export HF_TOKEN="@ and more"
openssl enc -aes256 -pass pass:@
python t.py logger.wandb_api_key=@ trainer.lr=1
https://h.example.com/cb?access_token=@&x=1
https://acct.blob.example.net/c?sv=1&sig=@
AccountName=a;AccountKey=@;EndpointSuffix=x
Server=db;Uid=ada;Pwd=@;
ada:@@tcp(db:3306)/x
jdbc:sqlserver://h;user=sa;password=@;
--set auth.rootPassword=@
PASSWORD=${PREFIX}@
password: ${REALM}-@
export DSN=$(SCHEME)@ && run
TOKEN=$(echo @ | base64 -d)
TOKEN=`echo @`
API_KEY=a\\ @
PASSWORD="a b"@
PASSWORD=pre'@'
PASSWORD="x"'@'
password='it'\\''s@'
password=$'@'
sh -c "export TOKEN=pre'@' && run"
sh -c 'export TOKEN=pre"@" && run'
postgres://ada:pa"@@db/x
url = "postgres://ada:it's@@db:5432/x"
COSMOS_PRIMARY_KEY=@
--storage-primary-key @
{"account_primary_key": "@"}
<entry key="password">@</entry>
<add key="Password" value="@"/>
[{"key": "DB_PASSWORD", "value": "@"}]
["serve", "--api-key", "@"]
os.environ["HF_TOKEN"] = "@"
os.environ.setdefault('HF_TOKEN', '@')
set_password("@")
wandb.login("@")
ENV HF_TOKEN @
setenv HF_TOKEN @
set -x HF_TOKEN @
TOKEN?=@
Authorization: Digest username="ada", response="@"
echo @ | docker login -u ada --password-stdin
htpasswd -b users ada @
sqlplus ada/@@orcl
heroku auth:token @
ngrok authtoken @
cargo login @
conda token set @
cloudflared service install @
poetry config http-basic.models ada @
twine upload -u ada -p @ dist
ssh-keygen -t rsa -N @ -f key
prefect cloud login -k @
helm registry login -u ada -p @ r.example.com
wget --http-password=@ https://h.example.com
keytool -importkeystore -storepass @
az login --service-principal -u ada -p @
tailscale up --auth-key=@
argocd login h.example.com --username ada --password @
""".strip().splitlines()
BLOCKS = [
    "db:\n  password:\n    value: @\nmodel: llama",
    "tokens:\n- @\n- b\nmodel: llama",
    "private_key: |\n  @\n  more\nmodel: llama",
    "env:\n- name: DB_PASSWORD\n  value: @\n- name: MODEL\n  value: x",
    "docker login r.example.com \\\n  -u ada \\\n  -p @",
    "mysql -h db \\\r\n  -uada \\\r\n  -p@ models",
    "aws configure set \\\n  aws_secret_access_key @",
    "redis-cli -h redis \\\n -a @ ping",
    "curl \\\n  -H 'X-Vault-Token: @' \\\n  https://vault.example.com",
    'password = """\n@\n"""',
    "API_KEY=a\\\n@ python t.py",
]
ARGUMENTS = """
docker|login|-p|@
docker|login|-u|ada|--password|@|r.example.com
aws|configure|set|aws_secret_access_key|@
curl|-H|X-Vault-Token: @
curl|-H|Cookie: session=@
curl|-u|ada:@
--config|{"tokens":["@"]}
--config={"password":{"value":"@"}}
mysql|-p@
sshpass|-p|@|ssh|host
vault|login|@
mc|alias|set|store|https://s3.example.com|ada|@
python|t.py|+logger.token=@
bash|-c|export API_KEY=@; python t.py
""".strip().splitlines()
HEX = string.digits + "abcdef"
MIXED = string.ascii_letters + string.digits
UPPER = string.digits + string.ascii_uppercase
TOKENS = [
    ("SK", HEX, 32),
    ("AC", HEX, 32),
    ("key-", HEX, 32),
    ("shpat_", HEX, 32),
    ("shpss_", HEX, 32),
    ("PMAK-", HEX, 24),
    ("sbp_", HEX, 40),
    ("pul-", HEX, 40),
    ("whsec_", MIXED, 32),
    ("sk_live_", MIXED, 24),
    ("rk_test_", MIXED, 24),
    ("Ab3dEfGh1JkLmN.atlasv1.", MIXED, 60),
    ("ghp_", MIXED, 36),
    ("github_pat_", MIXED, 22),
    ("glpat-", MIXED, 20),
    ("xoxb-", string.digits, 24),
    ("xapp-1-", UPPER, 30),
    ("AKIA", UPPER, 16),
    ("ASIA", UPPER, 16),
    ("AIza", MIXED, 35),
    ("ya29.", MIXED, 40),
    ("GOCSPX-", MIXED, 28),
    ("sk-proj-", MIXED, 40),
    ("sk-ant-api03-", MIXED, 40),
    ("hf_", MIXED, 34),
    ("nvapi-", MIXED, 60),
    ("gsk_", MIXED, 52),
    ("r8_", MIXED, 37),
    ("npm_", MIXED, 36),
    ("pypi-", MIXED, 60),
    ("dop_v1_", HEX, 64),
    ("SG.", MIXED, 40),
    ("xkeysib-", HEX, 64),
    ("dapi", HEX, 32),
    ("hvs.", MIXED, 90),
    ("glsa_", MIXED, 32),
    ("sntrys_", MIXED, 60),
    ("dp.st.", MIXED, 40),
    ("tskey-auth-", MIXED, 30),
    ("lin_api_", MIXED, 40),
    ("figd_", MIXED, 40),
    ("NRAK-", UPPER, 27),
    ("pscale_tkn_", MIXED, 32),
    ("dckr_pat_", MIXED, 27),
    ("sha256~", MIXED, 43),
    ("lsv2_pt_", HEX, 32),
    ("pcsk_", MIXED, 50),
    ("ATATT3", MIXED, 60),
    ("LTAI", MIXED, 20),
    ("1234567890:AA", MIXED, 33),
    ("eyJ", MIXED, 60),
    ("xai-", MIXED, 60),
    ("pplx-", MIXED, 48),
    ("tvly-", MIXED, 32),
    ("re_", MIXED, 24),
    ("sq0atp-", MIXED, 22),
    ("FLWSECK-", HEX, 32),
    ("AGE-SECRET-KEY-1", UPPER, 58),
    ("dbtc_", MIXED, 30),
    ("ntn_", MIXED, 46),
    ("rubygems_", HEX, 48),
    ("jina_", HEX, 60),
    ("HRKU-", MIXED, 36),
    ("napi_", MIXED, 64),
]
TOKEN_PLACES = [
    "{}",
    "python t.py --note {} --lr 1",
    "failed to fetch https://h.example.com/v1/{}/x: 401",
]


def _any_secrets() -> list[str]:
    return [_drawn(_LETTERS, 9), _drawn(HEX, 16), _drawn(MIXED, 24)]


def _samples() -> list[tuple[str, str, str]]:
    """Form (name of a variable, `text`, `arguments`), what holds the secret, and the secret."""
    samples = [(name, secret, secret) for name in NAMES for secret in _any_secrets()]
    samples += [("BUNDLE_HOST", f"ada:{secret}", secret) for secret in _any_secrets()]
    for text in (*TEXTS, *BLOCKS):
        samples += [("text", text.replace("@", s, 1), s) for s in _any_secrets()]
    for line in ARGUMENTS:
        samples += [("arguments", line.replace("@", s), s) for s in _any_secrets()]
    for index, (beginning, alphabet, length) in enumerate(TOKENS):
        secret = beginning + _drawn(alphabet, length)
        samples.append(("text", TOKEN_PLACES[index % len(TOKEN_PLACES)].format(secret), secret))
    return samples


SAMPLES = _samples()


def redacted(form: str, sample: str) -> str:
    if form == "text":
        return redact_text(sample, MODE)
    if form == "arguments":
        return "|".join(redact_arguments(sample.split("|"), MODE))
    if form == "image":
        return redact_image(sample, MODE)
    return redact_value(form, sample, MODE)


def test_no_promised_secret_is_shown() -> None:
    assert len(SAMPLES) >= 300
    shown = [(sample, redacted(form, sample)) for form, sample, secret in SAMPLES
             if secret in redacted(form, sample) or secret[-6:] in redacted(form, sample)]  # fmt: skip
    assert shown == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"password": {"value": "x"}, "n": 1}', '{"password": ***, "n": 1}'),
        ("db:\n  tokens:\n  - a\n  model: llama", "db:\n  tokens: ***\n  model: llama"),
        ("curl -H 'X-Vault-Token: a b' h", "curl -H 'X-Vault-Token: ***' h"),
        ("aws configure set aws_secret_access_key x; run", "aws configure set aws_secret_access_key ***; run"),
        ("mysql -uada -px db", "mysql -uada -p*** db"),
    ],
)  # fmt: skip
def test_what_stands_around_a_secret_stays(text: str, shown: str) -> None:
    assert redact_text(text, MODE) == shown
