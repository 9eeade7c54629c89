"""An engine that follows a script instead of a model, and random scripts for search and judge."""

import random
from collections.abc import Callable
from types import SimpleNamespace

from psr_lib.engines.base import Completion, Usage
from psr_lib.records import Question, seed_of

Script = Callable[[str, int, int], tuple[str, str]]  # prompt, seed, sibling -> text, finish


class Scripted:
    """Answers `sample` from a function; keeps every prompt that it was asked."""

    honours_seeds = True

    def __init__(self, script: Script):
        self.script, self.asked, self.batches, self.usage = script, [], 0, Usage()

    def sample(self, prompts, *, n, temperature, top_p, max_tokens, stop, seeds):
        """Completions as the script says; one word is one token."""
        self.batches += 1
        self.asked += prompts
        return [
            [self._one(prompt, seed, k) for k in range(n)]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def _one(self, prompt: str, seed: int, k: int) -> Completion:
        text, finish = self.script(prompt, seed, k)
        return Completion(text, len(text.split()), finish, len(prompt.split()))

    def choose(self, prompts, options):
        """Not scripted."""
        raise NotImplementedError


def search_settings(**changes) -> SimpleNamespace:
    """A preset's `search` block."""
    values = {"width": 6, "temperature": 1.0, "top_p": 0.95, "max_iterations": 20}
    values |= {
        "max_step_tokens": 96,
        "tie": "rollback",
        "pick": "random",
        "scoring": "ordered",
        "live": 99,
        "kind": "step",
        "exploration": 1.4,
    }
    return SimpleNamespace(**(values | changes))


def judge_settings(**changes) -> SimpleNamespace:
    """A preset's `judge` block."""
    values = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 64, "kind": "self"}
    values |= {"verdict": "written", "votes": 1, "early_stop": False}
    return SimpleNamespace(**(values | changes))


def questions(count: int, table: int = 0) -> list[Question]:
    """Questions with short texts."""
    return [Question(id=f"t{table}/{k}", text=f"Question {table}.{k}?") for k in range(count)]


def random_script(table: int) -> Script:
    """Candidates and verdicts drawn once for all by hash, with a difficulty of the table's own.

    There are duplicates, final steps with and without a box, malformed and cut candidates, ties by
    constant verdicts, unreadable verdicts, and in some tables prompts that overflow.
    """
    chance = random.Random(seed_of("table", table))
    variants = chance.choice([1, 2, 3, 6])
    final, broken = chance.choice([0.05, 0.2, 0.5]), chance.choice([0.0, 0.1, 0.5])
    unreadable, first = chance.choice([0.0, 0.2, 0.9]), chance.choice([0.1, 0.5, 0.9])
    overflow = chance.choice([0.0, 0.0, 0.0, 0.01])

    def propose(prompt: str, noise: random.Random) -> tuple[str, str]:
        depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
        text = f"Step {depth}: say {noise.randrange(variants)}" + noise.choice([".", "  ."])
        if noise.random() < broken:
            wrong = [f"Step {depth + 1}: ahead.", "no mark", "", f"{text}\n Step {depth + 1}: more"]
            return noise.choice([*((w, "stop") for w in wrong), (text, "length")])
        if noise.random() < final:
            return noise.choice([(text, "eos"), (f"{text} \\boxed{{{depth}}}", "stop")])
        return text, "stop"

    def verdict(noise: random.Random) -> tuple[str, str]:
        if noise.random() < unreadable:
            return "I can't say.", "length"
        return f"So [[{'A' if noise.random() < first else 'B'}]]", "eos"

    def script(prompt: str, seed: int, k: int) -> tuple[str, str]:
        judged = prompt.endswith("Review:")
        noise = random.Random(seed_of(table, prompt, *(() if judged else (seed, k))))
        if random.Random(seed_of(table, "long", prompt)).random() < overflow:
            return "", "overflow"
        return verdict(noise) if judged else propose(prompt, noise)

    return script
