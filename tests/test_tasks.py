"""Tasks that ask an engine: together in calls, each with its own answers."""

import random

import pytest

from psr_lib.engines.base import Completion
from psr_lib.engines.tasks import Choose, Sample, alone, drive
from psr_lib.records import PSRError


class Echo:
    """Answers with what it was asked, and keeps the calls."""

    def __init__(self):
        self.calls = []

    def sample(self, prompts, *, seeds, **settings):
        self.calls.append(("sample", len(prompts), settings["temperature"]))
        return [
            [Completion(f"{prompt}/{seed}/{settings['temperature']}", 1, "eos", 1)]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def choose(self, prompts, options):
        self.calls.append(("choose", len(prompts), tuple(options)))
        return [[float(len(prompt))] * len(options) for prompt in prompts]


def sample(prompts, seeds, temperature=0.0):
    return Sample(
        doing="testing", prompts=prompts, seeds=seeds, temperature=temperature, top_p=1.0,
        max_tokens=3,
    )  # fmt: skip


def task(name, rounds):
    """Asks by turns in two ways, then for scores; the result says what it was answered."""
    found = []
    for k in range(rounds):
        prompts = [f"{name}.{k}.{i}" for i in range(1 + k % 2)]
        answers = yield sample(prompts, list(range(len(prompts))), temperature=float(k % 2))
        found += [completions[0].text for completions in answers]
    if rounds % 3 == 0:
        ((score, _),) = yield Choose(doing="scoring", prompts=[name], options=["a", "b"])
        found.append(score)
    return found


def expected(name, rounds):
    texts = [f"{name}.{k}.{i}/{i}/{float(k % 2)}" for k in range(rounds) for i in range(1 + k % 2)]
    return texts + ([float(len(name))] if rounds % 3 == 0 else [])


@pytest.mark.parametrize("live", [1, 3, 100])
def test_every_task_gets_its_own_answers(live):
    rng = random.Random(live)
    rounds = {f"t{n}": rng.randrange(7) for n in range(20)}
    open_now, most = set(), []

    def tasks():
        for name, count in rounds.items():
            open_now.add(name)
            most.append(len(open_now))
            yield name, task(name, count)

    found = {}
    for name, result in drive(Echo(), tasks(), live):
        open_now.discard(name)
        found[name] = result
    assert found == {name: expected(name, count) for name, count in rounds.items()}
    assert max(most) <= live


def test_tasks_in_step_share_their_calls():
    engine = Echo()
    dict(drive(engine, [(n, task(str(n), 3)) for n in range(5)], 5))
    assert engine.calls == [
        ("sample", 5, 0.0), ("sample", 10, 1.0), ("sample", 5, 0.0), ("choose", 5, ("a", "b"))
    ]  # fmt: skip


def test_those_that_are_ahead_wait_for_the_most():
    engine = Echo()
    dict(drive(engine, [(n, task(str(n), 4 if n else 3)) for n in range(3)], 3))
    assert [count for kind, count, _ in engine.calls if kind == "sample"] == [3, 6, 3, 4]


def test_a_task_alone_and_one_that_asks_nothing():
    assert alone(Echo(), task("x", 2)) == expected("x", 2)
    assert alone(Echo(), task("x", 0)) == [1.0]

    def silent():
        return 7
        yield

    assert alone(None, silent()) == 7


def test_a_task_alone_is_a_call_that_tells_of_its_progress():
    class Flows(Echo):
        def flow(self):
            raise AssertionError("one task gains nothing from a flow")

    assert alone(Flows(), task("x", 2)) == expected("x", 2)


def test_an_error_says_what_was_being_done():
    class Broken(Echo):
        def choose(self, prompts, options):
            raise RuntimeError("out of\nmemory")

    with pytest.raises(PSRError, match="while scoring: RuntimeError: out of memory"):
        alone(Broken(), task("x", 3))
