"""Words of the simulated world: who works there, on what, with which images. Every name is invented."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Project:
    """A leaf queue. `quota_share` is of its department's quota, `demand` how much is submitted there.

    `limit_share` is of its own quota; None = no limit.
    """

    name: str
    department: str
    quota_share: float
    demand: int
    limit_share: float | None = None
    min_runtime: str | None = None


DEPARTMENTS = {"research": 0.50, "products": 0.32, "platform": 0.18}
"""Each department's part of the cluster's GPUs."""
DEPARTMENT_LIMITS = {"platform": 0.22}
"""Where a department may not grow beyond this part of the cluster."""

PROJECTS = (
    Project("alignment", "research", 0.40, 20, min_runtime="30m"),
    Project("speech", "research", 0.35, 16),
    Project("vision", "research", 0.25, 14, limit_share=1.1),
    Project("assistant", "products", 0.55, 16, min_runtime="1h"),
    Project("search", "products", 0.42, 10),
    Project("recommender", "products", 0.03, 7),
    Project("evaluation", "platform", 0.60, 10),
    Project("sandbox", "platform", 0.40, 8, limit_share=1.0),
)

USERS = tuple(
    f"{name}@example.com"
    for name in (
        "ada",
        "grace",
        "alan",
        "edsger",
        "barbara",
        "katherine",
        "donald",
        "hedy",
        "annie",
        "claude",
        "margaret",
        "john",
        "radia",
        "ken",
    )
)

MODELS = ("llama", "mistral", "qwen", "gemma", "phi", "falcon", "whisper", "clip", "bert", "mamba")
TRAINING_TASKS = ("sft", "dpo", "pretrain", "rlhf", "distill", "lora", "sweep")
BATCH_TASKS = ("eval", "embed", "tokenize", "export", "dedup", "bench")
SERVING_TASKS = ("chat", "api", "embed", "rerank", "gateway", "guard")
SESSION_TASKS = ("notebook", "devbox", "debug", "explore")
STORES = ("vectors", "features", "cache", "index")
SCHEDULED_TASKS = ("nightly-eval", "weekly-report", "refresh-index", "rotate-samples")
RELEASES = ("chat-stack", "search-stack", "rag-demo")
"""Helm releases that some served workloads belong to."""

IMAGES = {
    "train": "registry.example.com/ml/train:2.8",
    "batch": "registry.example.com/ml/batch:1.14",
    "serve": "registry.example.com/serve/vllm:0.11",
    "nim": "registry.example.com/nim/llm:1.8.0",
    "session": "registry.example.com/ml/notebook:4.3",
    "ray": "registry.example.com/ml/ray:2.46.0",
    "store": "registry.example.com/data/vectors:1.9",
    "web": "registry.example.com/serve/gateway:3.2",
    "study": "registry.example.com/research/tuner:0.7",
    "spark": "registry.example.com/data/spark:4.0",
    "machine": "registry.example.com/vm/launcher:1.6",
}
BAD_IMAGE_TAG = "does-not-exist"

COMMANDS = {
    "train": (["torchrun", "--nproc-per-node=gpu", "train.py"], ["--config", "configs/base.yaml"]),
    "batch": (["python", "run.py"], ["--shards", "16"]),
    "serve": (["vllm", "serve"], ["/models/current", "--port", "8000"]),
    "nim": ([], []),
    "session": (["start-notebook.sh"], ["--ip=0.0.0.0"]),
    "ray": (["/bin/bash", "-lc"], ["ray start --block"]),
    "store": (["vectors"], ["--data", "/data"]),
    "web": (["gateway"], ["--listen", ":8080"]),
    "study": (["tuner", "trial"], ["--space", "space.json"]),
    "spark": (["/opt/entrypoint.sh"], []),
    "machine": (["virt-launcher"], []),
}

CLUSTERS = ("oslo", "lagos", "kyoto", "quito", "tunis", "perth", "minsk", "hanoi")


def namespace_of(project: str) -> str:
    return f"team-{project}"


def cluster_name(index: int) -> str:
    """The name of the n-th simulated cluster."""
    name = CLUSTERS[index % len(CLUSTERS)]
    return name if index < len(CLUSTERS) else f"{name}-{index // len(CLUSTERS) + 1}"
