"""What every engine must do, whichever stands behind it: the same tests over hf, server, ray, vllm.

The model is tiny and random, in float32, so texts and scores can be compared with hf's. Ray and
vLLM are extras: without them their part is skipped.
"""

import math
import os
import signal
from types import SimpleNamespace

import pytest
import tiny_model
from completions_server import CompletionsServer

from psr_lib import presets
from psr_lib.engines.base import Completion, Engine, EngineError, Usage
from psr_lib.engines.hf import HFEngine
from psr_lib.engines.opening import open_engine
from psr_lib.records import PSRError

SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("ray", "vllm")]
KINDS = ["hf", "server", *SLOW]
DEADLY = "Review: 67890"  # the prompt that kills the worker which gets it
PROMPTS = [f"Tom has {k} {k * 7} pens. Tom buys {k * 3} pens. How many" for k in range(9)]
PROMPTS += ["Step 1: 14 + 25 = ", "A", PROMPTS[2], "Problem: x\n" + "Step 1: 9.\n" * 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model's folder."""
    target = tmp_path_factory.mktemp("contract") / "model"
    return tiny_model.make_tiny_model(target, hidden_size=64)[0]


@pytest.fixture(scope="module")
def hf(folder):
    """The engine that the others are compared with."""
    return HFEngine.load(folder, device="cpu", workers=1)


def preset(*overrides):
    """The sections `engine` and `model` of a preset, for the CPU."""
    found = presets.load("tiny", ["model.device=cpu", *overrides])
    return found.engine, found.model


def open_hf(folder):
    engine = open_engine(*preset(), folder)

    def fails(*args, **kwargs):
        raise RuntimeError("not enough memory: you tried to allocate\nmany bytes")

    def kill(prompts):
        engine.model.forward = fails
        return engine, prompts

    yield SimpleNamespace(engine=engine, kill=kill)


def open_server(folder):
    behind = CompletionsServer(HFEngine.load(folder, device="cpu", workers=1))
    with behind.running():
        url = [f"engine.url={behind.url}", "engine.kind=server", "engine.seeds=noise"]
        engine = open_engine(*preset(*url, "engine.retries=0", "engine.timeout=20"), folder, n=1)

        def kill(prompts):
            behind.faults = [None] * 2 + [500] * 99
            engine.concurrency = 1
            return engine, prompts

        yield SimpleNamespace(engine=engine, kill=kill)
        engine.close()


def open_ray(folder):
    ray = pytest.importorskip("ray")
    from psr_lib.engines.ray import RayEngine

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False,
             object_store_memory=10**8, logging_level="error")  # fmt: skip
    engine = open_engine(*preset("engine.kind=ray", "engine.workers=2"), folder)

    def doomed():
        class Doomed(HFEngine):
            def sample(self, prompts, **settings):
                if DEADLY in prompts:
                    os._exit(1)
                return super().sample(prompts, **settings)

        return Doomed.load(folder, device="cpu")

    def kill(prompts):
        mortal = RayEngine(doomed, engine.tokenizer, workers=2)
        return mortal, [*prompts, DEADLY]

    yield SimpleNamespace(engine=engine, kill=kill)
    engine.close()
    ray.shutdown()


def open_vllm(folder):
    pytest.importorskip("vllm", exc_type=ImportError)
    from psr_lib.engines.vllm import VLLMEngine

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    engine = VLLMEngine.load(folder, dtype="float32", gpu_memory=0.3, enforce_eager=True)

    def kill(prompts):
        import psutil

        for child in psutil.Process().children():
            if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
        return engine, prompts

    yield SimpleNamespace(engine=engine, kill=kill)
    engine.close()


@pytest.fixture(scope="module", params=KINDS)
def case(request, folder):
    """One kind of engine, and a way to make it die."""
    yield from globals()[f"open_{request.param}"](folder)


@pytest.fixture
def engine(case):
    """One kind of engine."""
    return case.engine


def sample(engine, prompts, **changes):
    """Sample with short defaults."""
    settings = {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 12, "stop": []}
    settings |= {"seeds": list(range(len(prompts)))}
    return engine.sample(prompts, **(settings | changes))


def test_it_is_an_engine(engine, folder):
    assert isinstance(engine, Engine) and isinstance(engine.honours_seeds, bool)
    assert engine.tokenizer.eos_token == "<eos>" and engine.context == 512
    assert engine.sample([], n=2, temperature=1.0, top_p=1.0, max_tokens=3, stop=[], seeds=[]) == []
    assert engine.choose([], ["a"]) == []


def test_greedy_is_hfs_and_the_order_is_kept(engine, hf):
    expected = sample(hf, PROMPTS, max_tokens=20)
    assert len({row[0].text for row in expected}) > 8
    assert sample(engine, PROMPTS, max_tokens=20) == expected
    assert sample(engine, PROMPTS[::-1], max_tokens=20) == expected[::-1]
    assert sample(engine, PROMPTS[:2], n=3) == [row * 3 for row in sample(hf, PROMPTS[:2])]


def test_seeds_make_the_text_whatever_is_in_the_batch(engine, hf):
    assert engine.honours_seeds  # each of these engines is opened so that it can
    for settings in ({"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.7}):
        together = sample(engine, PROMPTS, n=3, **settings)
        assert together == sample(hf, PROMPTS, n=3, **settings)
        turned = list(range(len(PROMPTS)))[::-1]
        found = sample(engine, PROMPTS[::-1], n=3, seeds=turned, **settings)
        assert found[::-1] == together
        assert sample(engine, [PROMPTS[4]], seeds=[4], **settings)[0] == together[4][:1]
    siblings = [c.text for c in sample(engine, [PROMPTS[0]] * 2, n=4, temperature=1.7)[0]]
    assert len(set(siblings)) == 4


def test_stop_strings_cut_exactly(engine, hf):
    for stop in (["\n", "is"], [" Step", "]]"]):
        settings = {"temperature": 1.3, "max_tokens": 40, "stop": stop}
        found = sample(engine, PROMPTS, **settings)
        assert found == sample(hf, PROMPTS, **settings)
        stopped = [c for (c,) in found if c.finish == "stop"]
        assert stopped and not any(s in c.text for (c,) in found for s in stop)


def test_eos_and_length_end_a_text(engine):
    found = sample(engine, PROMPTS * 3, temperature=2.0, max_tokens=30)
    finishes = {c.finish for (c,) in found}
    assert finishes == {"eos", "length"}
    for (c,) in found:
        assert "<eos>" not in c.text and (c.tokens == 30 if c.finish == "length" else c.tokens < 31)


def test_prompts_without_room_overflow_and_are_counted(engine):
    context, before = engine.context, engine.usage.copy()
    long, full, near = "3" * (context + 5), "3" * context, "3" * (context - 4)
    found = sample(engine, [long, "3", full, near], n=2, temperature=1.0, max_tokens=9)
    assert found[0] == [Completion("", 0, "overflow", context + 5)] * 2
    assert found[2] == [Completion("", 0, "overflow", context)] * 2
    assert all(0 < c.tokens <= 4 for c in found[3]) and all(c.tokens for c in found[1])
    scores = engine.choose([full, "3"], ["3", "9"])
    assert scores[0] == [-math.inf] * 2 and all(-99 < score < 0 for score in scores[1])
    assert engine.usage.since(before).overflow == 4 + 2


def test_choose_is_hfs(engine, hf):
    options = ["[[A]]", " 3 9.", "Step 1: 14", ""]
    found, expected = engine.choose(PROMPTS, options), hf.choose(PROMPTS, options)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    own = engine.choose(PROMPTS[:2], [["3"], ["9", "3"]])
    assert [len(row) for row in own] == [1, 2]
    assert own[1][1] == pytest.approx(hf.choose(PROMPTS[1:2], ["3"])[0][0], abs=1e-4)


def test_usage_counts_rows_and_tokens(engine, hf):
    counts = []
    for one in (engine, hf):
        before = one.usage.copy()
        found = sample(one, PROMPTS, n=2, temperature=1.0)
        sample(one, PROMPTS[:3], n=2)
        one.choose(PROMPTS[:3], ["A", "B"])
        counts.append(one.usage.since(before))
    mine, theirs = counts
    assert mine.prefill > 0 and theirs.rows == 2 * len(PROMPTS) + 6 + 6
    assert mine == Usage(**{**vars(theirs), "prefill": mine.prefill})
    assert mine.generated > sum(c.tokens for row in found for c in row)


def test_bad_calls_are_named(engine):
    with pytest.raises(PSRError, match="seeds"):
        sample(engine, ["3"], seeds=[1, 2])
    with pytest.raises(PSRError, match="no tokens"):
        sample(engine, [""])
    with pytest.raises(PSRError, match="lists of options"):
        engine.choose(["3", "9"], [["A"]])


def test_workers_wait_for_devices_that_others_hold_and_say_so_in_the_end(
    case, request, monkeypatch
):
    """Else they would wait for ever, without a word."""
    if request.node.callspec.params["case"] != "ray":
        pytest.skip("only ray shares devices out")
    from psr_lib.engines import ray

    monkeypatch.setattr(ray, "PATIENCE", 2.0)
    with pytest.raises(PSRError, match=r"others hold what 3 workers need .* lower engine\.workers"):
        ray.RayEngine(lambda: None, case.engine.tokenizer, workers=3)  # 4 cores, 2 are taken


def test_an_engine_that_dies_says_so_and_what_it_finished(case, hf, request):
    """The last test of each kind: the engine may not live on."""
    kind = request.node.callspec.params["case"]
    engine, prompts = case.kill(PROMPTS)
    with pytest.raises(EngineError) as caught:
        sample(engine, prompts)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"engine {kind}") and "again" in message
    finished = caught.value.finished
    if kind in ("server", "ray"):
        assert 0 < len(finished) < len(prompts)
        assert finished == {i: sample(hf, [prompts[i]])[0] for i in finished}
    if kind == "ray":  # the next call starts the worker again
        assert len(sample(engine, PROMPTS)) == len(PROMPTS)
        engine.close()
