"""What the vLLM engine asks of vLLM, seen by a stand-in; with vLLM itself: test_engine_contract."""

import sys
from types import SimpleNamespace

import pytest
import tiny_model

from psr_lib.engines.vllm import VLLMEngine


class Recorded:
    """Stands in for `vllm.LLM`: a token's log-probability follows from the ids before it."""

    def __init__(self):
        self.asked = []
        config = SimpleNamespace(max_model_len=64, dtype="torch.float32")
        self.llm_engine = SimpleNamespace(model_config=config, engine_core=object())

    def generate(self, prompts, params, use_tqdm):
        """One next token a request, scored for the ids that it names."""
        rows = [tuple(prompt["prompt_token_ids"]) for prompt in prompts]
        self.asked += rows
        return [self._scored(ids, one) for ids, one in zip(rows, params, strict=True)]

    def _scored(self, ids, params):
        found = {t: SimpleNamespace(logprob=score(ids, t)) for t in params.logprob_token_ids}
        return SimpleNamespace(
            outputs=[SimpleNamespace(logprobs=[found])], prompt_token_ids=ids, num_cached_tokens=0
        )


def score(ids, token):
    """A number of its own for every text and token."""
    return -(sum(k * i for k, i in enumerate(ids, start=1)) + token / 1000)


@pytest.fixture
def engine(monkeypatch):
    """The engine over the stand-in."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace))
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
