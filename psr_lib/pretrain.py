"""Pre-train the small laboratory's base model M0 (notebook 00): one plain loop over the corpus.

Documents are not packed: a batch holds documents of like length, padded on the right, so a causal
model needs no attention mask and never sees its neighbour. Hidden matrices are updated by Muon, the
rest by AdamW; the learning rate is held and then brought down linearly at the end
(`Recipe.decay`).
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from psr_lib import corpus


@dataclass(frozen=True)
class Recipe:
    """Size and training of the base model."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 576
    context: int = 1024  # tokens
    tokens: int = 40_000_000  # to train on, padding not counted
    batch_tokens: int = 8_192
    muon_lr: float = 4e-3
    adamw_lr: float = 3e-3
    warmup: int = 100  # updates
    decay: float = 0.3  # share of the tokens over which the learning rate falls to 0
    mix: str = "broad"  # of the corpus
    seed: int = 0


# One model is trained by these in turn, each with its own warm-up and fall of the learning rate.
PHASES = (
    Recipe(),
    Recipe(mix="reviews", tokens=14_000_000, muon_lr=2e-3, adamw_lr=1.5e-3, decay=1.0, seed=1),
)


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights; the vocabulary is padded to a multiple of 32."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 32) * 32, hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.context, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, chunk: int = 4096
) -> Iterator[torch.Tensor]:
    """Endless right-padded batches of token ids, (documents, length), int64."""
    stream, rng = corpus.documents(recipe.seed, recipe.mix), random.Random(recipe.seed)
    while True:
        rows = tokenizer(list(islice(stream, chunk)), add_special_tokens=False)["input_ids"]
        rows = [[*row, tokenizer.eos_token_id] for row in rows if len(row) < recipe.context]
        made = [
            pad(group, tokenizer.pad_token_id) for group in by_length(rows, recipe.batch_tokens)
        ]
        rng.shuffle(made)
        yield from made


def by_length(rows: list[list[int]], budget: int) -> Iterator[list[list[int]]]:
    """Groups of rows of like length whose padded size stays within `budget` tokens."""
    group: list[list[int]] = []
    for row in sorted(rows, key=len):
        if group and len(row) * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(row)
    yield group


def pad(rows: list[list[int]], pad_id: int) -> torch.Tensor:
    """Rows as one tensor, padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=0.01,
                            adjust_lr_fn="match_rms_adamw")  # fmt: skip
    return [muon, torch.optim.AdamW(rest, lr=recipe.adamw_lr, betas=(0.9, 0.98), weight_decay=0.0)]


def schedule(recipe: Recipe, update: int, done: float) -> float:
    """Factor on the learning rate: warm-up, hold, linear fall; `done` is the share of tokens."""
    return min(1.0, (update + 1) / recipe.warmup, max(0.0, (1.0 - done) / recipe.decay))


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    report: Callable[[dict], None] = print,
    every: int = 50,
) -> list[dict]:
    """Train in place; returns one record every `every` updates: update, tokens, loss, seconds."""
    model.set_attn_implementation("psr_fp32")
    pair, bases = optimizers(model, recipe), (recipe.muon_lr, recipe.adamw_lr)
    pad: Any = model.config.pad_token_id
    history, losses, tokens, start, update = [], [], 0, time.monotonic(), 0
    for batch in batches(recipe, tokenizer):
        factor = schedule(recipe, update, tokens / recipe.tokens)
        for optimizer, base in zip(pair, bases, strict=True):
            optimizer.param_groups[0]["lr"] = base * factor
        losses.append(_update(model, batch, pair))
        tokens, update = tokens + int(batch.ne(pad).sum()), update + 1
        if update % every == 0 or tokens >= recipe.tokens:
            history.append({"update": update, "tokens": tokens, "loss": sum(losses) / len(losses),
                            "seconds": time.monotonic() - start})  # fmt: skip
            report(history[-1])
            losses = []
        if tokens >= recipe.tokens:
            break
    model.set_attn_implementation("sdpa")
    return history


def _update(model: LlamaForCausalLM, batch: torch.Tensor, pair: list) -> float:
    pad: Any = model.config.pad_token_id
    labels = batch.masked_fill(batch.eq(pad), -100)
    with torch.autocast(batch.device.type, dtype=torch.bfloat16):
        loss = model(input_ids=batch, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in pair:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _fp32_attention(module, query, key, value, attention_mask=None, scaling=None, **_):
    """Causal attention in fp32: on a CPU the bf16 kernel is slower, and nothing is masked here."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1).float() for x in (key, value))
    with torch.autocast(query.device.type, enabled=False):
        out = scaled_dot_product_attention(query.float(), key, value, is_causal=True, scale=scaling)
    return out.transpose(1, 2).to(query.dtype).contiguous(), None


AttentionInterface.register("psr_fp32", _fp32_attention)
