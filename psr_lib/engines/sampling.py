"""Choosing the next token with noise that belongs to a row, not to a batch.

Each row has a seed. The noise of its token t at step s is a hash of (seed, s, t), so a row gives
the same text alone, among a thousand others, or after a restart.
"""

import torch

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64
SMALL_VOCABULARY = 4096  # up to here a full sort is cheap
TOP = 64, 512  # above it, how many of the likeliest tokens are sorted first, and then


def shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift of int64 (torch's own keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: torch.Tensor) -> torch.Tensor:
    """The finaliser of splitmix64 (Steele et al. 2014): int64 in, well mixed int64 out."""
    x = (x ^ shift(x, 30)) * MIX_1
    x = (x ^ shift(x, 27)) * MIX_2
    return x ^ shift(x, 31)


def uniform(seeds: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Numbers in (0, 1), float64 [rows, k]: seeds and steps are [rows], tokens [rows or 1, k]."""
    key = mix(mix(seeds + GOLDEN) + (steps + 1) * GOLDEN)
    bits = mix(key[:, None] + (tokens + 1) * GOLDEN)
    return (shift(bits, 11).double() + 0.5) * 2.0**-53


def next_tokens(
    logits: torch.Tensor,
    temperature: float,
    top_p: float,
    seeds: torch.Tensor,
    steps: torch.Tensor,
) -> torch.Tensor:
    """One token a row, int64 [rows], from logits [rows, vocabulary]; temperature 0 is greedy.

    Sampling is an exponential race (the Gumbel-max trick): the least -log(u) / p wins, over the
    nucleus of mass `top_p`, the smallest set of likeliest tokens that reaches it.
    """
    if temperature <= 0:
        return logits.argmax(-1)
    probs = torch.softmax(logits.float() / temperature, -1)
    best, tokens = probs.max(-1)
    if top_p < 1:
        # Where the likeliest token alone fills the nucleus there is nothing to draw.
        rows = (best < top_p).nonzero()[:, 0]
        if rows.numel():
            tokens[rows] = race(*nucleus(probs[rows], top_p), seeds[rows], steps[rows])
        return tokens
    every = torch.arange(probs.shape[-1], device=probs.device)[None]
    return race(probs, every.expand_as(probs), seeds, steps)


def nucleus(probs: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (0 outside the nucleus) and token ids, likeliest first, both [rows, k]."""
    for count in TOP if probs.shape[-1] > SMALL_VOCABULARY else ():
        top, ids = probs.topk(count, -1)
        if bool((top.sum(-1) >= top_p).all()):
            return cut(top, top_p), ids
    top, ids = probs.sort(dim=-1, descending=True, stable=True)
    return cut(top, top_p), ids


def cut(top: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero every probability that comes after the mass `top_p` has been reached."""
    before = top.cumsum(-1) - top
    return top.masked_fill(before >= top_p, 0.0)


def race(
    probs: torch.Tensor, ids: torch.Tensor, seeds: torch.Tensor, steps: torch.Tensor
) -> torch.Tensor:
    """The token of each row that arrives first, with speed p."""
    arrival = -torch.log(uniform(seeds, steps, ids)) / probs
    return ids.gather(-1, arrival.argmin(-1, keepdim=True))[:, 0]
