"""Sections of a preset for making EFT as the paper does: step PRM, tree search, annotation."""

from dataclasses import dataclass

from psr_lib.presets.parts import Sft, num, one_of, text


@dataclass(frozen=True, kw_only=True)
class Prm(Sft):
    """Step PRM (paper section 3.2): its base, its labels, and how it is trained."""

    base: str
    labels: str = text()
    solutions: int = num(low=1)
    heldout: int = num(low=1)
    neutral: str = one_of("good", "bad", "skip")
    tag: str
    bins: int = num(low=2)
    model: str


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Monte-Carlo tree search over steps (paper sections 3.2 and 4)."""

    policy: str = one_of("ift", "base")
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
    """Initial filter, the teacher that explains and judges, and what becomes of its answers."""

    min_gap: float = num(low=0, high=1)
    teacher: str = one_of("oracle", "api")
    orders: str = one_of("one", "both")
    dry_run: bool
    prompts: str = text()
    url: str = text()
    model: str = text()
    temperature: float = num(low=0)
    max_tokens: int = num(low=1)
    answer_tokens: int = num(low=1)
    limit: str = one_of("max_tokens", "max_completion_tokens")
    concurrency: int = num(low=1)
    timeout: float = num(above=0)
    retries: int = num(low=0)
