"""Secrets where other tools take them: shells, databases, clouds, PowerShell, heredocs. None may be shown."""

import shlex
from pathlib import Path

import pytest

from watchbill.kinds.derivation.redact import redact_arguments, redact_text
from watchbill.kinds.objects.settings import Redaction

MODE = Redaction.DEFAULT
SECRETS = ("qwmzkrtpv", "0f3a9c41d27be856", "Zx9Kq2vLm8Rt4Yp7Wn3Bd6Hs")
"""Letters alone, hexadecimal digits, and a mixture."""
_LINES = (Path(__file__).parents[3] / "fixtures" / "secrets_of_tools.txt").read_text(
    encoding="utf-8"
)
"""A place each, with § for the secret; behind `$` a command that a container's may be, word by word."""
COMMANDS = [line[2:] for line in _LINES.splitlines() if line.startswith("$ ")]
PLACES = [line.removeprefix("$ ") for line in _LINES.splitlines()]
BLOCKS = [
    "cat > ~/.netrc <<EOF\nmachine h.example.com\n  login ada\n  password §\nEOF",
    "cat <<'EOF' > ~/.pgpass\ndb:5432:models:ada:§\nEOF",
    "cat > ~/.aws/credentials <<EOF\n[default]\naws_access_key_id = AKIAX\naws_secret_access_key = §\nEOF",
    "cat <<EOF > /etc/app.yaml\ndb:\n  user: ada\n  password: §\nEOF\nrun",
    "cat <<EOF | kubectl apply -f -\napiVersion: v1\nkind: Secret\nstringData:\n  password: §\nEOF",
    "mysql -h db <<SQL\nCREATE USER ada IDENTIFIED BY '§';\nSQL",
    "docker login --password-stdin r.example.com <<< §",
    "python - <<EOF\nimport os\nos.environ['API_KEY'] = '§'\nEOF",
    "tee /etc/rclone.conf <<EOF\n[s3]\ntype = s3\nsecret_access_key = §\nEOF",
    "set -e\nexport API_KEY=§\npython t.py",
    "@echo off\r\nset API_KEY=§\r\npython t.py",
    'ssh-add - <<< "-----BEGIN OPENSSH PRIVATE KEY-----\n§\n-----END OPENSSH PRIVATE KEY-----"',
    "stringData:\n  password: |-\n    §\n  user: ada",
    "auth:\n  basic:\n    username: ada\n    password: >-\n      §\nnext: 1",
    "credentials:\n  - user: ada\n    secret: §\nmodel: x",
    '- name: API_KEY\n  value: "§"\n- name: MODEL\n  value: x',
    "env:\n  - {name: API_KEY, value: §}\n",
    "[credentials]\ntoken = §\n[model]\nname = x",
    "[http]\nproxy = http://ada:§@proxy.example.com:3128\n",
    "services:\n  db:\n    environment:\n      - POSTGRES_PASSWORD=§\n",
    "services:\n  db:\n    environment:\n      POSTGRES_PASSWORD: §\n",
    "az login `\n  --service-principal `\n  -u app `\n  -p §",
    'curl ^\n  -H "X-Api-Key: §" ^\n  https://h.example.com',
    "curl https://h.example.com \\\n  --header 'Authorization: Bearer §' \\\n  --data '{}'",
    "vault kv put secret/db \\\n  user=ada \\\n  password=§",
    "helm upgrade x ./x \\\n  --set db.user=ada \\\n  --set db.password=§",
    '{\n  "auths": {\n    "r.example.com": {\n      "username": "ada",\n      "password": "§"\n    }\n  }\n}',
    '{\n  "tokens": [\n    "§"\n  ]\n}',
    "name: API_KEY\nvalue: §",
    "<config>\n  <password>\n    §\n  </password>\n</config>",
]
HARMLESS = r"""
sed -i s/localhost/db.example.com/ app.conf
sed 's/tokenizer/processor/g' t.py
sed -e "s|__PASSWORD__|$DB_PASSWORD|" app.conf
net use Z: \\files\share
net user
rabbitmqctl list_users
snmpwalk -v2c h 1.3.6
mosquitto_sub -h mqtt -t training/loss
docker run -p 8080:80 --name web nginx
ssh -p 2222 ada@host.example.com
curl -X POST https://h.example.com/v1/jobs
gh pr create -b done
vault kv get secret/db
vault read database/roles/models
consul kv get service/db/host
etcdctl put /services/db/host db.example.com
git config set user.name ada
<item value="3"/>
aws ssm get-parameter --name /models/path
aws ssm put-parameter --name /models/lr --value 0.1
smbclient -L files
perl -e 'print $ENV{HOME}'
mpirun --env LEARNING_RATE 0.1 python t.py
mpirun -x NCCL_DEBUG=INFO python t.py
psql -c "SELECT user, host FROM accounts"
mysql -e "SHOW DATABASES"
torchrun --nnodes 2 t.py --split 8:1:1:0:0
nvidia-smi -i 0 -c 3
openssl version -a
expect -c 'spawn ssh h; expect "login:"'
unrar x models.rar
zip -r out.zip models
helm upgrade web ./web --set image.tag=1.2
kubectl config set-context --current --namespace team-a
heroku config:set LOG_LEVEL=debug
setx PATH C:\tools
kinit ada@EXAMPLE.COM
wandb login --host=https://wandb.example.com
echo done | sudo tee /tmp/state
az login --identity
curl -H "Authorization: Bearer $TOKEN" https://h.example.com
curl -u "$NAME:$PASS" https://h.example.com
mysql -u root -p"$MYSQL_ROOT_PASSWORD" models
PGPASSWORD=$DB_PASSWORD psql -h db models
TOKEN=$(cat /run/secrets/token) && python t.py
echo "$TOKEN" | docker login --password-stdin
args.token = os.environ["HF_TOKEN"]
tok.pad_token = tok.eos_token
connect(password=args.password)
openssl req -x509 -newkey rsa:2048 -keyout key.pem -out cert.pem
litellm --api-key-env OPENAI_API_KEY
etcd --initial-cluster-token models-1
app "--token=$TOKEN" --name "a b"
docker run -e "API_KEY=$API_KEY" x
proxy_set_header Host "h.example.com";
volume "db-creds" : secret "x" not found
printf 'user=%s\n' ada
jq -n --arg name ada '$name'
curl -sSLo out https://h.example.com
vault write auth/kubernetes/role/x policies=default ttl=1h
sftp ada@host.example.com:/models
sftp -P 2222 host.example.com
mount -t nfs -o vers=4.2,rw nas:/models /mnt
mount -t cifs //files/share /mnt -o username=ada,vers=3.0
https://h.example.com/?username=ada%40example.com
jwt.decode(token, options={"verify_signature": False})
poetry run python t.py
uv venv -p python3.12
uv pip install -t /opt/lib numpy
sky jobs queue --refresh
terraform init -backend-config=bucket=tf-state
echo don't wait; mysql -h db models; echo won't
terraform init -backend-config=key=team/prod.tfstate -backend-config=bucket=state
helm install db bitnami/postgresql --set auth.existingSecret=db-credentials
helm install x --set auth.existingSecretPasswordKey=password --set auth.database=models
helm install x --set tls.secretName=web-tls --set auth.username=models --set auth.enabled=true
docker pull auth-service:v7
docker run --rm oauth2-proxy:v7 --help
docker tag token-server:v2 r.example.com/token-server:v2
crane copy r.example.com/auth:v1 r.example.com/auth:v2
Back-off pulling image "quay.io/oauth2-proxy/oauth2-proxy:v7.6.0"
Failed to pull image external-secrets:v0.10.4: not found
Pulling image "docker.io/bitnami/kafka-credentials:3.9.0-debian-12-r1"
git clone ssh://git@git.example.com:2222/team/auth.git
kubectl create secret generic tls --from-file=tls.key=/etc/tls/tls.key
kubectl get secret db-credentials -o jsonpath={.data.password}
java -Djavax.net.ssl.keyStore=/etc/tls/keystore.jks -jar app.jar
redis-cli -u redis://redis:6379 info
{"security.protocol":"SASL_SSL","sasl.mechanism":"SCRAM-SHA-512","group.id":"trainer"}
{"inputs":[{"type":"pickString","id":"region","options":["eu","us"],"default":"eu"}]}
unsupported authorization: basic auth is disabled
authorization: bearer token required
OTEL_EXPORTER_OTLP_HEADERS=x-scope-orgid=team-a
vllm serve m --kv-transfer-config {"kv_connector":"NixlConnector","kv_role":"kv_both"}
vllm serve m --speculative-config {"method":"eagle3","num_speculative_tokens":3}
vllm serve m --ssl-keyfile=/etc/tls/tls.key --tokenizer-pool-size 4
text-generation-launcher --model-id m --max-input-tokens 4000 --max-total-tokens 8192
mlflow server --backend-store-uri sqlite:///mlflow.db --default-artifact-root s3://b/mlflow
spark-submit --conf spark.kubernetes.authenticate.driver.serviceAccountName=spark app.jar
kafka-topics.sh --bootstrap-server k:9092 --create --topic tokens --partitions 12
ssh -o IdentitiesOnly=yes -o PasswordAuthentication=no ada@h
""".strip().splitlines()


@pytest.mark.parametrize("secret", SECRETS)
def test_no_tools_secret_is_shown(secret: str) -> None:
    assert len(PLACES) >= 300
    texts = [place.replace("§", secret) for place in (*PLACES, *BLOCKS)]
    shown = {text: redact_text(text, MODE) for text in texts}
    assert [text for text, redacted in shown.items() if secret in redacted] == []


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_of_a_command_in_words_is_shown(secret: str) -> None:
    shown = []
    assert len(COMMANDS) >= 200
    for command in COMMANDS:
        arguments = [word.replace("§", secret) for word in shlex.split(command)]
        if any(secret in word for word in redact_arguments(arguments, MODE)):
            shown.append(arguments)
    assert shown == []


def test_what_is_like_these_and_harmless_can_be_read() -> None:
    shown = {text: redact_text(text, MODE) for text in HARMLESS}
    assert {text: redacted for text, redacted in shown.items() if redacted != text} == {}


def test_a_script_that_begins_with_a_reference_can_be_read() -> None:
    script = "PGPASSWORD=$DB_PASSWORD psql -h db models"
    assert redact_arguments(["sh", "-c", script], MODE) == ("sh", "-c", script)
    assert redact_arguments([script], MODE) == (script,)
    assert redact_arguments(["PASSWORD=some words"], MODE) == ("PASSWORD=***",)


@pytest.mark.parametrize("value", ["correct horse", "ab;cd&ef", "q9 | w8", "$PREFIX hunter2"])
@pytest.mark.parametrize("before", [["app", "-c"], ["app"], ["python", "-c"], ["app", "-c", "x"]])
def test_a_setting_is_no_script_whatever_its_option_is_called(
    before: list[str], value: str
) -> None:
    shown = redact_arguments([*before, f"db_password={value}"], MODE)
    assert shown[-1] == "db_password=***"
    assert redact_arguments([*before, f"--password={value}"], MODE)[-1] == "--password=***"


@pytest.mark.parametrize("shell", ["sh", "/bin/bash", "C:\\Windows\\System32\\cmd.exe", "pwsh"])
@pytest.mark.parametrize("option", ["-c", "-lc", "/c", "-Command"])
def test_a_script_of_a_shell_is_read_word_by_word(shell: str, option: str) -> None:
    shown = redact_arguments([shell, option, "TOKEN=hunter2 python t.py"], MODE)
    assert shown[-1] == "TOKEN=*** python t.py"


@pytest.mark.parametrize(
    ("command", "arguments", "shown"),
    [
        (["mysql"], ["-px", "-h", "db"], ["-p***", "-h", "db"]),
        (["/usr/bin/redis-cli"], ["-a", "x", "ping"], ["-a", "***", "ping"]),
        (["docker", "login"], ["-p", "x"], ["-p", "***"]),
        (["app", "--token"], ["x", "--lr", "1"], ["***", "--lr", "1"]),
        (["sh", "-c"], ["TOKEN=$X python t.py"], ["TOKEN=$X python t.py"]),
        (["bash"], ["-c", "TOKEN=$X python t.py"], ["-c", "TOKEN=$X python t.py"]),
        (["app"], ["TOKEN=$X word"], ["TOKEN=***"]),
        (["app", "-c"], ["TOKEN=$X word"], ["TOKEN=***"]),
        ([], ["-c", "TOKEN=$X word"], ["-c", "TOKEN=***"]),
        ([], ["app", "--env=PASSWORD=a;x"], ["app", "--env=PASSWORD=***"]),
        (["python"], ["-px", "-a", "x"], ["-px", "-a", "x"]),
    ],
)
def test_arguments_are_those_of_their_command(
    command: list[str], arguments: list[str], shown: list[str]
) -> None:
    assert redact_arguments(arguments, MODE, command) == tuple(shown)
