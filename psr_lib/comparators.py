"""Other ways to spend the tokens of a test-time search: majority vote, best of N.

Each gets what the search of that problem has spent (solving and judging together), so that they are
compared at equal tokens: those generated plus those judged; prompt tokens, which caches share, are
told apart. A budget is met as nearly as whole solutions allow: another one is drawn while at least
half of what it is likely to cost is left, so a problem ends within about half a solution (and its
verdicts) of its budget. Every answer says what it cost.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psr_lib.engines.base import Completion, Engine
from psr_lib.evaluation import Benchmarks, Row, answer_row, graded
from psr_lib.grading import Grader, plain_number, plain_text
from psr_lib.judge import Call, Judge
from psr_lib.prompts import Family
from psr_lib.records import Question, seed_of
from psr_lib.robins import Verdict, tally
from psr_lib.solving import sampled_solutions
from psr_lib.steps import boxed


@dataclass
class Pool:
    """Whole solutions of one question, their verdicts, and what they have cost.

    `spent`: `prefill` (prompt tokens read), `generated`, `judged`; `budget` covers the last two. A
    solution that a server counts as no token uses one of it up, or it would never be met.
    """

    question: Question
    budget: int
    solutions: list[Completion] = field(default_factory=list)
    verdicts: dict[Call, Verdict] = field(default_factory=dict)
    spent: Counter = field(default_factory=Counter)

    @property
    def left(self) -> int:
        """Tokens of the budget that are not spent."""
        written = max(self.spent["generated"], len(self.solutions))
        return self.budget - written - self.spent["judged"]

    @property
    def length(self) -> float:
        """Mean tokens of a solution."""
        return self.spent["generated"] / max(1, len(self.solutions))

    @property
    def room(self) -> bool:
        """Whether the question leaves the model any room to answer."""
        return not self.solutions or self.solutions[-1].finish != "overflow"

    def take(self, completion: Completion) -> None:
        """Add a solution."""
        self.solutions.append(completion)
        self.spent.update(prefill=completion.prompt_tokens, generated=completion.tokens)


@dataclass(frozen=True)
class Comparators:
    """Both ways over one engine; `search` gives temperature and top_p of the samples."""

    engine: Engine
    family: Family
    tokenizer: Any
    search: Any
    seed: int
    max_tokens: int = 512

    def majority(
        self, questions: Sequence[Question], budgets: Sequence[int]
    ) -> list[tuple[Completion, Counter]]:
        """Sampled solutions until the budget is spent; the most frequent answer, first at a draw.

        Self-consistency (Wang et al. 2022).
        """

        def wanted(pool: Pool) -> int:
            if not pool.solutions:
                return 1
            fits = pool.left / max(1.0, pool.length)
            # Half of what fits at a time: lengths are known better with every solution.
            return max(1, int(fits / 2)) if fits >= 0.5 else 0

        pools = self._pools(questions, budgets)
        self._fill(pools, wanted)
        return [(vote(pool.solutions), pool.spent) for pool in pools]

    def best_of_n(
        self, questions: Sequence[Question], budgets: Sequence[int], judge: Judge
    ) -> list[tuple[Completion, Counter]]:
        """Best-of-N by the model's own verdicts: of N sampled solutions the one with the most wins.

        The field's best-of-N takes the solution that a reward model scores highest. Here the policy
        is the judge and its verdicts are pairwise, so the score is Eq. 2 over whole solutions: each
        stands in a step's place, after no prefix, and meets every other one in both orders. N is
        what the budget allows.
        """

        def wanted(pool: Pool) -> int:
            if len(pool.solutions) < 2:
                return 1
            read = [v.tokens for v in pool.verdicts.values()]
            rounds = 2 * len({c.text for c in pool.solutions})
            cost = pool.length + rounds * sum(read) / max(1, len(read))
            return int(pool.left >= cost / 2)

        pools = self._pools(questions, budgets)
        self._fill(pools, wanted, lambda some: _judge(some, judge))
        return [(_winner(pool, judge), pool.spent) for pool in pools]

    def _pools(self, questions: Sequence[Question], budgets: Sequence[int]) -> list[Pool]:
        return [Pool(*pair) for pair in zip(questions, budgets, strict=True)]

    def _fill(
        self,
        pools: Sequence[Pool],
        wanted: Callable[[Pool], int],
        after: Callable[[list[Pool]], None] = lambda some: None,
    ) -> None:
        """Sample in one engine call for all pools that want more, until none does."""
        while due := [pool for pool in pools if pool.room for _ in range(wanted(pool))]:
            rank: Counter[str] = Counter()
            seeds = []
            for pool in due:
                k = len(pool.solutions) + rank[pool.question.id]
                rank[pool.question.id] += 1
                seeds.append(seed_of(self.seed, "whole", pool.question.id, k))
            for pool, completion in zip(due, self._sample(due, seeds), strict=True):
                pool.take(completion)
            after(list({id(pool): pool for pool in due}.values()))

    def _sample(self, pools: Sequence[Pool], seeds: list[int]) -> list[Completion]:
        found = sampled_solutions(
            self.engine, self.family, self.tokenizer, [pool.question for pool in pools], seeds,
            temperature=self.search.temperature, top_p=self.search.top_p,
            max_tokens=self.max_tokens,
        )  # fmt: skip
        return [completions[0] for completions in found]


def vote(solutions: Sequence[Completion]) -> Completion:
    """The first solution with the most frequent boxed answer; the first of all if none has one."""
    keys = [_answer(c.text) for c in solutions]
    counts = Counter(key for key in keys if key is not None)
    if not counts:
        return solutions[0]
    return solutions[keys.index(counts.most_common(1)[0][0])]


def _answer(text: str) -> Any:
    """A boxed answer such that equal plain numbers, or texts up to blanks, are equal."""
    box = boxed(text)
    if box is None:
        return None
    value = plain_number(box)
    return plain_text(box) if value is None else value


def _call(pool: Pool, judge: Judge, i: int, j: int) -> Call:
    draw = () if judge.repeatable else (0, i, j)
    return Call(pool.question, (), pool.solutions[i].text, pool.solutions[j].text, draw)


def _judge(pools: Sequence[Pool], judge: Judge) -> None:
    """Verdicts between each pool's last solution and those before it, in both orders."""
    asked: list[tuple[Pool, Call]] = []
    for pool in pools:
        last = len(pool.solutions) - 1
        calls = [_call(pool, judge, *p) for k in range(last) for p in ((k, last), (last, k))]
        asked += [(pool, call) for call in dict.fromkeys(calls) if call not in pool.verdicts]
    found = judge.ask([call for _, call in asked])
    for (pool, call), verdict in zip(asked, found, strict=True):
        pool.verdicts[call] = verdict
        pool.spent.update(prefill=verdict.prompt_tokens, judged=verdict.tokens)


def _winner(pool: Pool, judge: Judge) -> Completion:
    """The solution with the most wins, the first at a draw."""
    answer = lambda i, j: pool.verdicts[_call(pool, judge, i, j)].answer  # noqa: E731
    wins = tally(len(pool.solutions), judge.scoring, answer)
    judge.forget(pool.question)
    return pool.solutions[wins.index(max(wins))]


def comparator_rows(
    benchmarks: Benchmarks,
    found: Sequence[tuple[Completion, Mapping[str, int]]],
    grader: Grader | None = None,
) -> list[Row]:
    """Graded answer rows of a comparator, one a problem, with what each has cost."""
    flat = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    rows = [
        answer_row(name, problem, c.text, c.finish, spent)
        for (name, problem), (c, spent) in zip(flat, found, strict=True)
    ]
    return graded(rows, [problem.answer for _, problem in flat], grader)
