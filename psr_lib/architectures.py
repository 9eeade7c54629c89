"""Sizes of a model from its configuration alone: parameters, key-value cache, LoRA; no weights.

The configuration is read from a local folder, else from the hub's cache, else from
`architectures.yaml`, which ships; for sizes from that file first, so that they are told in the same
words on every machine. The model is built on torch's meta device, so its parameters are counted
exactly and take no memory.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from psr_lib import manifest
from psr_lib.records import PSRError

TABLE = Path(__file__).with_name("architectures.yaml")


@dataclass(frozen=True)
class Architecture:
    """What memory and work depend on; `source` says where the configuration was read.

    `linears` are (inputs, outputs) of every linear layer but the output head, those that LoRA
    adapts; `cache` is the width of a token's keys and values in one layer, both together.
    """

    name: str
    source: str
    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    context: int
    cache: int
    linears: tuple[tuple[int, int], ...]

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA of this rank on every linear layer: rank x (inputs + outputs)."""
        return rank * sum(map(sum, self.linears))

    def trained(self, rank: int) -> int:
        """Parameters that training changes: all of them, or with a rank the adapter's."""
        return self.adapter(rank) if rank else self.parameters

    def cache_bytes(self, width: int) -> int:
        """Key-value cache of one token, in numbers of `width` bytes."""
        return self.layers * self.cache * width


@lru_cache
def of(base: str) -> Architecture:
    """The architecture of a base model (a folder or a name of the hub).

    Raises PSRError where no configuration is at hand, or it cannot be read.
    """
    found, source = config(base, shipped_first=True)
    model, text = _on_meta(found, base), found.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    head = model.get_output_embeddings()
    return Architecture(
        name=base, source=source, parameters=sum(p.numel() for p in model.parameters()),
        layers=text.num_hidden_layers, hidden=text.hidden_size, vocabulary=text.vocab_size,
        context=getattr(text, "max_position_embeddings", None) or 0, cache=2 * heads * width,
        linears=tuple(_linears(model, head)),
    )  # fmt: skip


def licence(base: str) -> str:
    """The hub's name of a base model's licence; '' where it is not known here."""
    return _table().get(base, {}).get("licence", "")


def config(base: str, shipped_first: bool = False) -> tuple[Any, str]:
    """A base model's configuration and where it was read; what ships lists only what sizes need.

    Raises PSRError where none is at hand, or it cannot be read.
    """
    folder = manifest.root() / Path(base).expanduser()
    if (folder / "config.json").is_file():
        return _read(folder, base), manifest.shown(folder)
    ways = (_shipped, _from_cache) if shipped_first else (_from_cache, _shipped)
    for way in ways:
        if found := way(base):
            return found
    raise PSRError(f"{base}: no configuration on this machine; download its config.json, or add it "
                   f"to psr_lib/{TABLE.name}")  # fmt: skip


def _shipped(base: str) -> tuple[Any, str] | None:
    from transformers import AutoConfig

    if known := _table().get(base, {}).get("config"):
        values = dict(known)
        source = f"psr_lib/{TABLE.name} ({_table()[base]['source']})"
        return AutoConfig.for_model(values.pop("model_type"), **values), source
    return None


def _from_cache(base: str) -> tuple[Any, str] | None:
    if not (manifest.root() / Path(base).expanduser()).exists() and (cached := _cached(base)):
        return _read(cached.parent, base), "the hub's cache"
    return None


def _cached(base: str) -> Path | None:
    """A hub model's configuration in the hub's cache on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, "config.json")
    except HFValidationError:  # no name of the hub
        return None
    return Path(found) if isinstance(found, str | os.PathLike) else None


def _read(folder: Path, base: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # damaged, or of a model that brings its own code
        reason = str(error).strip().splitlines()[0][:120]
        raise PSRError(f"{base}: unreadable configuration ({reason}); copy it again") from None


def _on_meta(config: Any, base: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise PSRError(f"{base}: no causal language model ({reason}); set model.base") from None


def _linears(model: Any, head: Any) -> list[tuple[int, int]]:
    import torch

    found = (m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    return [(m.in_features, m.out_features) for m in found]


@lru_cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))
