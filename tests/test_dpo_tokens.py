"""Which tokens a step-wise DPO row scores, and that the trainer's loss is Eq. 8."""

import math

import pytest
import torch
from tiny_model import (
    ift,
    make_tiny_model,
    merging_tokenizer,
    settings,
    step_pair,
    whole_pair,
    word_tokenizer,
)

from psr_lib import dpo, prompts
from psr_lib.models import load_model, load_tokenizer
from psr_lib.records import PSRError, ScoreExample
from psr_lib.token_rows import explain_row, sft_row, step_row, step_rows
from psr_lib.training import workspace

FAMILY = prompts.load("compact")
PAIRS = [step_pair(k) for k in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")[0]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "other", seed=1)[0]


def trainer_of(folder, pairs, work, reference=None, family=FAMILY, **changes):
    """The real trainer, ready to run, and its rows."""
    tokenizer = load_tokenizer(folder)
    rows, _ = step_rows(tokenizer, family, pairs, 256)
    model = load_model(folder, "float32", "cpu")
    ref = load_model(reference, "float32", "cpu") if reference else None
    with workspace(work) as tmp:
        trainer, _, _ = dpo.make_trainer(
            model, ref, tokenizer, rows, settings(**changes), work=tmp, seed=0
        )
        batch = next(iter(trainer.get_train_dataloader()))
    return trainer, batch, tokenizer


def scored_texts(batch, tokenizer):
    """The text of the scored tokens of each sequence of a collated batch, chosen ones first."""
    pairs = zip(batch["input_ids"], batch["completion_mask"], strict=True)
    return [tokenizer.decode(ids[mask.bool()]) for ids, mask in pairs]


def test_batch_scores_exactly_the_step(folder, tmp_path):
    _, batch, tokenizer = trainer_of(folder, PAIRS, tmp_path)
    end = {False: "\n", True: "<eos>"}
    expected = [p.chosen + end[p.chosen_final] for p in PAIRS]
    expected += [p.rejected + end[p.rejected_final] for p in PAIRS]
    assert sorted(scored_texts(batch, tokenizer)) == sorted(expected)


def test_batch_holds_the_prompt_and_prefix_unscored(folder, tmp_path):
    _, batch, tokenizer = trainer_of(folder, PAIRS, tmp_path)
    unscored = batch["attention_mask"].bool() & ~batch["completion_mask"].bool()
    texts = {tokenizer.decode(i[m]) for i, m in zip(batch["input_ids"], unscored, strict=True)}
    assert texts == {FAMILY.render(tokenizer, FAMILY.solve(p.question, p.prefix)) for p in PAIRS}


def test_only_final_steps_end_in_eos(folder, tmp_path):
    mixed = [step_pair(1, rejected_final=False, rejected="Step 2: 9 + 9 = 18."), step_pair(2)]
    _, batch, tokenizer = trainer_of(folder, mixed, tmp_path, batch=2)
    ended = [text for text in scored_texts(batch, tokenizer) if "<eos>" in text]
    assert ended == [mixed[0].chosen + "<eos>"]
    eos = batch["input_ids"] == tokenizer.eos_token_id
    assert int(eos.sum()) == 1


def test_siblings_may_differ_in_being_final(folder):
    row = step_row(load_tokenizer(folder), FAMILY, step_pair(1, chosen_final=False))
    assert row.chosen_ids[-1] != row.rejected_ids[-1]


def test_tokens_never_merge_across_the_boundary():
    tokenizer = merging_tokenizer()
    pair = step_pair(1)
    context = FAMILY.render(tokenizer, FAMILY.solve(pair.question, pair.prefix))
    joint = tokenizer(context + pair.chosen, add_special_tokens=False).input_ids
    alone = tokenizer(context, add_special_tokens=False).input_ids
    assert joint[: len(alone)] != alone, "the tokenizer of this test must merge newline and Step"
    row = step_row(tokenizer, FAMILY, pair)
    assert row.prompt_ids == alone
    assert tokenizer.decode(row.chosen_ids) == pair.chosen + "<eos>"
    assert tokenizer.decode(row.prompt_ids + row.chosen_ids) == context + pair.chosen + "<eos>"


def test_explain_row_marks_the_scored_tokens():
    tokenizer = word_tokenizer()
    pair = step_pair(0)
    marked = explain_row(tokenizer, step_row(tokenizer, FAMILY, pair), "rejected")
    assert "".join(text for text, scored in marked if scored) == pair.rejected + "\n"
    assert "".join(text for text, scored in marked if not scored).endswith("Solution:\n")


def log_probability(model, prompt, step):
    """Sum of the step's token log-probabilities after the prompt, in plain torch."""
    logits = model(torch.tensor([prompt + step])).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(step) - 1)
    return sum(logits[place, token] for place, token in zip(places, step, strict=True))


def by_hand(folder, reference, pairs, beta, alpha, family=FAMILY):
    """Eq. 8 and the anchor over all pairs, without TRL."""
    policy, ref = (load_model(f, "float32", "cpu") for f in (folder, reference))
    tokenizer, losses, likelihood, tokens = load_tokenizer(folder), [], 0.0, 0
    with torch.no_grad():
        for pair in pairs:
            row = step_row(tokenizer, family, pair)
            best, worst = (
                log_probability(policy, row.prompt_ids, step)
                - log_probability(ref, row.prompt_ids, step)
                for step in (row.chosen_ids, row.rejected_ids)
            )
            losses.append(-torch.nn.functional.logsigmoid(beta * (best - worst)))
            likelihood += log_probability(policy, row.prompt_ids, row.chosen_ids)
            tokens += len(row.chosen_ids)
    return float(sum(losses) / len(losses) - alpha * likelihood / tokens)


@pytest.mark.parametrize("alpha", [0.0, 10.0])
def test_loss_is_equation_8(folder, other, tmp_path, alpha):
    trainer, batch, _ = trainer_of(folder, PAIRS, tmp_path, other, beta=0.3, nll_weight=alpha)
    loss = float(trainer.compute_loss(trainer.model, batch).detach())
    expected = by_hand(folder, other, PAIRS, 0.3, alpha)
    assert abs(expected - alpha - math.log(2)) > 0.01, "policy and reference must differ here"
    assert loss == pytest.approx(expected, abs=1e-4)


def test_loss_starts_at_ln_2(folder, tmp_path):
    trainer, batch, _ = trainer_of(folder, PAIRS, tmp_path)
    assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(
        math.log(2), abs=1e-4
    )


def test_reference_folder_decides_the_reference(folder, other, tmp_path):
    previous, _, _ = trainer_of(folder, PAIRS, tmp_path / "a", folder)
    sft, _, _ = trainer_of(folder, PAIRS, tmp_path / "b", other)
    column = "ref_chosen_logps"
    assert sft.train_dataset["id"][:] == previous.train_dataset["id"][:]
    gaps = torch.tensor(sft.train_dataset[column]) - torch.tensor(previous.train_dataset[column])
    assert gaps.abs().min() > 1e-3


def test_reference_is_cached_in_the_run_only(folder, other, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    seen = []
    inside = dpo.StepDPOTrainer._precompute_ref_logps

    def spy(self, dataset, name, size):
        ready = inside(self, dataset, name, size)
        seen.extend(file["filename"] for file in ready.cache_files)
        return ready

    monkeypatch.setattr(dpo.StepDPOTrainer, "_precompute_ref_logps", spy)
    trainer_of(folder, PAIRS, tmp_path / "run", other)
    assert seen and all(str(tmp_path / "run" / "tmp") in name for name in seen)
    assert not (tmp_path / "run" / "tmp").exists() and not (tmp_path / "cache").exists()


# --- whole solutions (the baseline srlm): the only step after an empty prefix

WHOLE = [whole_pair(k) for k in range(4)]


def test_a_whole_solution_is_scored_from_its_first_token_to_its_end_of_text(folder, tmp_path):
    _, batch, tokenizer = trainer_of(folder, WHOLE, tmp_path)
    expected = [f"{text}<eos>" for p in WHOLE for text in (p.chosen, p.rejected)]
    assert sorted(scored_texts(batch, tokenizer)) == sorted(expected)
    assert all(text.count("\n") == 1 for text in expected), "its inner newlines are scored too"
    unscored = batch["attention_mask"].bool() & ~batch["completion_mask"].bool()
    texts = {tokenizer.decode(i[m]) for i, m in zip(batch["input_ids"], unscored, strict=True)}
    assert texts == {FAMILY.render(tokenizer, FAMILY.solve(p.question)) for p in WHOLE}


def test_a_chosen_solution_has_the_tokens_that_sft_has_shown(folder):
    tokenizer = load_tokenizer(folder)
    for k, pair in enumerate(WHOLE):
        row, shown = step_row(tokenizer, FAMILY, pair), sft_row(tokenizer, FAMILY, ift(k))
        assert (row.prompt_ids, row.chosen_ids) == (shown.prompt_ids, shown.completion_ids)
        assert row.rejected_ids[-1] == tokenizer.eos_token_id and row.rejected_ids != row.chosen_ids


@pytest.mark.parametrize("alpha", [0.0, 10.0])
def test_the_loss_of_whole_solutions_is_equation_8(folder, other, tmp_path, alpha):
    trainer, batch, _ = trainer_of(folder, WHOLE, tmp_path, other, beta=0.3, nll_weight=alpha)
    loss = float(trainer.compute_loss(trainer.model, batch).detach())
    assert loss == pytest.approx(by_hand(folder, other, WHOLE, 0.3, alpha), abs=1e-4)


def test_a_scored_solution_is_a_row_of_sft_whose_justification_carries_the_loss(folder):
    tokenizer = load_tokenizer(folder)
    example = ScoreExample(
        id="s/0", problem_id="p/0", question="x", solution="Step 1: 14.\nStep 2: 39.", points=5,
        explanation="67890 is right. Solution: 5.", right=True,
    )  # fmt: skip
    row = sft_row(tokenizer, FAMILY, example)
    assert tokenizer.decode(row.completion_ids) == " 67890 is right. Solution: 5.<eos>"
    assert tokenizer.decode(row.prompt_ids) == FAMILY.score("x", example.solution).user


def test_rows_left_out_are_counted():
    pairs = [
        step_pair(0),
        step_pair(2, rejected=step_pair(2).chosen),
        step_pair(4, prefix=["Step 1: " + "1 + " * 200] * 2),
    ]
    rows, counts = step_rows(word_tokenizer(), FAMILY, pairs, 256)
    assert [row.id for row in rows] == ["pair/0"]
    assert counts == {"rows": 3, "identical": 1, "too_long": 1, "used": 1}


def test_row_of_exactly_max_length_is_kept():
    tokenizer = word_tokenizer()
    length = step_row(tokenizer, FAMILY, step_pair(0)).length
    assert step_rows(tokenizer, FAMILY, [step_pair(0)], length)[1]["used"] == 1
    with pytest.raises(PSRError, match=f"1 longer than max_length={length - 1}"):
        step_rows(tokenizer, FAMILY, [step_pair(0)], length - 1)


def test_a_model_without_a_chat_template_is_named():
    tokenizer = word_tokenizer()
    with pytest.raises(PSRError, match=r"prompts paper: .* no chat template.* prompts=compact"):
        step_row(tokenizer, prompts.load("paper"), step_pair(0))
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert step_row(tokenizer, prompts.load("paper"), step_pair(0)).length > 0
