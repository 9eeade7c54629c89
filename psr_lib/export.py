"""`make export`: M[n] as a folder that transformers, `vllm serve` and the hub accept.

An adapter is merged into its base. The folder holds safetensors, configuration, generation
settings, tokenizer with its chat template if there is one, both cards, and `export.json`, which
says what it was made from and is how an export is known.
"""

from pathlib import Path
from typing import Any

import torch

from psr_lib import cards, manifest
from psr_lib.models import (
    ADAPTER,
    TOKENIZER_FILES,
    adapter_base,
    load_model,
    load_tokenizer,
    quiet,
    whole_folder,
)
from psr_lib.records import PSRError, read_json, write_json, write_text
from psr_lib.run_dirs import RunDir

MARK = "export.json"
SHARD = "5GB"  # of one weight file; the hub and readers take larger ones, but not as well


def export(run: RunDir, method: str, n: int, to: str = "") -> Path:
    """Write M[n] to `to` (default: `export` beside its model) and return the folder.

    The weights are stored in the preset's `model.dtype`, by way of this machine's memory, which
    must hold them once. Raises PSRError where M[n] does not verify, its adapter's base is another
    one, or the folder holds something else.
    """
    source, made = verified(run, method, n)
    target = manifest.root() / Path(to).expanduser() if to else run.round(method, n) / "export"
    _check_target(target)
    settings = made["params"]["model"]
    dtype = "float32" if settings["dtype"] == "float16" else settings["dtype"]  # no CPU computes it
    model = load_model(source, dtype, "cpu", settings["trust_remote_code"])
    model = model.to(getattr(torch, settings["dtype"])) if settings["dtype"] != dtype else model
    tokenizer = load_tokenizer(_tokenizer_folder(source), settings["trust_remote_code"])
    with whole_folder(target) as part:
        _save(model, tokenizer, part)
        write_text(part / "README.md", cards.model_card(run, method, n))
        write_text(part / cards.DATA, cards.data_card(run, method, n))
        write_json(part / MARK, _mark(source, made, part))
    return target


def verified(run: RunDir, method: str, n: int) -> tuple[Path, dict[str, Any]]:
    """The folder of M[n] and its manifest, both unchanged since it was made."""
    if n < 1:
        raise PSRError(f"export: M{n} is the base model itself; take N=1 or more")
    source = run.model(method, n)
    made = manifest.read(source)
    if made is None:
        raise PSRError(f"{manifest.shown(source)}: no complete M{n}; run make iteration N={n}")
    if wrong := manifest.damage(source, made):
        raise PSRError(f"{manifest.shown(source)}: {wrong}; delete it and run make iteration N={n}")
    if (source / ADAPTER).is_file():
        _check_base(source, made)
    return source, made


def _check_base(source: Path, made: dict[str, Any]) -> None:
    """Raise PSRError unless an adapter's base is what it was trained on."""
    base = adapter_base(source)
    if manifest.fingerprint(base) not in {entry["hash"] for entry in made["inputs"].values()}:
        raise PSRError(f"{manifest.shown(source)}: its base {manifest.shown(base)} is not the one "
                       "it was trained on; restore that, or train again")  # fmt: skip


def _check_target(target: Path) -> None:
    """Raise PSRError where the folder holds anything but an export."""
    place = manifest.shown(target)
    if target.exists() and not target.is_dir():
        raise PSRError(f"{place}: a file; name another folder with TO=")
    found = set(manifest.files_in(target)) if target.is_dir() else set()
    if found and MARK not in found:
        raise PSRError(f"{place}: holds files that are no export; name another folder with TO=")
    known = {MARK, *read_json(target / MARK)["files"]} if found else set()
    if other := sorted(found - known):
        raise PSRError(f"{place}: {other[0]} is not of the export; move it, or name another folder")


def _tokenizer_folder(source: Path) -> Path:
    """An adapter may leave the tokenizer to its base."""
    own = any((source / name).is_file() for name in TOKENIZER_FILES)
    return source if own else adapter_base(source)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights, configurations and tokenizer; whoever generates must know how a text ends."""
    settings = model.generation_config
    if settings.eos_token_id is None:
        settings.eos_token_id = tokenizer.eos_token_id
    with quiet():
        model.save_pretrained(folder, max_shard_size=SHARD)
        tokenizer.save_pretrained(folder)


def _mark(source: Path, made: dict[str, Any], part: Path) -> dict[str, Any]:
    """What tells where an export is from, and which files are its own."""
    names = ("preset", "method", "iteration", "seed", "params_hash", "git")
    files = sorted(path.name for path in part.iterdir())
    return {"from": manifest.fingerprint(source), **{name: made[name] for name in names},
            "dtype": made["params"]["model"]["dtype"],
            "files": {name: manifest.fingerprint(part / name) for name in files}}  # fmt: skip


def next_steps(folder: Path) -> list[str]:
    """What to do with an export, in lines."""
    place, name = manifest.shown(folder), read_json(folder / MARK)
    called = f"psr-{name['preset']}-{name['method']}-M{name['iteration']}"
    return [f"exported to {place}", f"serve:  vllm serve {place} --served-model-name {called}",
            f"upload: hf upload <owner>/{called} {place}"]  # fmt: skip
