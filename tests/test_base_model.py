"""The base model is trained in phases, shipped in 16 bit, and its history goes on counting."""

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from psr_lib import base_model, manifest, pretrain
from psr_lib.evaluation import read_csv
from psr_lib.models import load_model, load_tokenizer
from psr_lib.pretrain import Recipe
from psr_lib.records import PSRError, read_json

SMALL = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "feed_forward": 64,
         "batch_tokens": 1024, "tokens": 60_000, "warmup": 5}  # fmt: skip


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A very small base model trained in two short phases."""
    root = tmp_path_factory.mktemp("repo")
    phases = (Recipe(**SMALL), Recipe(**{**SMALL, "tokens": 20_000}, mix="reviews", seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "root", lambda: root)
        return base_model.train_and_ship("data/tiny/base", phases)


@pytest.mark.slow
def test_two_phases_train_one_model(shipped):
    rows = read_csv(shipped / base_model.HISTORY)
    tokens = [int(row["tokens"]) for row in rows]
    assert tokens == sorted(tokens) and tokens[-1] >= 80_000
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    assert [recipe["mix"] for recipe in read_json(shipped / "recipe.json")] == ["broad", "reviews"]
    model = load_model(shipped, "float32", "cpu")
    assert model.config.hidden_size == 32
    assert len(load_tokenizer(shipped)) <= model.config.vocab_size
    weights = load_file(shipped / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_a_base_model_is_replaced_with_its_history_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise PSRError("the disk is full")

    folder = tmp_path / "data/tiny/base"
    folder.mkdir(parents=True)
    (folder / base_model.HISTORY).write_text("of before")
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    monkeypatch.setattr(pretrain, "train", lambda *_: [])
    monkeypatch.setattr(base_model, "write_csv", full)
    with pytest.raises(PSRError, match="the disk is full"):
        base_model.train_and_ship("data/tiny/base", (Recipe(**SMALL),))
    assert [path.name for path in folder.parent.iterdir()] == ["base"]
    assert [path.name for path in folder.iterdir()] == [base_model.HISTORY]


def test_the_shipped_model_is_what_the_code_would_train():
    folder = ROOT / "data/tiny/base"
    config = load_model(folder, "float32", "cpu").config
    first = pretrain.PHASES[0]
    assert (config.hidden_size, config.num_hidden_layers) == (first.hidden, first.layers)
    assert config.num_key_value_heads == first.kv_heads
    kept = read_json(folder / "recipe.json")
    assert kept == [recipe.__dict__ for recipe in pretrain.PHASES]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6


def test_only_the_laboratorys_base_is_trained():
    with pytest.raises(PSRError, match="laboratory's own base"):
        base_model.train_and_ship("Qwen/Qwen2.5")


def test_histories_are_joined():
    row = {"update": 5, "tokens": 10, "loss": 1.0, "seconds": 2.0}
    assert base_model.joined([row], [{**row, "loss": 0.5}]) == [
        row,
        {"update": 10, "tokens": 20, "loss": 0.5, "seconds": 4.0},
    ]
