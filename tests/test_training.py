"""SFT and step-wise DPO change the right weights, the same way each time, and can be reloaded."""

import io
import logging
import math
import shutil
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import eft, ift, make_tiny_model, random_model, settings, step_pair
from transformers import TrainingArguments

from psr_lib import dpo, prompts, sft, training
from psr_lib.models import check_dtype, load_model, load_tokenizer, save_model, whole_folder
from psr_lib.records import PSRError, read_json, write_json
from psr_lib.token_rows import sft_rows
from psr_lib.training import (
    BatchesByLength,
    BatchPlan,
    arguments,
    budget,
    plan_batch,
    workspace,
)

FAMILY = prompts.load("compact")
PAIRS = [step_pair(k) for k in range(8)]
ROWS = [make(k) for k in range(4) for make in (ift, eft)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")[0]


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def train(kind, folder, out, seed=0, **changes):
    """A small run of either kind on the CPU."""
    options = {"device": "cpu"} | {
        k: changes.pop(k) for k in ("merge", "max_steps") if k in changes
    }
    tuned = settings(**changes)
    if kind == "sft":
        tokenizer = load_tokenizer(folder)
        return sft.train_sft(folder, tokenizer, ROWS, tuned, out, seed, FAMILY, **options)
    if kind == "chosen":
        return sft.train_sft_on_chosen(folder, PAIRS, tuned, out, seed, FAMILY, **options)
    return dpo.train_dpo(folder, folder, PAIRS, tuned, out, seed, FAMILY, **options)


# --- supervised rows ---------------------------------------------------------------------------


def test_sft_loss_is_on_the_response_only(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    rows, _ = sft_rows(tokenizer, FAMILY, [ift(0), eft(1)], 256)
    with workspace(tmp_path) as work:
        trainer, _, _ = sft.make_trainer(
            load_model(folder, "float32", "cpu"), tokenizer, rows, settings(batch=2),
            work=work, seed=0,
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
    scored = [tokenizer.decode(labels[labels != -100]) for labels in batch["labels"]]
    solution = "\n".join(ift(0).steps) + "<eos>"
    assert sorted(scored) == sorted([solution, f" {eft(1).explanation}<eos>"])
    seen = batch["labels"] != -100
    assert torch.equal(batch["labels"][seen], batch["input_ids"][seen])


def test_sft_prompts_are_those_of_the_family(folder):
    tokenizer = load_tokenizer(folder)
    rows, _ = sft_rows(tokenizer, FAMILY, [ift(0), eft(1)], 256)
    example = eft(1)
    judge = FAMILY.judge(example.question, example.prefix, example.step_a, example.step_b)
    expected = [FAMILY.solve(ift(0).question), judge]
    assert [tokenizer.decode(r.prompt_ids) for r in rows] == [
        FAMILY.render(tokenizer, p) for p in expected
    ]


def test_sft_counts_rows_that_are_too_long(folder, tmp_path):
    short = sft_rows(load_tokenizer(folder), FAMILY, [ift(0)], 256)[0][0].length
    counts = train("sft", folder, tmp_path, max_length=short)["counts"]
    assert counts == {"rows": 8, "identical": 0, "too_long": 4, "used": 4}


def test_sft_learns(folder, tmp_path):
    history = train("sft", folder, tmp_path, lr=1e-2, epochs=6)["history"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


# --- preference training -----------------------------------------------------------------------


def test_dpo_starts_at_ln_2_and_its_margin_grows(folder, tmp_path):
    result = train("dpo", folder, tmp_path, epochs=4)
    first, last = result["history"][0], result["history"][-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-3)
    assert last["rewards/margins"] > 0.01 and last["loss"] < first["loss"]
    gap = [row["logps/chosen"] - row["logps/rejected"] for row in (first, last)]
    assert gap[1] > gap[0]
    assert len(result["history"]) == result["updates"] == 8


def test_anchor_raises_the_chosen_likelihood(folder, tmp_path):
    anchored = train("dpo", folder, tmp_path, epochs=4, nll_weight=10.0)["history"]
    assert anchored[0]["loss"] > 10  # ln 2 + 10 x the mean token loss of a random model
    assert anchored[-1]["logps/chosen"] > anchored[0]["logps/chosen"] + 1


def test_sft_on_chosen_makes_the_updates_of_dpo(folder, tmp_path):
    preference = train("dpo", folder, tmp_path / "dpo", epochs=2)
    control = train("chosen", folder, tmp_path / "chosen", epochs=2)
    for key in ("updates", "counts"):
        assert control[key] == preference[key]
    assert control["batch"]["batch"] == preference["batch"]["batch"]
    assert control["history"][-1]["loss"] < control["history"][0]["loss"]
    planned = dpo.planned_updates(folder, PAIRS, settings(epochs=2), FAMILY)
    assert planned == preference["updates"]


def test_the_anchor_is_the_loss_of_sft_on_chosen(folder, tmp_path):
    anchored = train("dpo", folder, tmp_path / "dpo", nll_weight=1.0)["history"][0]["loss"]
    control = train("chosen", folder, tmp_path / "chosen")["history"][0]["loss"]
    assert anchored - math.log(2) == pytest.approx(control, abs=1e-4)  # of the same first batch


def test_max_steps_fixes_the_updates(folder, tmp_path):
    assert train("sft", folder, tmp_path, max_steps=5)["updates"] == 5


def test_broken_loss_stops_the_run(folder, tmp_path):
    broken = random_model(len(load_tokenizer(folder)))
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    save_model(broken, load_tokenizer(folder), tmp_path / "broken")
    with pytest.raises(PSRError, match="not finite at update 1"):
        train("dpo", tmp_path / "broken", tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


# --- what is saved -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "dpo", "chosen"])
@pytest.mark.parametrize("lora_r", [0, 4])
def test_training_changes_weights_and_they_reload(kind, lora_r, folder, tmp_path):
    result = train(kind, folder, tmp_path, lora_r=lora_r)
    before, after = weights(folder), weights(result["model"])
    assert before.keys() == after.keys() and not same(before, after)
    full = sum(w.numel() for w in before.values())
    assert (result["trained_parameters"] == full) is (lora_r == 0)
    ids = torch.arange(3, 20)[None]
    merged = load_model(result["model"], "float32", "cpu")(ids).logits
    assert not torch.allclose(merged, load_model(folder, "float32", "cpu")(ids).logits, atol=1e-4)
    if lora_r:
        adapted = load_model(result["adapter"], "float32", "cpu")(ids).logits
        assert torch.equal(merged, adapted)
        assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_saved_logits_are_the_models_own(folder, tmp_path):
    model, ids = load_model(folder, "float32", "cpu"), torch.arange(3, 20)[None]
    save_model(model, load_tokenizer(folder), tmp_path / "copy")
    assert torch.equal(
        model(ids).logits, load_model(tmp_path / "copy", "float32", "cpu")(ids).logits
    )
    assert load_tokenizer(tmp_path / "copy")("Step 1: 2").input_ids
    assert str(folder) not in (tmp_path / "copy" / "config.json").read_text()


def test_trained_model_keeps_its_config(folder, tmp_path):
    result = train("dpo", folder, tmp_path, max_steps=1)
    assert read_json(Path(result["model"]) / "config.json") == read_json(folder / "config.json")


def test_adapter_without_merging_is_all_that_is_kept(folder, tmp_path):
    train("dpo", folder, tmp_path, max_steps=1)
    result = train("dpo", folder, tmp_path, lora_r=4, merge=False, max_steps=1)
    assert "model" not in result and not (tmp_path / "model").exists()
    assert load_model(result["adapter"], "float32", "cpu").num_parameters() > 0


@pytest.mark.parametrize("lora_r", [0, 4])
def test_same_seed_gives_the_same_weights(folder, tmp_path, lora_r):
    runs = [
        weights(train("dpo", folder, tmp_path / str(k), seed, lora_r=lora_r, batch=2)["model"])
        for k, seed in enumerate((0, 0, 1))
    ]
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_same_seed_gives_the_same_sft_weights(folder, tmp_path):
    runs = [
        weights(train("sft", folder, tmp_path / str(k), seed, batch=2)["model"])
        for k, seed in enumerate((0, 0, 1))
    ]
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_model_is_replaced_only_when_complete(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "model") as part:
        (part / "half").touch()
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "old"]
    with whole_folder(tmp_path / "model") as part:
        (part / "new").touch()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["model", "new"]


# --- batches -----------------------------------------------------------------------------------


def test_batch_plan_keeps_the_global_batch():
    for devices in (1, 2, 4, 8, 32):
        for tokens in (10, 700, 5000):
            plan = plan_batch(32, devices, tokens, 4096)
            assert plan.micro * plan.accumulation * plan.devices == 32
            assert plan.micro == 1 or plan.micro * tokens <= 4096
    assert plan_batch(32, 1, 128, 4096).micro == 32
    with pytest.raises(PSRError, match="batch 32 does not divide over 3 devices"):
        plan_batch(32, 3, 10, 4096)


def test_a_device_takes_no_more_tokens_than_its_memory_holds_logits_of(monkeypatch):
    model = SimpleNamespace(device=torch.device("cuda"), config=random_model(1000).config)
    found = SimpleNamespace(total_memory=32_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert budget(model, 5000) == 1000 and budget(model, 500) == 500
    model.device = torch.device("cpu")
    assert budget(model, 5000) == 5000
    monkeypatch.setattr(training, "CPU_MEMORY", 64_000_000)
    assert budget(model, 5000) == 2000
    model.device = torch.device("mps")
    assert budget(model, 5000) == 5000


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_of_several_gpus_in_sight_one_trains(kind, folder, tmp_path, monkeypatch):
    seen = property(lambda args: vars(args).get("_n_gpu") or 8)
    monkeypatch.setattr(TrainingArguments, "n_gpu", seen)
    trainers = []
    monkeypatch.setattr({"sft": sft, "dpo": dpo}[kind], "run",
                        lambda trainer, *_: trainers.append(trainer) or {})  # fmt: skip
    train(kind, folder, tmp_path, batch=4)
    (args,) = (trainer.args for trainer in trainers)
    assert args.n_gpu == 1 and args.train_batch_size * args.gradient_accumulation_steps == 4


def test_micro_batches_do_not_change_the_updates(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sft, "MICRO_TOKENS", {"cpu": 1})
    small = train("sft", folder, tmp_path / "small")
    monkeypatch.setattr(sft, "MICRO_TOKENS", {"cpu": 10**6})
    large = train("sft", folder, tmp_path / "large")
    assert (small["batch"]["micro"], large["batch"]["micro"]) == (1, 4)
    one, two = weights(small["model"]), weights(large["model"])
    assert all(torch.allclose(one[k], two[k], atol=1e-4) for k in one)


def longer(k):
    """A pair whose steps are longer the larger k is."""
    pair = step_pair(k)
    return replace(
        pair, chosen=pair.chosen + " and so" * (3 * k), rejected=pair.rejected + " or" * k
    )


def said(k):
    """An EFT row whose explanation is longer the larger k is."""
    return replace(eft(k), explanation="so " * (4 * k) + eft(k).explanation)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(
    "more", [{}, {"nll_weight": 10.0}, {"nll_weight": 10.0, "replay": 0.5}], ids=str
)
def test_micro_batches_do_not_change_the_updates_of_dpo(more, lanes, folder, tmp_path, monkeypatch):
    # Eleven rows in batches of four: the last update has three, and all are of unlike lengths.
    rows, made = [longer(k) for k in range(11)], {}
    replay = [said(k) for k in range(4)] if "replay" in more else []
    for name in (1, 2, 4):
        plan = BatchPlan(4, name, 4 // name, 1)
        monkeypatch.setattr(dpo, "plan_batch", lambda *_, plan=plan: plan)
        monkeypatch.setattr(dpo, "lanes", lambda *_: lanes)
        made[name] = dpo.train_dpo(folder, folder, rows, settings(**more), tmp_path / str(name), 0,
                                   FAMILY, device="cpu", replay=replay)  # fmt: skip
    first = made.pop(4)
    for other in made.values():
        one, two = weights(first["model"]), weights(other["model"])
        assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)
        assert len(first["history"]) == len(other["history"]) == 3
        for row, same_row in zip(first["history"], other["history"], strict=True):
            for name in ("loss", "rewards/margins", "logps/chosen", "logps/rejected"):
                assert row[name] == pytest.approx(same_row[name], abs=1e-4), name


def test_batches_are_random_draws_ordered_by_length_inside():
    lengths = [(7 * k) % 40 for k in range(40)]
    sampler = BatchesByLength(lengths, 8, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert sorted(first) == list(range(40)) and first != list(sampler)
    batches = [first[i : i + 8] for i in range(0, 40, 8)]
    for batch in batches:
        assert [lengths[i] for i in batch] == sorted((lengths[i] for i in batch), reverse=True)
    assert len({sum(lengths[i] for i in batch) for batch in batches}) > 1
    assert {i for batch in batches[:1] for i in batch} != set(range(8))


def test_epochs_differ_in_order(folder, tmp_path):
    history = train("sft", folder, tmp_path, epochs=2, lr=1e-9)["history"]
    losses = [round(row["loss"], 5) for row in history]
    assert len(losses) == 4 and losses[:2] != losses[2:]


# --- noise, progress, errors -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_run_prints_nothing(kind, folder, tmp_path, caplog):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        train(kind, folder, tmp_path)
    noise = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    texts = [str(w.message) for w in seen if not issubclass(w.category, ResourceWarning)]
    assert (out.getvalue(), err.getvalue(), noise, texts) == ("", "", [], [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_progress_counts_updates(folder, tmp_path):
    calls = []
    dpo.train_dpo(
        folder, folder, PAIRS, settings(), tmp_path, 0, FAMILY,
        lambda done, total, row: calls.append((done, total, row)), device="cpu",
    )  # fmt: skip
    assert [call[:2] for call in calls] == [(1, 2), (2, 2)]
    assert "loss" in calls[1][2]


def test_folder_without_tokenizer_is_named(folder, tmp_path):
    save_model(load_model(folder, "float32", "cpu"), load_tokenizer(folder), tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "m" / name).unlink()
    with pytest.raises(PSRError, match=r"m: no tokenizer; copy"):
        train("dpo", tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: (m / "config.json").unlink(), "no config.json"),
        (lambda m: (m / "model.safetensors").unlink(), "no .safetensors weights"),
        (lambda m: (m / "model.safetensors").write_bytes(b"x" * 40), "unreadable model"),
        (lambda m: (m / "config.json").write_text("{"), "unreadable model"),
    ],
)
def test_damaged_model_folder_is_one_line(spoil, message, folder, tmp_path):
    save_model(load_model(folder, "float32", "cpu"), load_tokenizer(folder), tmp_path / "m")
    spoil(tmp_path / "m")
    with pytest.raises(PSRError, match=message) as caught:
        load_model(tmp_path / "m", "float32", "cpu")
    assert str(tmp_path / "m") in str(caught.value) and "\n" not in str(caught.value)


def test_missing_folder_and_lost_base_are_named(folder, tmp_path):
    with pytest.raises(PSRError, match="nowhere: no such model folder"):
        load_model(tmp_path / "nowhere", "float32", "cpu")
    adapter = Path(train("sft", folder, tmp_path, lora_r=2, merge=False)["adapter"])
    config = read_json(adapter / "adapter_config.json")
    write_json(adapter / "adapter_config.json", config | {"base_model_name_or_path": "../gone"})
    with pytest.raises(PSRError, match=r"its base model '\.\./gone' is not there"):
        load_model(adapter, "float32", "cpu")


def test_adapter_records_a_base_that_moves_with_it(folder, tmp_path):
    save_model(load_model(folder, "float32", "cpu"), load_tokenizer(folder), tmp_path / "run" / "m")
    train("sft", tmp_path / "run" / "m", tmp_path / "run" / "out", lora_r=2, merge=False)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert load_model(tmp_path / "moved" / "out" / "adapter", "float32", "cpu")


# --- an adapter on another base, a number format that a device lacks ------------------------------


@pytest.fixture(scope="module")
def adapted(folder, tmp_path_factory):
    """A run's folder that holds a base and an adapter which was trained on it."""
    run = tmp_path_factory.mktemp("adapted") / "run"
    save_model(load_model(folder, "float32", "cpu"), load_tokenizer(folder), run / "m")
    train("sft", run / "m", run / "out", lora_r=2, merge=False, max_steps=1)
    return run


@pytest.fixture
def run(adapted, tmp_path):
    """A copy of it."""
    return shutil.copytree(adapted, tmp_path / "run")


def test_an_adapter_does_not_go_on_other_weights_of_the_same_shape(run):
    assert load_model(run / "out/adapter", "float32", "cpu")
    make_tiny_model(run / "m", seed=1)
    with pytest.raises(PSRError, match=r"for another base than what lies in .*; restore") as caught:
        load_model(run / "out/adapter", "float32", "cpu")
    assert str(run / "out/adapter") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [{"hidden_size": 64}, {"num_hidden_layers": 1}])
def test_other_peoples_adapter_does_not_go_on_other_layers(run, shape):
    (run / "out/adapter/base.json").unlink()
    assert load_model(run / "out/adapter", "float32", "cpu")
    make_tiny_model(run / "m", **shape)
    with pytest.raises(PSRError, match=r"another base than .* layers are others; name") as caught:
        load_model(run / "out/adapter", "float32", "cpu")
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_architecture_names_its_base_too(run):
    (run / "out/adapter/base.json").unlink()
    config = read_json(run / "out/adapter/adapter_config.json")
    write_json(run / "out/adapter/adapter_config.json", config | {"target_modules": ["c_attn"]})
    with pytest.raises(PSRError, match="for another base than"):
        load_model(run / "out/adapter", "float32", "cpu")


def test_a_damaged_adapter_is_not_called_one_for_another_base(run):
    (run / "out/adapter/adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(PSRError, match="unreadable adapter"):
        load_model(run / "out/adapter", "float32", "cpu")


def test_a_number_format_that_the_device_lacks_is_one_line(folder, monkeypatch):
    with pytest.raises(PSRError, match=r"a CPU has no fast float16; take bfloat16 or float32"):
        load_model(folder, "float16", "cpu")
    assert load_model(folder, "bfloat16", "cpu").dtype == torch.bfloat16
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(
        PSRError, match=r"Tesla T4 has none; set model\.dtype to float16 or float32"
    ):
        check_dtype("bfloat16", cuda)
    with pytest.raises(PSRError, match=r"sft\.bf16, dpo\.bf16 and prm\.bf16 to false"):
        plan, model = plan_batch(4, 1, 8, 64), SimpleNamespace(device=cuda)
        arguments(settings(bf16=True), plan, work=folder, seed=0, updates=1, model=model)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    check_dtype("bfloat16", cuda), check_dtype("float16", cuda)
