"""A search on every engine that takes it its own way (Ray: whole; vLLM: as a flow) is hf's.

The model is the shipped base in float32. Both packages are extras: without them their part is
skipped.
"""

import os
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from psr_lib import bench_rates, prompts, registry
from psr_lib.engines.base import EngineError
from psr_lib.engines.hf import HFEngine
from psr_lib.judge import Judge
from psr_lib.models import load_tokenizer
from psr_lib.presets import load
from psr_lib.prompts import Family
from psr_lib.records import PSRError, Question, read_jsonl, seed_of
from psr_lib.search import search_stream

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "data/tiny/base"
CHANGES = ["search.width=4", "search.max_iterations=4", "search.max_step_tokens=60",
           "search.temperature=1.3", "judge.max_tokens=12"]  # fmt: skip
PRESET = load("tiny", CHANGES)


class ByText(Family):
    """Reads a verdict from every letter of an explanation; the base was never taught to judge."""

    def judge(self, question, prefix, step_a, step_b, shots=()):
        return self.solve(question, [*prefix, step_a, step_b])

    @staticmethod
    def verdict(text):
        return "AB"[seed_of(text) % 2]


def questions():
    rows = read_jsonl(ROOT / "data/tiny/dev/words.jsonl")[:6]
    return [Question(id=str(k), text=row["question"]) for k, row in enumerate(rows)]


def searching(engine, judge=PRESET.judge, oracle=None):
    """The search of all questions, as it goes on."""
    family = ByText(**vars(prompts.load("compact")))
    tokenizer = load_tokenizer(BASE)
    judge = Judge(engine, family, tokenizer, judge, seed=3, scoring="ordered",
                  oracle=oracle)  # fmt: skip
    asked = enumerate(questions())
    return search_stream(engine, family, tokenizer, asked, PRESET.search, judge, 3)


def plain(found):
    """What a trace says, with its number."""
    return {place: (trace.status, trace.path, trace.tokens, trace.pairs) for place, trace in found}


def opened(folder=BASE):
    return HFEngine.load(folder, "float32", "cpu", workers=1)


@pytest.fixture(scope="module")
def expected():
    found = plain(searching(opened()))
    assert sum(len(pairs) for *_, pairs in found.values()) > 5
    return found


@pytest.fixture(scope="module")
def ray():
    found = pytest.importorskip("ray")
    found.init(num_cpus=4, include_dashboard=False, log_to_driver=False,
               object_store_memory=10**8, logging_level="error")  # fmt: skip
    found.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield found
    found.shutdown()


def ray_engine(make, workers=2):
    from psr_lib.engines.ray import RayEngine

    return RayEngine(make, load_tokenizer(BASE), workers=workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_takes_a_search_as_a_whole(ray, expected, workers):
    engine, one = ray_engine(opened, workers), opened()
    assert plain(searching(engine)) == expected
    list(searching(one))
    for name in ("rows", "prompt", "generated", "overflow"):
        assert getattr(engine.usage, name) == getattr(one.usage, name)
    asked = ray.get([actor.about.remote() for actor in engine.actors])
    assert len(asked) == workers
    engine.close()


def dies(marker, often):
    """An engine that ends its process when it is asked of the third question, once or always."""
    doomed = questions()[2].text

    class Doomed(HFEngine):
        def sample(self, prompts, **settings):
            if any(doomed in prompt for prompt in prompts) and (often or not marker.exists()):
                marker.touch()
                os._exit(1)
            return super().sample(prompts, **settings)

    return Doomed.load(BASE, "float32", "cpu", workers=1)


@pytest.mark.slow
def test_a_worker_that_dies_in_a_search_is_replaced(ray, expected, tmp_path):
    engine = ray_engine(partial(dies, tmp_path / "died", False))
    assert plain(searching(engine)) == expected and (tmp_path / "died").exists()
    engine.close()


@pytest.mark.slow
def test_a_question_that_is_the_death_of_every_worker_ends_the_search(ray, expected, tmp_path):
    engine = ray_engine(partial(dies, tmp_path / "died", True))
    found = {}
    with pytest.raises(EngineError, match=r"engine ray: worker . died"):
        for place, trace in searching(engine):
            found[place] = trace
    assert 0 < len(found) < len(expected) and 2 not in found
    assert plain(found.items()) == {place: expected[place] for place in found}
    engine.close()


@pytest.mark.slow
def test_a_search_that_is_given_up_leaves_no_worker_at_it(ray, expected):
    engine = ray_engine(opened)
    running = searching(engine)
    next(running)
    at_it = list(engine.actors)
    running.close()
    assert engine.actors == [None, None] and engine.shards == 2
    other = searching(engine)
    found = [next(other)]
    assert not set(engine.actors) & set(at_it)
    assert plain([*found, *other]) == expected
    engine.close()


@pytest.mark.slow
def test_what_cannot_travel_is_one_line(ray):
    engine, lock = ray_engine(opened), threading.Lock()
    judge = replace(PRESET.judge, kind="oracle")
    running = searching(engine, judge, oracle=lambda *call: bool(lock))
    with pytest.raises(PSRError, match=r"engine ray: the search cannot be sent.*lock") as caught:
        next(running)
    assert "\n" not in str(caught.value)
    engine.close()


EXTENSION = """
from psr_lib.judge import Verdict
from psr_lib.registry import register

@register("judge", "longer-one")
def longer(judge, calls):
    return [Verdict("A" if len(c.a) > len(c.b) else "B") for c in calls]
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["longer_judge", "longer_judge.py"])
def test_a_judge_from_outside_goes_to_the_workers(ray, tmp_path, monkeypatch, name):
    file = tmp_path / "longer_judge.py"
    file.write_text(EXTENSION)
    monkeypatch.syspath_prepend(tmp_path)
    registry.use(name if "." not in name else str(file))
    judge, engine = replace(PRESET.judge, kind="longer-one"), ray_engine(opened)
    found = plain(searching(engine, judge))
    assert found == plain(searching(opened(), judge)) and found != plain(searching(opened()))
    engine.close()
    del registry._entries["judge", "longer-one"], registry._imported[file]


@pytest.mark.slow
def test_an_engine_of_a_search_that_fails_says_so(ray):
    class Fails(HFEngine):
        def choose(self, prompts, options):
            raise AssertionError("not asked here")

        def sample(self, prompts, **settings):
            raise EngineError("engine hf: out of memory")

    engine = ray_engine(partial(Fails.load, BASE, "float32", "cpu", workers=1))
    with pytest.raises(EngineError, match=r"engine ray: worker .: engine hf: out of memory"):
        list(searching(engine))
    engine.close()


@pytest.mark.slow
def test_a_search_flows_through_vllm(expected):
    pytest.importorskip("vllm", exc_type=ImportError)
    from psr_lib.engines.vllm import VLLMEngine

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    engine = VLLMEngine.load(BASE, dtype="float32", gpu_memory=0.3, enforce_eager=True)
    calls = bench_rates.Recorder(engine)  # without a flow: one call after the other
    assert plain(searching(engine)) == expected
    assert plain(searching(calls)) == expected
    engine.close()
