"""What the vLLM engine asks of vLLM, seen by a stand-in; with vLLM itself: test_engine_contract."""

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import tiny_model

from psr_lib.engines import vllm_log
from psr_lib.engines.base import EngineError
from psr_lib.engines.tasks import Choose, drive
from psr_lib.engines.vllm import VLLMEngine
from psr_lib.records import PSRError


class Recorded:
    """Stands in for `vllm.LLM`: a token's log-probability follows from the ids before it."""

    def __init__(self):
        self.asked, self.under_way, self.dropped = [], [], []
        self.llm_engine, self.engine_core = self, object()
        self.model_config = SimpleNamespace(max_model_len=64, dtype="torch.float32")
        self.renderer = SimpleNamespace(render_cmpl=list)

    def add_request(self, name, prompt, params, lora_request):
        """Take a request; nothing is done before `step`."""
        ids = tuple(prompt["prompt_token_ids"])
        self.asked.append(ids)
        self.under_way.append((name, ids, params))

    def step(self):
        """End the request that came last: the others are seen not to wait for it."""
        name, ids, params = self.under_way.pop()
        found = {t: SimpleNamespace(logprob=score(ids, t)) for t in params.logprob_token_ids}
        ended = SimpleNamespace(
            request_id=name, outputs=[SimpleNamespace(logprobs=[found])], prompt_token_ids=ids,
            num_cached_tokens=0, finished=True,
        )  # fmt: skip
        return [ended, SimpleNamespace(finished=False)]

    def abort_request(self, names):
        """Forget these."""
        self.dropped += names
        self.under_way = [one for one in self.under_way if one[0] not in names]


def score(ids, token):
    """A number of its own for every text and token."""
    return -(sum(k * i for k, i in enumerate(ids, start=1)) + token / 1000)


@pytest.fixture
def engine(monkeypatch):
    """The engine over the stand-in."""
    kinds = SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY="last"))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", kinds)
    return VLLMEngine(Recorded(), tiny_model.word_tokenizer(), eos=[1])


def test_options_after_one_text_are_one_request(engine):
    prompts = ["Step 1", "14 + 25", "Step 1"]
    one = [engine.tokenizer.encode(text, add_special_tokens=False) for text in prompts]
    a, b, end = (engine.tokenizer.convert_tokens_to_ids(t) for t in "AB9")
    found = engine.choose(prompts, ["A", "B", "A9"])
    assert len(engine.llm.asked) == len(set(engine.llm.asked)) == 4  # two texts, and each with A
    for ids, row in zip(one, found, strict=True):
        both = score(ids, a) + score([*ids, a], end)
        assert row == pytest.approx([score(ids, a), score(ids, b), both])


def asking(prompt, times):
    """A task that asks so often; its result is the last answer."""
    found = []
    for k in range(times):
        found = yield Choose(doing="testing", prompts=[prompt * (k + 1)], options=["A", "B9"])
    return found


def test_a_flow_gives_each_task_its_own_answers(engine):
    times = {"Step 1": 3, "14 + 25": 1, "Step": 5, "9": 2}
    found = dict(drive(engine, [(name, asking(name, n)) for name, n in times.items()], 3))
    assert not engine.waiting and not engine.llm.dropped
    for name, n in times.items():
        assert found[name] == engine.choose([name * n], ["A", "B9"])


def test_what_is_under_way_is_dropped_with_its_flow(engine):
    tasks = [("short", asking("9", 1)), ("long", asking("Step 1", 4)), ("late", asking("A", 3))]
    flow = drive(engine, tasks, 3)
    next(flow)
    assert engine.waiting
    flow.close()
    assert not engine.waiting and engine.llm.dropped and not engine.llm.under_way


def test_a_call_within_a_flow_answers_both(engine):
    flow = drive(engine, [(k, asking("Step " * (k + 1), 2)) for k in range(4)], 4)
    first, _ = next(flow)
    alone = engine.choose(["14"], ["A"])
    assert alone == engine.choose(["14"], ["A"])
    assert {first} | {name for name, _ in flow} == set(range(4))


@pytest.mark.parametrize(
    ("said", "way"),
    [  # vLLM 0.32's own words
        ("Free memory on device cuda:0 (9.1/79.1 GiB) on startup is less than desired GPU memory "
         "utilization (0.9, 71.2 GiB). Decrease GPU", "; lower engine.gpu_memory, or end"),
        ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
         "; raise engine.gpu_memory or engine.tensor_parallel, or lower engine.context"),
        ("To serve at least one request with the model's max seq len (4096), (0.3 GiB KV cache is "
         "needed, which is larger than the available", "; raise engine.gpu_memory or"),
        ("CUDA out of memory. Tried to allocate 1 GiB", "; raise engine.tensor_parallel, take"),
        ("Engine core initialization failed. See root cause above.",
         "; VLLM_LOGGING_LEVEL=INFO shows"),
    ],
)  # fmt: skip
def test_a_start_without_memory_names_what_helps_then(said, way, monkeypatch, tmp_path):
    def fails(**_):
        try:
            raise ValueError(said)
        except ValueError:
            raise RuntimeError("it did not start") from None

    folder, _ = tiny_model.make_tiny_model(tmp_path / "model")
    monkeypatch.setattr("psr_lib.engines.vllm.import_vllm", lambda: SimpleNamespace(LLM=fails))
    with pytest.raises(PSRError) as caught:
        VLLMEngine.load(folder)
    assert f"(it did not start){way}" in str(caught.value) and "\n" not in str(caught.value)


def test_an_engine_that_stops_ends_the_flow_in_one_line(engine):
    def stops():
        raise RuntimeError("its process\ndied")

    flow = drive(engine, [(k, asking("Step", k + 1)) for k in range(3)], 3)
    next(flow)
    engine.llm.step = stops
    with pytest.raises(EngineError, match=r"engine vllm: stopped in the middle.*its process"):
        next(flow)
    assert not engine.waiting


def test_an_engine_that_stops_is_not_explained_by_what_was_printed_before_it(engine, monkeypatch):
    monkeypatch.delenv(vllm_log.LEVEL, raising=False)
    with vllm_log.aside():
        print("ValueError: an earlier engine's end")
    late = VLLMEngine(engine.llm, engine.tokenizer, eos=[1])
    engine.llm.step = Mock(side_effect=RuntimeError("EngineCore encountered an issue"))
    for told, owner in (("an issue", late), ("an earlier engine's end", engine)):
        with pytest.raises(EngineError, match=told):
            owner.choose(["14"], ["A"])


def test_flows_know_nothing_of_each_other(engine):
    one = drive(engine, [(k, asking("Step", k + 1)) for k in range(3)], 3)
    two = drive(engine, [(k, asking("9", k + 2)) for k in range(3)], 3)
    found = dict([next(one), next(one)]), dict([next(two)])
    two.close()
    rest = dict(one)
    assert {*found[0], *rest} == {0, 1, 2} and not engine.waiting
    assert (found[0] | rest)[2] == engine.choose(["Step" * 3], ["A", "B9"])[0:1]


def test_an_engine_with_nothing_to_do_is_not_waited_for(engine):
    flow = drive(engine, [(k, asking("Step", 3)) for k in range(3)], 3)
    next(flow)
    engine.waiting.clear()
    engine.llm.under_way.clear()
    with pytest.raises(EngineError, match="nothing to do"):
        next(flow)
