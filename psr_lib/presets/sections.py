"""The sections of a preset: every setting with its type and its range.

What a value means, and where it is from, stands beside it in each preset's YAML.
"""

from dataclasses import MISSING, dataclass, field
from typing import Any


def num(
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    default: Any = MISSING,
) -> Any:
    """A number field with its range: at least `low`, greater than `above`, at most `high`."""
    return field(metadata={"low": low, "above": above, "high": high}, default=default)


def one_of(*choices: str) -> Any:
    """A text field that takes one of the choices."""
    return field(metadata={"choices": choices})


def named(kind: str, *more: str, files: bool = False, also: str = "") -> Any:
    """A name, or a list of names, that `registry` knows as this kind, or one of `more`.

    With `files` any other name may be a file's, which is looked for when it is read. `also`: a
    second kind that is found under the same name.
    """
    return field(metadata={"kind": kind, "more": more, "files": files, "also": also})


def text(default: Any = MISSING) -> Any:
    """A text field that may not be empty."""
    return field(metadata={"filled": True}, default=default)


def names_or_none() -> Any:
    """A list of names that may be empty."""
    return field(metadata={"empty": True})


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which base model, and how its weights are held."""

    base: str = text()
    dtype: str = one_of("float32", "bfloat16", "float16")
    device: str = one_of("auto", "cpu", "cuda", "mps")
    trust_remote_code: bool


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is solved, judged and asked in each round (counts of problems), and from where."""

    source: str = text()
    source_split: str = text()
    fields: dict[str, str]
    calculator: bool
    ngram: int = num(low=0)
    ift: int = num(low=1)
    ift_more: int = num(low=0)
    ift_shares: dict[str, float] = num(low=0)  # noqa: RUF009 - num() makes a field()
    eft_from: str = one_of("direct", "chain", "none")
    eft_shares: dict[str, float] = num(low=0)  # noqa: RUF009 - num() makes a field()
    eft: int = num(low=1)
    eft_heldout: int = num(low=1)
    questions: tuple[int, ...] = num(low=1)
    benchmarks: tuple[str, ...] = named("benchmark", files=True)
    benchmark_folder: str = text()
    benchmark_size: int = num(low=0)
    split: str = one_of("test", "dev")
    search_size: int = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Who cuts solutions into steps and judges pairs (paper section 3.2), and how it is asked."""

    ift: str = named("segmenter", "oracle")
    judge: str = named("teacher", also="scorer")
    dry_run: bool
    prompts: str = text()
    attempts: int = num(low=1)
    url: str = text()
    model: str = text()
    temperature: float = num(low=0)
    max_tokens: int = num(low=0)
    limit: str = one_of("max_tokens", "max_completion_tokens")
    answer_tokens: int = num(low=1)
    concurrency: int = num(low=1)
    timeout: float = num(above=0)
    retries: int = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Step search (paper section 3.3, Eq. 1-5), or a tree search as a named comparison."""

    kind: str = one_of("step", "mcts")
    exploration: float = num(low=0)
    width: int = num(low=2)
    temperature: float = num(low=0)
    top_p: float = num(above=0, high=1)
    max_iterations: int = num(low=1)
    max_step_tokens: int = num(low=1)
    tie: str = one_of("rollback", "first")
    pick: str = one_of("random", "first")
    scoring: str = one_of("ordered", "both_slots", "single_order", "agreement")
    live: int = num(low=1)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How verdicts are decoded, and who gives them."""

    temperature: float = num(low=0)
    top_p: float = num(above=0, high=1)
    max_tokens: int = num(low=1)
    kind: str = named("judge")
    verdict: str = one_of("written", "explained", "direct")
    votes: int = num(low=1)
    early_stop: bool


@dataclass(frozen=True, kw_only=True)
class Srlm:
    """The baseline `srlm`: whole solutions scored by the model itself (Yuan et al. 2024)."""

    eft_solutions: int = num(low=2)
    budget: str = one_of("psrlm", "none")
    solutions: int = num(low=2)
    max_tokens: int = num(low=1)
    scores: int = num(low=1)
    score_temperature: float = num(low=0)
    score_top_p: float = num(above=0, high=1)
    max_score_tokens: int = num(low=1)
    top_share: float = num(above=0, high=1)


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning, M0 -> M1; `lora_r` 0 trains every weight."""

    epochs: int = num(low=1)
    lr: float = num(above=0)
    batch: int = num(low=1)
    scheduler: str = one_of("cosine", "linear", "constant")
    warmup_ratio: float = num(low=0, high=1)
    weight_decay: float = num(low=0)
    max_length: int = num(low=8)
    lora_r: int = num(low=0)
    lora_alpha: int = num(low=1)
    bf16: bool


@dataclass(frozen=True, kw_only=True)
class Dpo(Sft):
    """Step-wise DPO, M[n-1] -> M[n] (paper section 3.4, Eq. 6-8)."""

    beta: float = num(above=0)
    nll_weight: float = num(low=0)
    loss: str = named("loss")
    reference: str = one_of("previous", "sft")
    start_from: str = one_of("previous", "sft")
    filters: tuple[str, ...] = named("filter")
    min_margin: float = num(low=0)
    length_ratio: float = num(low=0, high=1)
    soft_labels: str = one_of("none", "round", "pair")
    replay: float = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Where training runs: in one process (`single`), or in many (`psr_lib/launch`).

    The batch of a preset is the same either way, so no result depends on it but in rounding.
    """

    launch: str = text("single")
    processes: int = num(low=0, default=0)
    machines: str = ""
    save_every: int = num(low=0, default=200)


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Greedy accuracy, judge accuracy and test-time search."""

    max_tokens: int = num(low=1)
    search_rounds: tuple[int, ...] = num(low=0)
    judge_shots: int = num(low=0)
    samples: int = num(low=0)
    sample_temperature: float = num(above=0)
    sample_top_p: float = num(above=0, high=1)
    samples_up_to: int = num(low=0)
    own_prompts: str


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What generates text; which kinds read a setting stands beside it in tiny.yaml."""

    kind: str = named("engine")
    batch_tokens: int = num(low=1)
    dtype: str = one_of("", "float32", "bfloat16", "float16")
    context: int = num(low=0)
    tensor_parallel: int = num(low=1)
    gpu_memory: float = num(above=0, high=1)
    workers: int = num(low=1)
    worker: str = one_of("hf", "vllm")
    cores: int = num(low=0)
    url: str = text()
    model: str = text()
    protocol: str = one_of("completions", "chat")
    seeds: str = one_of("sent", "none", "noise")
    concurrency: int = num(low=1)
    timeout: float = num(above=0)
    retries: int = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An API model that is measured beside the run's own, and how it is asked."""

    url: str = text()
    model: str = text()
    protocol: str = one_of("chat", "completions")
    prompts: str = text()
    seeds: str = one_of("sent", "none")
    max_tokens: int = num(low=1)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The judge laboratory: what a search's tokens buy, which solutions, whose labels, attacks."""

    compare_size: int = num(low=0)
    problems: int = num(low=0)
    solutions: int = num(low=2)
    audit: tuple[str, ...] = names_or_none()
    audit_size: int = num(low=0)
    attacked: int = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Prm(Sft):
    """Step PRM (paper section 3.2): its base, its labels, and how it is trained."""

    base: str
    labels: str = text()
    solutions: int = num(low=1)
    heldout: int = num(low=1)
    neutral: str = one_of("good", "bad", "skip")
    clauses: bool
    tag: str
    bins: int = num(low=2)
    model: str


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Monte-Carlo tree search over steps (paper sections 3.2 and 4)."""

    policy: str = one_of("ift", "base")
    policy_epochs: int = num(low=1)
    questions: int = num(low=2)
    iterations: int = num(low=1)
    simulation_depth: int = num(low=0)
    width: int = num(low=2)
    temperature: float = num(above=0)
    top_p: float = num(above=0, high=1)
    exploration: float = num(low=0)
    value: str = one_of("min", "product", "mean", "last")
    max_steps: int = num(low=1)
    max_step_tokens: int = num(low=1)
    live: int = num(low=1)


@dataclass(frozen=True, kw_only=True)
class Annotate:
    """What becomes of sibling pairs before and after the teacher judges them."""

    min_gap: float = num(low=0, high=1)
    best_share: float = num(above=0, high=1)
    orders: str = one_of("one", "both")


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Figure 2, the map of prompts and responses (section 5.2); `embedding` own, or a model."""

    embedding: str = text()
    embedded: int = num(low=4)
    perplexity: float = num(low=1)
