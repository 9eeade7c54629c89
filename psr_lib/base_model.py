"""The base model M0 as a stage of the run: train and ship it, describe it, show its history."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from psr_lib import authors, manifest, pretrain, wordlevel
from psr_lib.evaluation import read_csv, write_csv
from psr_lib.models import empty_model, save_model, whole_folder
from psr_lib.progress import track
from psr_lib.records import PSRError, write_json

HISTORY = "pretraining.csv"


def train_and_ship(base: str, phases: Sequence[pretrain.Recipe] = pretrain.PHASES) -> Path:
    """Train the laboratory's base model and write it, in 16 bit, to the repository's `base` folder.

    The phases train one model in turn; about an hour and a half on two CPU cores. Beside the
    weights lie the recipes and the loss history. Raises PSRError for a base that is not the
    laboratory's own.
    """
    folder = manifest.root() / base
    if not base.startswith("data/"):
        raise PSRError(f"model.base {base!r}: only the laboratory's own base can be trained here")
    tokenizer = wordlevel.build()
    model: Any = pretrain.make_model(phases[0], tokenizer)
    history: list[dict] = []
    for recipe in phases:
        rows = pretrain.train(model, tokenizer, recipe, _report(recipe))
        history = joined(history, rows)
    with whole_folder(folder) as part:  # weights never stand without their history
        save_model(model.to(torch.float16), tokenizer, part)
        write_json(part / "recipe.json", [asdict(recipe) for recipe in phases])
        write_csv(part / HISTORY, history)
    return folder


def joined(before: list[dict], after: list[dict]) -> list[dict]:
    """One history of two phases: updates, tokens and seconds go on counting."""
    last = before[-1] if before else dict.fromkeys(("update", "tokens", "seconds"), 0)
    counts = ("update", "tokens", "seconds")
    return before + [{**row, **{name: row[name] + last[name] for name in counts}} for row in after]


def _report(recipe: pretrain.Recipe) -> Any:
    progress = track(recipe.tokens, f"pre-training, {recipe.mix} (tokens)")
    return lambda row: progress.update(row["tokens"], loss=f"{row['loss']:.3f}")


def describe(stage: Any) -> dict[str, Any]:
    """Size of the base model, written to `base.json` of the stage; no weights are loaded."""
    model = empty_model(stage.model(0), stage.preset.model.trust_remote_code)
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
    """The loss history beside the weights: update, tokens, loss, seconds; [] for others' models."""
    base = Path(stage.preset.model.base)
    if not (manifest.root() / base / HISTORY).is_file():
        return []
    rows = read_csv(stage.source(f"{base}/{HISTORY}"))
    return [{name: float(value) for name, value in row.items()} for row in rows]


def noise_table() -> dict[str, float]:
    """Each way in which the corpus' authors go wrong, with its probability at each occasion."""
    rates = asdict(authors.NOISY)
    misread = rates.pop("misread")
    return {**rates, **{f"misreads {verb!r}": rate for verb, rate in misread.items()}}
