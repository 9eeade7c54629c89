"""The switches of step-wise DPO: filters of pairs, soft labels, other losses, replayed EFT."""

import math
from collections import Counter

import pytest
import torch
from tiny_model import eft, make_tiny_model, settings, step_pair

from psr_lib import (
    beside,
    commands,
    consistency,
    dpo,
    losses,
    pair_filters,
    presets,
    prompts,
    registry,
    request,
    runs,
)
from psr_lib.methods import METHODS, USES_GOLD
from psr_lib.models import load_model, load_tokenizer
from psr_lib.records import PSRError, Question
from psr_lib.robins import RoundRobin, Verdict
from psr_lib.token_rows import sft_rows, step_rows
from psr_lib.traces import Expansion, SearchTrace
from psr_lib.training import workspace

FAMILY = prompts.load("compact")
PAIRS = [step_pair(k) for k in range(4)]
EFT = [eft(k) for k in range(3)]


def scored(k, high, low, **changes):
    """A pair whose candidates won so many games."""
    meta = {"scores": [high, None, low], "chosen": 0, "rejected": 2}
    return step_pair(k, meta=meta, **changes)


# --- filters


def test_by_default_every_pair_is_kept_and_its_scores_are_not_read():
    kept, lost = pair_filters.kept(PAIRS, settings())
    assert kept == PAIRS and not lost


@pytest.mark.parametrize(("least", "left"), [(1.0, [0, 1, 2]), (2.0, [1, 2]), (3.5, [2])])
def test_a_margin_leaves_out_pairs_whose_scores_are_closer(least, left):
    pairs = [scored(0, 1, 0), scored(1, 3, 1), scored(2, 5, 0)]
    kept, lost = pair_filters.kept(pairs, settings(min_margin=least))
    assert kept == [pairs[k] for k in left] and lost["margin"] == 3 - len(left)


def test_length_matched_pairs_have_steps_of_like_length_whichever_is_longer():
    pairs = [scored(0, 1, 0, chosen="x" * 10, rejected="y" * 20),
             scored(1, 1, 0, chosen="x" * 20, rejected="y" * 10),
             scored(2, 1, 0, chosen="x" * 16, rejected="y" * 20)]  # fmt: skip
    assert pair_filters.kept(pairs, settings(length_ratio=0.8)) == ([pairs[2]], Counter(length=2))
    assert pair_filters.kept(pairs, settings(length_ratio=0.5))[0] == pairs


def test_a_filter_from_outside_takes_its_turn_and_nothing_left_is_one_line(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("filter", "final")(lambda pair, settings: pair.chosen_final)
    mine = settings(filters=("margin", "final"), min_margin=2.0)
    pairs = [scored(0, 1, 0, chosen_final=True), scored(1, 3, 0, chosen_final=False),
             scored(2, 3, 0, chosen_final=True)]  # fmt: skip
    assert pair_filters.kept(pairs, mine) == ([pairs[2]], Counter(margin=1, final=1))
    with pytest.raises(PSRError, match=r"none of 2 pairs is left \(left out by margin 1, final 1"
                       r"\); lower dpo\.min_margin or take final out of dpo\.filters"):  # fmt: skip
        pair_filters.kept(pairs[:2], mine)


# --- soft labels


def robin(width, answer):
    """A round robin in which `answer(i, j)` is the verdict with i in slot A."""
    games = {(i, j): Verdict(answer(i, j)) for i in range(width) for j in range(width) if i != j}
    return RoundRobin((0,) * width, games, len(games), 0)


TURNED = {(0, 1): "A", (1, 0): "A", (0, 2): "B", (1, 2): "B", (2, 0): None, (2, 1): None}


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (lambda i, j: "A" if i < j else "B", 1.0),  # the same order in both slots
        (lambda i, j: "A", 0.5),  # slot A always wins: nothing is ranked
        (lambda i, j: "A" if i < j else None, 0.5),  # slot B never wins: all level there
        (lambda i, j: TURNED[i, j], 0.0),  # wins in slot A: 1, 1, 0; in slot B: 0, 0, 2
    ],
)
def test_consistency_is_kendalls_tau_of_the_wins_in_each_slot(answer, wanted):
    assert consistency.slot_consistency(robin(3, answer)) == pytest.approx(wanted)


def test_verdicts_in_one_order_have_no_consistency():
    whole = robin(3, lambda i, j: "A")
    one = {(i, j): verdict for (i, j), verdict in whole.verdicts.items() if i < j}
    with pytest.raises(PSRError, match="in one order alone"):
        consistency.slot_consistency(RoundRobin((0, 0, 0), one, 3, 0))


def test_labels_are_those_of_the_visit_that_a_pair_came_from_or_the_rounds_mean():
    sure, unsure = (robin(3, one) for one in (lambda i, j: "A" if i < j else "B", lambda i, j: "A"))
    visits = [Expansion(1, 0, [], [], [], [], sure, outcome="kept"),
              Expansion(1, 1, [], [], [], [], unsure, outcome="kept"),
              Expansion(2, 0, [], [], [], [], unsure, outcome="tie")]  # fmt: skip
    trace = SearchTrace(Question(id="q", text="?"), expansions=visits)
    pairs = [step_pair(0, id="q#1.0"), step_pair(1, id="q#1.1")]
    own = consistency.of_pairs(pairs, [trace])
    assert own == {"q#1.0": 1.0, "q#1.1": 0.5}
    assert consistency.labels("pair", own) == own
    assert consistency.labels("round", own) == {"q#1.0": 0.75, "q#1.1": 0.75}


def test_the_baseline_has_no_verdicts_to_soften_by():
    with pytest.raises(PSRError, match="soft_labels=pair: srlm scores whole solutions"):
        presets.check_method(presets.load("smoke", "dpo.soft_labels=pair"), "srlm")


@pytest.mark.parametrize("method", ["sft-chosen", "ift-more"])
@pytest.mark.parametrize("change", ["dpo.replay=0.5", "dpo.soft_labels=round"])
def test_what_makes_no_dpo_updates_takes_no_switch_of_theirs(method, change):
    found = presets.load("smoke", change)
    with pytest.raises(PSRError, match=f"{change}: {method} makes no DPO updates.*leave .* out"):
        presets.check_method(found, method)
    for other in ("psrlm", "random-judge"):
        presets.check_method(found, other)


def test_a_method_and_a_setting_that_do_not_go_together_write_nothing(tmp_path):
    with pytest.raises(PSRError, match=r"replay=0\.5: ift-more"):
        runs.open_stage("04_step_dpo", preset="smoke", method="ift-more", iteration=2,
                        runs_dir=str(tmp_path), overrides="dpo.replay=0.5")  # fmt: skip
    line = ["reproduce", "--methods", "psrlm sft-chosen", "--set", "dpo.replay=0.5"]
    with pytest.raises(PSRError, match=r"replay=0\.5: sft-chosen"):
        request.several(commands.make_parser().parse_args([*line, "--runs-dir", str(tmp_path)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_goes_with_every_method_that_its_data_serve(name):
    preset = presets.load(name, "data.ift_more=8")
    real = preset.data.source != presets.PROCEDURAL
    for method in METHODS:
        if not (real and method in USES_GOLD):
            presets.check_method(preset, method)


def test_a_soft_label_mixes_the_loss_with_that_of_the_swapped_pair():
    ratios = losses.Ratios(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0]), beta=0.4)
    found = losses.softened(losses.sigmoid, ratios, torch.tensor([0.7, 1.0]))
    x = 0.4 * 1.5
    one = 0.7 * math.log1p(math.exp(-x)) + 0.3 * math.log1p(math.exp(x))
    assert found.tolist() == pytest.approx([one, math.log1p(math.exp(0.8))])
    assert torch.equal(losses.softened(losses.sigmoid, ratios, None), losses.sigmoid(ratios))


@pytest.mark.parametrize(
    ("change", "reason"),
    [("dpo.loss=hinge", "TRL's loss 'hinge' takes none"),
     ("search.scoring=single_order", "judged in one order alone"),
     ("judge.early_stop=true", "some are not judged")],
)  # fmt: skip
def test_what_leaves_no_soft_labels_is_refused_before_anything_runs(change, reason):
    presets.load("smoke", change)
    for kind in ("pair", "round"):
        with pytest.raises(PSRError, match=f"preset smoke: dpo.soft_labels={kind}: .*{reason}"):
            presets.load("smoke", f"dpo.soft_labels={kind} {change}")


def test_soft_labels_ask_for_a_loss_that_is_a_function():
    assert losses.own(settings()) is None and losses.own(settings(loss="ipo")) is None
    assert losses.own(settings(soft_labels="round")) is losses.sigmoid
    with pytest.raises(PSRError, match=r"TRL's loss 'ipo' takes none; set dpo\.loss to sigmoid"):
        losses.own(settings(soft_labels="pair", loss="ipo"))


# --- the trainer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models: a policy and another one as its reference."""
    home = tmp_path_factory.mktemp("tiny")
    return [make_tiny_model(home / str(seed), seed=seed)[0] for seed in (0, 1)]


def loss_of(folders, work, labels=None, judged=(), pairs=PAIRS, **changes):
    """The loss of the first batch of the real trainer, its metrics and the policy."""
    tokenizer = load_tokenizer(folders[0])
    rows, _ = step_rows(tokenizer, FAMILY, pairs, 256)
    again = sft_rows(tokenizer, FAMILY, judged, 256)[0] if judged else []
    model, reference = (load_model(folder, "float32", "cpu") for folder in folders)
    with workspace(work) as tmp:
        trainer, _, _ = dpo.make_trainer(
            model, reference, tokenizer, rows, settings(**changes), work=tmp, seed=0,
            labels=labels, replay=again,
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
        model.eval()
        with torch.no_grad():
            return float(trainer.compute_loss(model, batch)), trainer, again


def test_nothing_is_beside_the_pairs_unless_it_is_asked_for(folders, tmp_path):
    _, trainer, _ = loss_of(folders, tmp_path, nll_weight=10.0)
    assert trainer.pair_loss is None and not trainer.replay
    assert type(trainer.data_collator).__name__ == "DataCollatorForPreference"
    assert not set(trainer.train_dataset.column_names) & set(beside.COLUMNS)
    assert (trainer.loss_types, trainer.loss_weights) == (["sigmoid", "sft"], [1.0, 10.0])


def test_labels_of_1_give_trls_loss_and_softer_ones_eq_8_of_both_orders(folders, tmp_path):
    plain, _, _ = loss_of(folders, tmp_path, nll_weight=2.0)
    sure = {pair.id: 1.0 for pair in PAIRS}
    same, _, _ = loss_of(folders, tmp_path, sure, nll_weight=2.0, soft_labels="pair")
    assert same == pytest.approx(plain, rel=1e-6)
    alone = PAIRS[:1]
    hard, _, _ = loss_of(folders, tmp_path, pairs=alone, batch=1)
    soft, _, _ = loss_of(
        folders, tmp_path, {alone[0].id: 0.75}, pairs=alone, batch=1, soft_labels="pair"
    )
    x = -math.log(math.expm1(hard))
    assert soft == pytest.approx(0.75 * hard + 0.25 * math.log1p(math.exp(x)), rel=1e-4)
    with pytest.raises(PSRError, match="no search of pair"):
        loss_of(folders, tmp_path, {"other": 1.0}, soft_labels="pair")


def test_a_loss_from_outside_takes_the_place_of_trls(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    squared = lambda r: (r.beta * (r.chosen - r.rejected) - 1) ** 2  # noqa: E731
    registry.register("loss", "squared")(squared)
    alone = PAIRS[:1]
    trls, _, _ = loss_of(folders, tmp_path, pairs=alone, batch=1)
    anchored, _, _ = loss_of(folders, tmp_path, pairs=alone, batch=1, nll_weight=2.0)
    mine, _, _ = loss_of(folders, tmp_path, pairs=alone, batch=1, loss="squared", nll_weight=2.0)
    x = -math.log(math.expm1(trls))
    assert mine == pytest.approx((x - 1) ** 2 + anchored - trls, rel=1e-4)


def nll(model, row):
    """Mean -log pi of a row's response tokens, in plain torch."""
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    with torch.no_grad():
        logs = model(ids).logits[0].log_softmax(-1)
    places = range(len(row.prompt_ids) - 1, ids.shape[1] - 1)
    return [-float(logs[p, ids[0, p + 1]]) for p in places]


def test_replay_adds_the_sft_loss_of_an_eft_row_beside_each_pair(folders, tmp_path):
    plain, _, _ = loss_of(folders, tmp_path)
    found, trainer, rows = loss_of(folders, tmp_path, judged=EFT, replay=0.5)
    model = load_model(folders[0], "float32", "cpu").eval()
    drawn = beside.drawn(rows, len(PAIRS), 0)
    assert {row.id for row in drawn} == {row.id for row in rows}, "all come before one comes again"
    tokens = [one for row in drawn for one in nll(model, row)]
    assert found == pytest.approx(plain + 0.5 * sum(tokens) / len(tokens), rel=1e-5)
    assert trainer._total_train_tokens == sum(row.length for row in drawn)


@pytest.mark.parametrize("lanes", [1, 2])
def test_training_with_all_switches_keeps_more_of_the_judge(folders, tmp_path, lanes, monkeypatch):
    monkeypatch.setattr(dpo, "lanes", lambda *_: lanes)
    tokenizer = load_tokenizer(folders[0])
    rows, _ = sft_rows(tokenizer, FAMILY, EFT, 256)
    labels = {pair.id: 0.9 for pair in PAIRS}
    after = []
    for weight in (0.0, 5.0):
        made = dpo.train_dpo(
            folders[0], folders[0], PAIRS, settings(epochs=6, batch=4, replay=weight,
                                                    soft_labels="pair"),
            tmp_path / str(weight), 0, FAMILY, labels=labels, replay=EFT if weight else (),
        )  # fmt: skip
        model = load_model(made["model"], "float32", "cpu").eval()
        after.append(sum(one for row in rows for one in nll(model, row)))
    assert made["updates"] == 6 and made["history"][-1]["replay/nll"] > 0
    assert after[1] < after[0] - 1, "nats over all tokens of the EFT rows"
