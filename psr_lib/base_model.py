"""The base model M0 as a stage of the run: train and ship it, describe it, show its history."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from psr_lib import authors, manifest, pretrain, wordlevel
from psr_lib.evaluation import read_csv, write_csv
from psr_lib.models import load_model, save_model
from psr_lib.progress import track
from psr_lib.records import PSRError, write_json

HISTORY = "pretraining.csv"


def train_and_ship(base: str, recipe: pretrain.Recipe | None = None) -> Path:
    """Train the laboratory's base model and write it, in 16 bit, to the repository's `base` folder.

    About an hour on two CPU cores. Beside the weights lie the recipe and the loss history. Raises
    PSRError for a base that is not the laboratory's own.
    """
    folder = manifest.root() / base
    if not base.startswith("data/"):
        raise PSRError(f"model.base {base!r}: only the laboratory's own base can be trained here")
    recipe = recipe or pretrain.Recipe()
    tokenizer = wordlevel.build()
    model = pretrain.make_model(recipe, tokenizer)
    history = pretrain.train(model, tokenizer, recipe, _report(recipe))
    save_model(model.to(torch.float16), tokenizer, folder)
    write_json(folder / "recipe.json", asdict(replace(recipe)))
    write_csv(folder / HISTORY, history)
    return folder


def _report(recipe: pretrain.Recipe) -> Any:
    progress = track(recipe.tokens, "pre-training (tokens)")
    return lambda row: progress.update(row["tokens"], loss=f"{row['loss']:.3f}")


def describe(stage: Any) -> dict[str, Any]:
    """Size of the base model, written to `base.json` of the stage."""
    model = load_model(stage.model(0), "float32", "cpu", stage.preset.model.trust_remote_code)
    config = model.config
    size = {
        "parameters": model.num_parameters(), "layers": config.num_hidden_layers,
        "hidden": config.hidden_size, "heads": config.num_attention_heads,
        "vocabulary": config.vocab_size, "context": config.max_position_embeddings,
    }  # fmt: skip
    record = {"base": stage.preset.model.base, "size": size}
    write_json(stage.output("base.json"), record)
    return record


def history(stage: Any) -> list[dict[str, float]]:
    """The loss history that is kept beside the weights: update, tokens, loss, seconds."""
    rows = read_csv(stage.source(f"{stage.preset.model.base}/{HISTORY}"))
    return [{name: float(value) for name, value in row.items()} for row in rows]


def noise_table() -> dict[str, float]:
    """Each way in which the corpus' authors go wrong, with its probability at each occasion."""
    rates = asdict(authors.NOISY)
    misread = rates.pop("misread")
    return {**rates, **{f"misreads {verb!r}": rate for verb, rate in misread.items()}}
