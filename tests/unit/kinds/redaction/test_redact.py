"""What is hidden, and what is not: both lists are promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill.kinds.derivation.redact import (
    HIDDEN,
    redact_arguments,
    redact_image,
    redact_text,
    redact_value,
    redact_variables,
)
from watchbill.kinds.objects.settings import Redaction
from watchbill.kinds.objects.template import Variable

MODE = Redaction.DEFAULT
SECRETS = [
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghij_klmnopqrstuvwxyz",
    "glpat-abcdefGHIJ1234567890",
    "sk-proj-abc123DEF456ghi789JKL",
    "nvapi-AbC123dEf456gHi789",
    "xoxb-1234567890-abcdefghij",
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP",
    "x8Kq2vLm9Zt4Rw7Yp3Nc",
    "q7w3e9r1t5y8u2i4o6p0",
    "a1b2c-d3e4f-g5h6i-j7k8l",
    "qpwoeirutyalskdjfhgmznxbcv",
    "QwErTyUiOpAsDfGhJkLzXcVb",
    "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==",
    "sk_0f3a9c41d27be8560f3a9c41d27be8560f3a9c41d27be856",
    "st.0f3a9c41-d27b-4e85-96aa-0123456789ab.0f3a9c41d27be8560f3a9c41d27be856.0f3a9c41d27be856",
    "glpat-QwErTyUiOpAsDfGhJkLz.01.0z1abcdef",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "around",
    ["{}", "before {} after", "x={}", '{{"a": "{}"}}', "--flag={}", "https://h.example/p?q={}"],
)
def test_a_secret_s_own_form_gives_it_away(secret: str, around: str) -> None:
    shown = redact_text(around.format(secret), MODE)
    assert secret not in shown
    assert secret[8:16] not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://ada:pw@db:5432/x", "postgres://***@db:5432/x"),
        ("https://token@git.example/x.git", "https://***@git.example/x.git"),
        ("proxy http://a:b@c@host:80 refused", "proxy http://***@host:80 refused"),
        ("--api-key x --lr 0.1", "--api-key *** --lr 0.1"),
        ("--api-key=x --lr=0.1", "--api-key=*** --lr=0.1"),
        ("-e DB_PASSWORD=x run", "-e DB_PASSWORD=*** run"),
        ("export TOKEN=abc && run", "export TOKEN=*** && run"),
        ("export TOKEN='a b c' && run", "export TOKEN='***' && run"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("Authorization: Bearer abcDEF123456789", "Authorization: Bearer ***"),
        ("password: hunter2", "password: ***"),
        ("https://h.example/p?sig=x&x=1", "https://h.example/p?sig=***&x=1"),
        (
            "https://s3.example/b?X-Amz-Signature=abc&y=2",
            "https://s3.example/b?X-Amz-Signature=***&y=2",
        ),
        (
            "key:\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nend",
            "key:\n***\nend",
        ),
        ("-----BEGIN CERTIFICATE-----\ncut off he", "***"),
    ],
)
def test_a_secret_s_surroundings_give_it_away(text: str, shown: str) -> None:
    assert redact_text(text, MODE) == shown


ORDINARY = [
    "registry.example/web@sha256:0000000000000000000000000000000000000000000000004ebe2f693b1917d9",
    "nvcr.io/nim/meta/llama3-8b-instruct:1.0.0",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen2.5-72B-Instruct-GPTQ-Int4",
    "DeepSeek-R1-Distill-Qwen-32B",
    "TinyLlama-1.1B-Chat-v1.0-intermediate-step-1431k-3T",
    "mixtral-8x7b-instruct-v0.1.Q4_K_M.gguf",
    "stable-diffusion-xl-base-1.0",
    "/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
    "/data/runs/x7f3k9q2m5/checkpoint-12000/pytorch_model.bin",
    "s3://models/checkpoints/run-20240115T103000Z/step_12000",
    "410c31fe-f934-4fcd-8fda-52c56f7e6eef",
    "GPU-410c31fe-f934-4fcd-8fda-52c56f7e6eef",
    "3f786850e387550fdab836ed7e6dc881de23001b",
    "2026-11-23T16:29:59.123456Z",
    "bert-worker-5d8f7b9c6d-x2k9z",
    "hello-00002-deployment-7599fd8cbf-hk775",
    "--model meta-llama/Llama-3.1-8B-Instruct --tensor-parallel-size 8",
    "--max-num-batched-tokens 8192 --tokenizer-mode auto --max-tokens=4096",
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "torchrun --nproc_per_node=8 --rdzv_backend=c10d train.py",
    "expandable_segments:True,max_split_size_mb:512",
    "org.apache.spark.deploy.SparkSubmitRunner",
    "MyVeryLongCamelCaseTrainerClassName",
    "http://prometheus-operated.monitoring.svc.cluster.local:9090/api/v1/query",
    "arn:aws:iam::123456789012:role/TrainingJobExecutionRole",
    "hf_transfer",
    "sk-learn-training",
    "--token=$HF_TOKEN --password=${DB_PASSWORD}",
    "NCCL_IB_HCA=mlx5_0:1,mlx5_1:1",
    # What Kubernetes and its schedulers say.
    "back-off 10s restarting failed container=main"
    " pod=crash_life-pods-odd(167118be-6524-4dbd-beb4-b4a2d476b5f6)",
    "0/7 nodes are available: 2 Insufficient nvidia.com/gpu, 5 node(s) didn't match Pod's node"
    " affinity/selector. no new claims to deallocate, preemption: 0/7 nodes are available: 7"
    " Preemption is not helpful for scheduling.",
    "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to"
    " https://auth.example/token?scope=repository%3Ax%3Apull: 401 Unauthorized",
    "unauthorized: authentication required",
    'secret "hf-token" not found',
    "couldn't find key token in Secret default/hf",
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in"
    " flavor default, 8 more needed",
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 62440Ki.",
    "Preempted to accommodate a workload (UID: 0f6c, JobUID: 77aa) due to prioritization",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert redact_text(text, MODE) == text


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("API_KEY", "abc", HIDDEN),
        ("hf_token", "abc", HIDDEN),
        ("PGPASSWORD", "x", HIDDEN),
        ("PASSWORD", "1234", HIDDEN),
        ("DB_PWD", "x", HIDDEN),
        ("AWS_ACCESS_KEY_ID", "abc", HIDDEN),
        ("DATABASE_CONNECTION_STRING", "Server=x", HIDDEN),
        ("SENTRY_DSN", "https://x", HIDDEN),
        ("AZURE_SAS", "sv=1", HIDDEN),
        ("PRIVATE_STUFF", "x", HIDDEN),
        ("GOOGLE_CREDENTIALS", "{}", "{}"),
        ("GOOGLE_CREDENTIALS", '{"id": "x"}', HIDDEN),
        ("AUTHORIZATION", "x", HIDDEN),
        ("TOKEN_PATH", "hunter two", HIDDEN),
        ("HF_TOKEN", "", ""),
        ("TOKEN", "$(OTHER)", "$(OTHER)"),
        ("MAX_TOKENS", "4096", "4096"),
        ("TOKENIZERS_PARALLELISM", "false", "false"),
        ("TOKENIZER", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("AUTH_ENABLED", "true", "true"),
        ("AUTHOR", "ada", "ada"),
        ("CONNECTION_TIMEOUT", "30s", "30s"),
        ("TCP_KEEPALIVE", "sixty", "sixty"),
        ("KEYBOARD", "qwerty", "qwerty"),
        ("HF_TOKEN_PATH", "/root/.cache/token", "/root/.cache/token"),
        ("SSL_KEY_FILE", "/etc/ssl/tls.key", "/etc/ssl/tls.key"),
        ("CUDA_VISIBLE_DEVICES", "0,1,2,3", "0,1,2,3"),
        ("MODEL", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", HIDDEN),
    ],
)
def test_variables(name: str, value: str, shown: str) -> None:
    assert redact_value(name, value, MODE) == shown


def test_a_reference_is_shown() -> None:
    result = [Variable("TOKEN", "secretKeyRef(hf/token)", is_reference=True)]
    for mode in Redaction:
        assert redact_variables(result, mode) == {"TOKEN": "secretKeyRef(hf/token)"}


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        (["--api-key", "x"], ["--api-key", HIDDEN]),
        (["--api-key", "two words"], ["--api-key", HIDDEN]),
        (["--api-key=two words"], [f"--api-key={HIDDEN}"]),
        (["-e", "PASSWORD=p q"], ["-e", f"PASSWORD={HIDDEN}"]),
        (["--password", "--verbose"], ["--password", "--verbose"]),
        (["--max-tokens", "4096"], ["--max-tokens", "4096"]),
        (["--secret", "4096"], ["--secret", HIDDEN]),
        (["--token", "$TOKEN"], ["--token", "$TOKEN"]),
        (["sh", "-c", "x --api-key y"], ["sh", "-c", "x --api-key ***"]),
        (["--lr", "0.1"], ["--lr", "0.1"]),
    ],
)
def test_arguments(given_: list[str], shown: list[str]) -> None:
    assert list(redact_arguments(given_, MODE)) == shown


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("user:pw@registry.example/x:1", "***@registry.example/x:1"),
        ("nginx:1.2@sha256:" + "a" * 64, "nginx:1.2@sha256:" + "a" * 64),
        ("registry.example:5000/team/x:v1.2-x8Kq2vLm9Zt4", None),
        ("registry.example/x@sha256:" + "0" * 64, None),
    ],
)
def test_images(image: str, shown: str | None) -> None:
    assert redact_image(image, MODE) == (shown or image)


def test_strict_shows_names_only() -> None:
    assert redact_value("MODEL", "llama", Redaction.STRICT) == HIDDEN
    assert redact_arguments(["run", "--model", "llama", "--lr=0.1"], Redaction.STRICT) == (
        "run",
        "--model",
        HIDDEN,
        "--lr=***",
    )


@pytest.mark.parametrize("value", ["none", "true", "/var/x", "${X}", "llama", "hunter2xyz"])
def test_strict_shows_no_value_whatever_its_name(value: str) -> None:
    for written in ("--{}={}", "--set={}={}", "--env {}={}", "{}={}", "-D{}={}", "--{} {}"):
        for name in ("auth.token", "SECRET_PATH", "password", "model"):
            words = ["run", *written.format(name, value).split()]
            assert value not in " ".join(redact_arguments(words, Redaction.STRICT)), words


def test_off_shows_everything() -> None:
    for secret in SECRETS:
        assert redact_text(secret, Redaction.OFF) == secret
        assert redact_value("TOKEN", secret, Redaction.OFF) == secret
        assert redact_image(secret, Redaction.OFF) == secret
    assert redact_arguments(["--token", "x"], Redaction.OFF) == ("--token", "x")


@given(st.text(max_size=300), st.sampled_from(list(Redaction)))
def test_redacting_never_raises_and_settles(text: str, mode: Redaction) -> None:
    shown = redact_text(text, mode)
    assert redact_text(shown, mode) == shown


@given(
    st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
            min_size=32, max_size=64)
)  # fmt: skip
def test_what_is_drawn_at_random_is_hidden(secret: str) -> None:
    """Hypothesis draws repetitions too: only what is evenly mixed is promised."""
    if len(set(secret)) >= 28:
        assert redact_text(secret, MODE) == HIDDEN


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece",
    ["a", "a:", "a=", "-a ", "://@", "'", '"', "x-", "key=", "key: ", "Zx9", "http://a@", "eyJ.",
     "-----BEGIN A-----", "--key ", "\\", "bearer ", "a:b", "login x ", "wandb login ", "-u a:",
     "jdbc:oracle:a", "authorization: ", "cookie: ", "://a:", "https://hooks.slack.com/", "dapi0"],
)  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    redact_text(piece * (100_000 // len(piece)), MODE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"{\"password\": \"hunter2 x\", \"n\": 1}", r"{\"password\": \"***\", \"n\": 1}"),
        (r"{\"db\":{\"api_key\":\"hunter2\"}}", r"{\"db\":{\"api_key\":\"***\"}}"),
        ("password => hunter2", "password => ***"),
        ("'password'=>'hunter2'", "'password'=>'***'"),
        ("password += hunter2", "password += ***"),
    ],
)
def test_pairs_as_programs_write_them(text: str, shown: str) -> None:
    assert redact_text(text, MODE) == shown


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        (["--password", "-Hunter2"], ["--password", "***"]),
        (["--api-key", "-x8Kq2"], ["--api-key", "***"]),
        (["--use-auth", "--verbose"], ["--use-auth", "--verbose"]),
        (["--use-auth", "-v", "5"], ["--use-auth", "-v", "5"]),
    ],
)
def test_secrets_that_begin_like_options(given_: list[str], shown: list[str]) -> None:
    assert redact_arguments(given_, MODE) == tuple(shown)


def test_an_image_with_a_scheme() -> None:
    assert redact_image("https://ada:hunter2@r.example.com/x:1", MODE) == (
        "https://***@r.example.com/x:1"
    )
