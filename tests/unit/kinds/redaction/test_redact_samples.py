"""What stands in people's manifests, as they write it: what must go, and what must stay readable."""

import base64

import pytest

from watchbill.kinds.derivation.redact import HIDDEN, redact_arguments, redact_text, redact_value
from watchbill.kinds.objects.settings import Redaction

MODE = Redaction.DEFAULT
HEX40 = "0123456789abcdef0123456789abcdef01234567"
FORTY = "QwErTyUiOp1AsDfGh2JkLzXcV3bNmQwErTyUi4Op"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


VARIABLES = {
    "OPENAI": "sk-proj-T3BlbkFJabcdEFGH1234567890_-xyzABCDEF",
    "WANDB_API_KEY": HEX40,
    "NGC_CLI": "nvapi-stg-AbCdEf0123456789_-AbCdEf",
    "NGC": "N2Q4ZGZ1aXNkaGZpdXNkaGZpdWhzZGY6ZGVhZGJlZWYtMTIzNC01Njc4",
    "S3_THING": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "CLIENT": "aB18Q~xK2mPq9LsT4vWzYb7NcRfHd3JgEuAoMi5t",
    "BOT": "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
    "TWILIO_AUTH_TOKEN": HEX40[:32],
    "FERNET": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
    "COHERE": FORTY,
    "LICENSE_KEY": "ABCD-EFGH-IJKL",
    "ENCRYPTION_KEY": "00112233445566778899aabbccddeeff",
    "MINIO_ROOT_PASSWORD": "minio123",
    "COMET_API_KEY": "abc",
    "SSH_B64": _base64("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END"),
    "REGISTRY": _base64("ada:hunter2-and-some-more"),
    "SETTINGS": _base64('{"password":"hunter2"}'),
    "DJANGO_SECRET_KEY": "5$k@w!z%q3&x(1n^7d#0p*r8",
    "PINECONE": f"pcsk_4Xyz1_8{FORTY}",
    "LANGSMITH": f"lsv2_pt_{HEX40[:32]}_0a1b2c3d4e",
    "LANGFUSE": "sk-lf-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
    "FIRECRAWL": f"fc-{HEX40[:32]}",
    "KAGGLE": f"KGAT_{HEX40[:32]}",
    "DAYTONA": f"dtn_{HEX40}",
    "AXIOM": "xaat-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
    "DOCKER_CONFIG_JSON": _base64('{"auths":{"nvcr.io":{"password":"hunter2"}}}'),
    "KUBECONFIG_DATA": _base64("apiVersion: v1\nusers:\n- user:\n    token: hunter2\n"),
    "AUTHENTICATION_APIKEY_ALLOWED_KEYS": "hunter2,letmein",
}
"""Nothing of the value stays."""

TEXTS = [
    # Of what stands in them, `hunter2` and FORTY must go.
    f"machine api.wandb.ai login user password {FORTY}",
    "machine git.example.com login ada password hunter2",
    "wandb login hunter2 && python train.py",
    "wandb login --relogin hunter2",
    '{"type": "service_account", "private_key": "hunter2", "client_email": "x"}',
    "AccountName=acct;AccountKey=hunter2;EndpointSuffix=core.windows.net",
    "Endpoint=sb://ns.example.net/;SharedAccessKeyName=Root;SharedAccessKey=hunter2",
    "https://acct.blob.example.net/c/b?sv=2022-11-02&ss=b&sig=hunter2&se=2026",
    "https://storage.example.com/b/o?X-Goog-Credential=a&X-Goog-Signature=hunter2",
    "https://h.example.com/cb#access_token=hunter2&x=1",
    "redis://:hunter2@redis:6379/0",
    "rediss://default:hunter2@redis.example.com:6380",
    "ada:hunter2@tcp(db:3306)/x?parseTime=true",
    "connecting to ada:hunter2@unix(/run/mysql.sock)/x",
    "host=db user=ada password=hunter2 dbname=x sslmode=require",
    "postgres://ada:p/hunter2@db:5432/x",
    "jdbc:postgresql://db:5432/x?user=ada&password=hunter2",
    "jdbc:oracle:thin:ada/hunter2@db:1521:orcl",
    "jdbc:sqlserver://h;databaseName=x;user=sa;password=hunter2;",
    "Driver={ODBC};Server=h;Uid=ada;Pwd=hunter2;",
    "mongodb+srv://ada:hunter2@c0.example.net/?retryWrites=true",
    "amqp://guest:hunter2@rabbit:5672/%2f",
    'security.plain.PlainLoginModule required username="ada" password="hunter2";',
    "curl -u ada:hunter2 https://h.example.com",
    "rsync --password-file=<(echo hunter2) h::a b",
    "gcloud auth activate-refresh-token ada@example.com hunter2",
    "https://q.cloud.qdrant.io:6333?api_key=hunter2&timeout=5",
    "x-honeycomb-team=hunter2,x-honeycomb-dataset=vllm",
    "users:\n- name: ada\n  user:\n    client-key-data: hunter2\n    client-certificate-data: x",
    "http://gpu-7.example.com:8888/lab/tree/x.ipynb?token=hunter2",
    "helm install mlflow --set-string 'auth.adminPassword=hunter2' --set image.tag=v2",
    "cat <<EOF | kubectl apply -f -\nkind: Secret\nstringData:\n  hf: hunter2\nEOF",
    "cat <<EOF > ~/.huggingface/token\nhunter2\nEOF\npython train.py",
    "tee ~/.cache/huggingface/token >/dev/null <<'END'\nhunter2\nEND",
    'cat > kaggle.json <<EOF\n{"username":"ada","key":"hunter2"}\nEOF',
    "milvus://root:hunter2@milvus:19530/default",
    ":s3,provider=Minio,access_key_id=ada,secret_access_key=hunter2:models/llama",
    "curl -H 'Authorization: Api-Key hunter2' https://x.example.com",
    "redis-server --requirepass hunter2 --maxmemory 1gb",
    "general_settings:\n  master_key: hunter2\n  database_url: os.environ/DATABASE_URL",
    "weaviate.connect_to_wcs(url, auth_credentials=AuthApiKey('hunter2'))",
    "prefect cloud login -k hunter2",
    "ngrok config add-authtoken hunter2",
    "from huggingface_hub import login; login('hunter2')",
    "requests.get(url, auth=('ada', 'hunter2'))",
    'requests.get(url, auth=HTTPBasicAuth("ada", "hunter2"))',
    "smtplib.SMTP('h').login('ada', 'hunter2')",
    "http -a ada:hunter2 https://h.example.com",
    "dvc remote modify --local storage password hunter2",
    "echo 'ada:hunter2' | chpasswd",
    "printf '%s' \"hunter2\" > /run/secrets/token",
    "echo hunter2 >> ~/.vault-token",
    "cat <<< hunter2 > /run/secrets/password",
    "tee /etc/secret <<< hunter2",
    "conda config --set token hunter2",
    "gh auth login --with-token <<< hunter2",
    "echo hunter2 | gh auth login --with-token",
    "curl -b 'session=hunter2' https://h.example.com",
    "lftp -u ada,hunter2 sftp://h.example.com",
    "dial tcp: login failed for ada:hunter2@db.example.com:5432",
    "curl --user=ada:hunter2 https://h.example.com",
    "curl -H 'Authorization: Bearer hunter2'",
    "curl -H 'Authorization: Token hunter2'",
    "curl -H 'X-Api-Key: hunter2'",
    "curl -H 'Cookie: session=hunter2; theme=dark'",
    'curl --header "PRIVATE-TOKEN: hunter2" https://gitlab.example.com',
    "Authorization: Basic aHVudGVyMg==hunter2",
    f"git clone https://x-access-token:ghs_{FORTY}@git.example.com/o/r",
    "git clone https://oauth2:hunter2@git.example.com/x.git",
    '{"auths":{"r.example.com":{"auth":"hunter2"}}}',
    f"https://hooks.slack.com/services/T024BE7LD/B0F5A7XQZ/{FORTY}",
    "https://hooks.slack.com/services/T024BE7LD/B0F5A7XQZ/hunter2",
    "https://discord.com/api/webhooks/123456789012345678/hunter2",
    "https://team.webhook.office.com/webhookb2/hunter2@x/IncomingWebhook/hunter2",
    "https://api.telegram.org/bothunter2/sendMessage",
    f"sk-ant-api03-{FORTY}",
    f"hf_{FORTY}",
    f"sk_live_{FORTY}",
    f"rk_test_{FORTY}",
    f"SG.{FORTY}.{FORTY}",
    f"hvs.{FORTY}",
    f"dckr_pat_{FORTY}",
    f"gsk_{FORTY}",
    f"glsa_{FORTY}_6789abcd",
    f"gldt-{FORTY}",
    f"r8_{FORTY}",
    f"dapi{HEX40[:32]}",
    f"wba.410c31fe-f934-4fcd-8fda-52c56f7e6eef.{FORTY}",
    f"wbr_{FORTY}",
    "//registry.npmjs.org/:_authToken=hunter2",
    "password: 'hunter2 and more'\nuser: ada",
    'api_key = "hunter2"',
    "python -c \"wandb.login(key='hunter2')\"",
    '{"accessKey":"hunter2","secretKey":"hunter2"}',
    "openssl enc -pass pass:hunter2 -in x",
    "export WANDB_API_KEY=hunter2; python t.py",
    'Failed to pull image: Get "https://ada:hunter2@r.example.com/v2/": x',
    f"-----BEGIN OPENSSH PRIVATE KEY-----\\n{FORTY}\\n-----END OPENSSH PRIVATE KEY-----",
]

ARGUMENTS = [
    ["aws", "configure", "set", "aws_secret_access_key", FORTY],
    ["vllm", "serve", "x", "--api-key", "hunter2", "hunter2b", "--port", "8000"],
    ["sky", "launch", "--env", "HF_TOKEN=hunter2", "--env=WANDB_API_KEY=hunter2"],
    ["start-notebook.py", "--IdentityProvider.token", "hunter2"],
    ["huggingface-cli", "login", "--token", "hunter2"],
    ["curl", "-u", "ada:hunter2"],
    ["curl", "--user", "ada:hunter2", "https://h.example.com"],
    ["curl", "-H", "Authorization: Bearer hunter2"],
    ["python", "t.py", "wandb.api_key=hunter2", "+logger.token=hunter2"],
    ["trainer.auth.password=hunter2"],
    ["--config", '{"hf_token":"hunter2","x":1}'],
    ["ray", "start", "--redis-password", "5241590000000000hunter2"],
    ["jupyter", "lab", "--NotebookApp.token=hunter2"],
    ["--dsn=ada:hunter2@tcp(db:3306)/x"],
    ["sh", "-c", "wandb login hunter2 && python t.py"],
    ["docker", "run", "-e", "HF_TOKEN=hunter2", "x"],
]

READABLE = {
    "MODEL": "meta-llama/Llama-3.1-70B-Instruct",
    "TOKENIZERS_PARALLELISM": "false",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel-collector.monitoring:4317",
    "OTEL_RESOURCE_ATTRIBUTES": "service.name=vllm,deployment.environment=prod",
    "KV_TRANSFER": '{"kv_connector":"NixlConnector","kv_role":"kv_both"}',
    "NUM_KEY_VALUE_HEADS": "8",
    "NCCL_IB_HCA": "mlx5_0,mlx5_1",
    "PASSAGE_MODEL": "intfloat/e5-large-v2",
    "AUTO_TOKENIZER_CLASS": "PreTrainedTokenizerFast",
    "SPECULATIVE": '{"model": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4}',
    "SPECIAL": '{"bos_token": "<s>", "eos_token": "</s>", "pad_token_id": 0}',
    "HELM": "helm upgrade --install q qdrant/qdrant --set replicaCount=3,image.tag=v1.15.4",
    "HEREDOC": "cat <<EOF > /etc/tokenizer_config.yaml\nmodel: llama\nEOF",
    "CHAT": "--chat-template /templates/tool_chat_template_llama3.1_json.jinja",
    "RAY": "ray job submit --address http://ray-head:8265 -- python train.py --num-workers 8",
    "RDZV": "torchrun --nproc-per-node=8 --rdzv-endpoint=head-0.head:29500 --rdzv-id=job-7f9c t.py",
    "LORA": "--lora-modules sql=/loras/sql-v2 chat=/loras/chat-v1",
    "BATCH": "dataset key 'image' not found in batch with keys image, label",
    "DONE": "Tokenization took 12.5 s for 4096 tokens; 98% of passages were cached",
    "MASTER_ADDR": "trainer-0.trainer.team-a.svc.cluster.local",
    "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64:/usr/local/cuda/lib64",
    "MAX_NUM_BATCHED_TOKENS": "16384",
    "WANDB_RUN_ID": "x7k2p9q1",
    "MLFLOW_TRACKING_URI": "http://mlflow.tools:5000",
    "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/Trainer",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    "GOOGLE_APPLICATION_CREDENTIALS": "/var/secrets/google/key.json",
    "GIT_COMMIT": "3f786850e387550fdab836ed7e6dc881de23001b",
    "NODE_NAME": "ip-10-0-12-34.eu-central-1.compute.internal",
    "HOSTNAME": "vllm-llama-70b-predictor-00002-deployment-7599fd8cbf-hk775",
    "EOS_TOKEN": "</s>",
    "BOS_TOKEN": "<|begin_of_text|>",
    "PAD_TOKEN": "<pad>",
    "PAD_TOKEN_ID": "0",
    "PRIMARY_KEY": "user_id",
    "KEY_COLUMN": "id",
    "AUTH_MODE": "oidc",
    "NUM_PASSES": "10",
    "KEYCLOAK_URL": "https://keycloak.example.com/realms/x",
    "SECRET_NAME": "db-credentials",
    "IMAGE_PULL_SECRET": "regcred",
    "SASL_MECHANISM": "SCRAM-SHA-512",
    "KEYSPACE": "metrics",
    "CONNECTOR": "postgres-sink",
    "CREDIT_LIMIT": "100.5",
    "HOTKEY": "ctrl",
    "TOKEN_LIMIT": "8k",
    "JAVA_OPTS": "-Xmx4g -XX:+UseG1GC -Dlog.level=info",
    "CKPT": "s3://b/runs/2026-01-15T10-30-00Z/step=12000/model-00001-of-00030.safetensors",
    "QUANT": "neuralmagic/Meta-Llama-3.1-405B-Instruct-quantized.w4a16",
    "GGUF": "bartowski/Qwen2.5-Coder-32B-Instruct-GGUF/Qwen2.5-Coder-32B-Instruct-Q4_K_M.gguf",
    "MIX": "mistralai/Mixtral-8x22B-Instruct-v0.1",
    "NIM": "nvcr.io/nim/nvidia/llama-3.3-nemotron-super-49b-v1.5:1.12.0",
    "CONDA": "/opt/conda/envs/py311-torch2.4-cu124/bin/python",
    "DIST_URL": "tcp://trainer-0.trainer:23456",
    "ETCD": "http://etcd-0.etcd:2379,http://etcd-1.etcd:2379",
    "NPM": "https://cdn.example.com:8080/@scope/package",
    "PROFILE": "https://example.com/@ada",
    "RUN_AS": "docker run -u 1000:1000 -w /work image",
    "FLAGS": "python -u train.py --user ada",
    "SAID": "authorization: token missing",
    "ALSO": "please login with a password first",
    "WRITES": 'echo "$TOKEN" > /run/secrets/token',
    "STEP": "echo step 3 of 5 > /tmp/progress.txt",
    "PINNED": "registry.example.com/team/train:1.2@sha256:" + "ab" * 32,
    "PEERS": "trainer-0:29400@rack-1",
    "READS": "tr a b <<< $(cat /etc/hosts)",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_variables_that_hold_secrets(name: str) -> None:
    value = VARIABLES[name]
    shown = redact_value(name, value, MODE)
    assert HIDDEN in shown
    assert value[:12] not in shown


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_hold_secrets(text: str) -> None:
    shown = redact_text(text, MODE)
    for secret in ("hunter2", FORTY[4:20], HEX40[4:20]):
        assert secret not in shown, shown


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_that_hold_secrets(arguments: list[str]) -> None:
    shown = " ".join(redact_arguments(arguments, MODE))
    assert "hunter2" not in shown
    assert FORTY[4:20] not in shown


@pytest.mark.parametrize("name", READABLE)
def test_what_people_need_to_read(name: str) -> None:
    assert redact_value(name, READABLE[name], MODE) == READABLE[name]


@pytest.mark.parametrize(
    "arguments",
    [
        ["vllm", "serve", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--tokenizer",
         "hf-internal-testing/llama-tokenizer", "--max-model-len", "32768"],
        ["torchrun", "--nnodes=2", "--rdzv_id=job-1", "--rdzv_endpoint=trainer-0:29400", "t.py"],
        ["deepspeed", "--num_gpus=8", "train.py", "--deepspeed", "ds_config_zero3.json"],
        ["bash", "-c", "pip install -r requirements.txt && accelerate launch m.py --max-tokens 5"],
        ["--pad-token-id", "0", "--eos-token", "</s>"],
        ["docker", "run", "-u", "1000:1000", "--user", "0:0"],
        ["python", "-u", "train.py"],
    ],
)  # fmt: skip
def test_arguments_that_people_need_to_read(arguments: list[str]) -> None:
    assert list(redact_arguments(arguments, MODE)) == arguments
