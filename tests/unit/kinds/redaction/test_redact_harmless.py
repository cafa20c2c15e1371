"""200 values that people need to read, and that redaction leaves alone."""

from tests.unit.kinds.redaction.test_redact_corpus import redacted

HARMLESS_VARIABLES = """
AUTH_IMAGE=oauth2-proxy:v7
SIDECAR_IMAGE=quay.io/oauth2-proxy/oauth2-proxy:v7.6.0
BUNDLE_WITHOUT=development:test
BUNDLE_BUILD__NOKOGIRI=--use-system-libraries
BUNDLE_SERVER=opa.example.com:8181
BUNDLE_ID=com.example.app
KAFKA_SASL_ENABLED_MECHANISMS=SCRAM-SHA-512,PLAIN
SECURITY_PROTOCOL=SASL_SSL
DSN=postgresql://db:5432/models
TLS_SERVER_KEY=/etc/tls/tls.key
NO_PROXY=localhost,127.0.0.1,.svc,.cluster.local,10.0.0.0/8
OTEL_RESOURCE_ATTRIBUTES=service.name=trainer,service.version=1.4.2
COMET_PROJECT_NAME=llama-sft
WANDB_RUN_ID=3k9x2v7q
CLEARML_TASK_ID=0f3a9c41d27be856aa11bb22cc33dd44
PREFECT_API_URL=http://prefect-server:4200/api
MAX_TOKENS=4096
TOKENIZER=meta-llama/Llama-3.1-8B-Instruct
TOKENIZER_MODE=mistral
TOKENIZERS_PARALLELISM=false
EOS_TOKEN=</s>
MASK_TOKEN=[MASK]
BOS_TOKEN_ID=128000
NUM_KEY_VALUE_HEADS=8
KEY_LENGTH=128
KEY_PREFIX=runs/2026/11
CACHE_KEY=v3-linux-py312
PROMPT_KEY=text
MONITOR_KEY=val/loss
KEY_VALUE_CACHE_DTYPE=fp8_e4m3
NUM_TOKENS=1B
TOKEN_BUDGET=1e6
PASS_RATE=0.93
TOKEN_TTL=3600
TOKEN_ENDPOINT=https://login.example.com/oauth2/token
OAUTH_ISSUER_URL=https://login.example.com/realms/team
AUTH_MODE=oidc
AUTH_TYPE=kerberos
AUTHOR=ada
AUTHORS=ada and grace
SECRET_NAME=db-credentials
SECRET_PROVIDER=vault
CREDENTIAL_SOURCE=Ec2InstanceMetadata
PASSWORD_POLICY=strong
PASSWORD_FILE=/run/secrets/password
AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/eks.amazonaws.com/serviceaccount/token
GOOGLE_APPLICATION_CREDENTIALS=/var/secrets/google/key.json
SSH_AUTH_SOCK=/tmp/ssh-agent.sock
XAUTHORITY=/home/ada/.Xauthority
KEY_COLUMN=id
SORT_KEY=created_at
PARTITION_KEY=tenant
PRIMARY_KEY=user_id
MAX_CONNECTIONS=100
CONNECTION_TIMEOUT=30s
CONN_MAX_AGE=600
TCP_KEEPALIVE=on
KEYBOARD_LAYOUT=de
KEYCLOAK_URL=https://sso.example.com
COMPASS_MODE=north
BYPASS_CACHE=true
NUM_PASSES=3
PASSTHROUGH=enabled
MONKEY_PATCH=gevent
CREDIT_LIMIT=100.5
HF_TOKEN=${HF_TOKEN}
API_KEY={{ .Values.apiKey }}
WEBHOOK_PORT=9443
SESSION_COOKIE_SECURE=true
JWT_ALGORITHM=RS256
COOKIE_DOMAIN=example.com
KEYPOINT_MODEL=hrnet_w32
SACRED_OBSERVER=mongo
IMAGE_KEY=jpg
DATASET_KEY=squad
KEY_METRIC=val/loss
PASSENGER_FLOW=taxi
KANSAS_REGION=us-central1
SECRET_REF=db-credentials
AUTHORITY_MODEL=qwen
SECRET_STORE=vault
SPECIAL_TOKENS_MAP=/models/special_tokens_map.json
AUTH_IMAGE=registry.example.com/team/login:v7.12.0
MCP_CONFIG={"mcpServers":{"fs":{"command":"npx","args":["-y","@modelcontextprotocol/server-filesystem","/data"]}}}
SECRET_ROTATION_DAYS=30
PASSWORD_MIN_LENGTH=12
STOP_TOKENS=<|eot_id|>,<|end|>
DISASTER_RECOVERY=standby
MODEL=meta-llama/Llama-3.3-70B-Instruct
MODEL=Qwen/Qwen2.5-Coder-32B-Instruct-GPTQ-Int4
MODEL=deepseek-ai/DeepSeek-R1-Distill-Llama-70B
MODEL=neuralmagic/Meta-Llama-3.1-405B-Instruct-quantized.w4a16
MODEL=mistralai/Mixtral-8x22B-Instruct-v0.1
MODEL=black-forest-labs/FLUX.1-schnell
MODEL=openai/gpt-oss-120b
MODEL=xai-org/grok-1
MODEL=sentence-transformers/all-MiniLM-L6-v2
MODEL=hf-internal-testing/tiny-random-LlamaForCausalLM
MODEL=TheBloke/CodeLlama-34B-Instruct-GGUF
NCCL_IB_HCA=mlx5_0:1,mlx5_1:1
NCCL_SOCKET_IFNAME=eth0
NCCL_DEBUG=INFO
CUDA_VISIBLE_DEVICES=0,1,2,3
NVIDIA_VISIBLE_DEVICES=GPU-410c31fe-f934-4fcd-8fda-52c56f7e6eef
PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True,max_split_size_mb:512
XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true
LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/cuda/lib64
PATH=/opt/conda/bin:/usr/local/sbin:/usr/bin
PYTHONPATH=/workspace/src:/workspace/third_party
MASTER_ADDR=trainer-0.trainer.team-a.svc.cluster.local
MASTER_PORT=29500
WORLD_SIZE=16
RANK=0
WANDB_PROJECT=llama-finetune
WANDB_RUN_ID=x7k2p9q1
WANDB_MODE=offline
MLFLOW_TRACKING_URI=http://mlflow.tools:5000
AWS_REGION=eu-central-1
AWS_ROLE_ARN=arn:aws:iam::123456789012:role/TrainingJobExecutionRole
S3_ENDPOINT=https://minio.storage.svc:9000
CHECKPOINT=s3://models/runs/2026-01-15T10-30-00Z/step=12000/model-00001-of-00030.safetensors
GIT_COMMIT=3f786850e387550fdab836ed7e6dc881de23001b
IMAGE_DIGEST=sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
POD_NAME=llama-worker-5d8f7b9c6d-x2k9z
NODE_NAME=ip-10-0-12-34.eu-central-1.compute.internal
HOSTNAME=vllm-llama-70b-predictor-00002-deployment-7599fd8cbf-hk775
JOB_ID=410c31fe-f934-4fcd-8fda-52c56f7e6eef
JAVA_OPTS=-Xmx4g -XX:+UseG1GC -Dlog.level=info
SPARK_CLASS=org.apache.spark.deploy.SparkSubmitRunner
DATABASE_HOST=db.team-a.svc
DATABASE_URL=postgres://db:5432/models
REDIS_URL=redis://redis:6379/0
KAFKA_BROKERS=kafka-0.kafka:9092,kafka-1.kafka:9092
OTEL_EXPORTER_OTLP_ENDPOINT=http://otel-collector.monitoring:4317
TZ=Europe/Berlin
LANG=C.UTF-8
VLLM_ATTENTION_BACKEND=FLASH_ATTN
VLLM_USE_V1=1
OMP_NUM_THREADS=8
HF_HOME=/data/hf
HF_HUB_ENABLE_HF_TRANSFER=1
TRANSFORMERS_CACHE=/data/hf/hub
TRITON_CACHE_DIR=/tmp/triton
npm_config_cache=/tmp/npm
RAY_ADDRESS=ray://raycluster-head-svc.team-a.svc.cluster.local:10001
PROFILE=https://example.com/@ada
NPM=https://cdn.example.com:8080/@scope/package
DATASET=allenai/c4/en/c4-train.00000-of-01024.json.gz
CONFIG={"lr": 0.0001, "batch_size": 32, "scheduler": "cosine"}
STOP={"stop_tokens": [128001, 128009]}
LIMITS={"max_tokens": 512, "tokenizer": "auto"}
NUM_KEYS=12
PRIVATE_NETWORK=true
KEYWORDS=llm,training
ACCESS_MODE=ReadWriteMany
SECRETS_MOUNT=/run/secrets
COLLECTIVE_TIMEOUT=1800s
SASL_MECHANISM=SCRAM-SHA-512
IMAGE_PULL_SECRET=regcred
RUN_NAME=sft-llama-3.1-8b-lr1e-5-bs64-20260115
EXPERIMENT=ablation_lora_rank_64_alpha_128_dropout_0.05
TOKENIZER_PATH=/models/llama/tokenizer.json
AUTH={"type": "oidc", "enabled": true}
PRIMARY_KEYS=tenant_id, run_id
TOKEN=$(TOKEN_PREFIX):$(TOKEN_ID)
CONNECTION=${DB_HOST}:${DB_PORT}
SPECIAL={"pad_token": "<pad>", "eos_token": "<|eot_id|>"}
""".strip().splitlines()
HARMLESS_TEXTS = """
python train.py --token-budget 100000 --sort-key length --input-key text --output-key tokens
vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 32768 --tokenizer-mode auto
vllm serve /models/llama --max-num-batched-tokens 8192 --enable-auto-tool-choice --tool-call-parser hermes
vllm serve x --served-model-name llama-3.3-70b --gpu-memory-utilization 0.92 --quantization fp8
python -m sglang.launch_server --model-path Qwen/Qwen3-235B-A22B --tp 8 --port 30000
torchrun --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=trainer-0:29400 train.py
deepspeed --num_gpus=8 train.py --deepspeed ds_config_zero3.json --bf16
accelerate launch --config_file fsdp.yaml sft.py --max_seq_length 4096
mpirun -np 16 -H worker-0:8,worker-1:8 -x NCCL_DEBUG python train.py
python -u train.py --user ada --lr 1e-4
python train.py --key-dim 64 --num-key-value-heads 8 --pass-through false
python train.py trainer.max_epochs=10 model.tokenizer=gpt2 +exp.author=ada
docker run -u 1000:1000 -p 8080:80 -w /work image
docker run -u root:staff image
mkdir -p /data/runs && cp -a /src/. /data/runs
ssh -p 22 host.example.com uptime
rsync -a --password-file=/run/secrets/rsync src dst
git config --global credential.helper store
git config --global user.email ada@example.com
aws configure set region eu-central-1
kubectl config set-context team-a --namespace=team-a
conda config --set channel_priority strict
pip install -r requirements.txt --find-links https://files.example.com/wheels
pip install torch==2.6.0+cu124 flash-attn==2.7.4.post1
huggingface-cli download meta-llama/Llama-3.1-8B --local-dir /models
jupyter lab --ip=0.0.0.0 --port=8888 --no-browser --allow-root
python -c "print('a'); run(\'b\')"
python -c "import os; os.environ['MODEL'] = 'llama'; os.environ.get('RANK', '0')"
python -c "AutoTokenizer.from_pretrained('gpt2')"
vllm serve x \\
["python", "train.py", "--lr", "0.1", "MODEL", "llama"]
ENV MODEL llama
set -e MODE fast
echo starting | tee /dev/stderr
tritonserver --model-repository=s3://models/triton --http-port=8000
mysql -h db -u ada models
redis-cli -h redis -p 6379 ping
curl -fsSL https://example.com/install.sh
curl -H 'Content-Type: application/json' http://h.example.com/v1/models
curl -H "Accept: text/event-stream" http://h.example.com/v1/stream
spark-submit --class org.apache.spark.examples.SparkPi local:///opt/spark/examples.jar 1000
ray start --head --port=6379 --dashboard-host=0.0.0.0 --block
sleep infinity
bash -c 'echo "Starting training" && exec python train.py'
back-off 10s restarting failed container=main pod=crash-odd(167118be-6524-4dbd-beb4-b4a2d476b5f6)
0/7 nodes are available: 2 Insufficient nvidia.com/gpu, 5 node(s) had untolerated taint {dedicated: ml}.
failed to fetch anonymous token: unexpected status from GET request to https://auth.example/token: 401
unauthorized: authentication required
secret "hf-token" not found
couldn't find key token in Secret default/hf
configmap references non-existent config key: settings.yaml
MountVolume.SetUp failed for volume "creds" : secret "db-credentials" not found
The node was low on resource: memory. Threshold quantity: 100Mi, available: 62440Ki.
Preempted to accommodate a workload (UID: 0f6c, JobUID: 77aa) due to prioritization
Job was active longer than specified deadline
couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a, 8 more needed
Back-off pulling image "registry.example.com/team/trainer:2026.11"
rpc error: code = NotFound desc = failed to pull and unpack image "docker.io/library/x:1"
exceeded quota: gpu-quota, requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=8
pod group is not ready, 1 Pending, 3 minAvailable; Pending: 1 Unschedulable
Multi-Attach error for volume "pvc-410c31fe-f934-4fcd-8fda-52c56f7e6eef" Volume is already used by pod(s) a-0
authorization: token missing
please login with a password first
RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB
KeyError: 'model.layers.0.self_attn.k_proj.weight'
ModuleNotFoundError: No module named 'flash_attn_2_cuda'
NCCL WARN Connect to 10.0.12.34<41234> failed : Connection refused
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: train.py FAILED
Liveness probe failed: Get "http://10.244.1.7:8080/healthz": context deadline exceeded
MyVeryLongCamelCaseTrainerClassName finished with exit code 0
http://prometheus-operated.monitoring.svc.cluster.local:9090/api/v1/query
https://grafana.example.com/d/gpu-usage?orgId=1&from=now-6h&to=now
https://team-a.example.com/notebook/ada/lab/tree/README.md
sk-learn-training and hf_transfer are words, as are key-value-store-migration and re_training_of_models
""".strip().splitlines()
HARMLESS_IMAGES = """
nvcr.io/nvidia/pytorch:25.09-py3
nvcr.io/nim/meta/llama-3.1-70b-instruct:1.12.0
vllm/vllm-openai:v0.11.0
registry.example.com:5000/team/trainer:v1.2-x8Kq2vLm9Zt4
ghcr.io/huggingface/text-generation-inference:3.3.4-rocm
registry.example.com/x@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
public.ecr.aws/deep-learning-containers/vllm:0.11-gpu-py312
us-docker.pkg.dev/team-a/models/serve:3f78685
rayproject/ray:2.50.0-py311-gpu
kserve/huggingfaceserver:v0.16.0-gpu
docker.io/library/nginx:1.29@sha256:3f786850e387550fdab836ed7e6dc881de23001b9f86d081884c7d659a2feaa0
quay.io/jupyter/pytorch-notebook:cuda12-2025-11-03
""".strip().splitlines()


def test_harmless_values_can_be_read() -> None:
    """At most 2 in 100 may be hidden by mistake; today none of these is."""
    samples = [tuple(line.split("=", 1)) for line in HARMLESS_VARIABLES]
    samples += [("text", text) for text in HARMLESS_TEXTS]
    samples += [("image", image) for image in HARMLESS_IMAGES]
    assert len(samples) >= 200
    hidden = [
        (name, value, redacted(name, value))
        for name, value in samples
        if redacted(name, value) != value
    ]
    assert hidden == []
