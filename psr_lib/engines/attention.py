"""Attention over a prefix that several rows share (after Juravsky et al. 2024, "Hydragen").

The rows of a group (six candidates of one step, or the judge's pairs after one prefix) begin with
the same tokens. Their keys and values are computed and held once a group; the queries of all rows
meet them in one matrix product. Each row holds only its own tail. Both parts are merged exactly by
their softmax sums. On a CPU, where reading the cache is what takes the time, this is the speed.

Shapes: B rows, P groups, S rows in the largest group of a span, H key-value heads, G query heads
for each, Q new tokens, D size of a head.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "psr_shared_prefix"
NEVER = torch.finfo(torch.float32).min  # added to a score that must not count
# What scaled_dot_product_attention runs on a CPU; called by name because it also gives the sums.
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
TAIL_SPAN = 48  # rows whose tails attend together on a CPU, from the first column of the longest
SPAN = 8  # neighbouring groups that attend together, padded to the longest prefix among them
GROWTH = 64  # columns added to a tail when it is full
PLAIN_MODELS = {"llama", "qwen2", "qwen3", "mistral"}

_active = threading.local()  # each worker thread has its own cache in use


def supports(config) -> bool:
    """Whether a model's attention is the plain causal one, which alone can be cut in two parts."""
    windowed = getattr(config, "use_sliding_window", True)
    windows = windowed and getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return config.model_type in PLAIN_MODELS and not windows and kinds == {"full_attention"}


class TailLayer(DynamicLayer):
    """One layer: the groups' shared keys and values [P, H, L, D], and the rows' tails [B, H, T, D].

    A tail is written in place into a buffer with room to spare for columns and rows, not
    concatenated at every token.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, shared_keys: torch.Tensor, shared_values: torch.Tensor):
        super().__init__()
        self.shared_keys, self.shared_values = shared_keys, shared_values
        self.rows = self.length = 0

    def hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Take these tails, all columns of all rows filled."""
        self.keys, self.values, self.is_initialized = keys, values, True
        self.rows, self.length = keys.shape[0], keys.shape[2]

    def update(self, key_states, value_states, *args, **kwargs):
        """Append columns [B, H, Q, D]; returns views of all of the tail."""
        if self.keys is None:
            self.hold(key_states[:, :, :0], value_states[:, :, :0])
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self._widen(0, end + GROWTH - self.keys.shape[2])
        self.keys[: self.rows, :, self.length : end] = key_states
        self.values[: self.rows, :, self.length : end] = value_states
        self.length = end
        return self.tails()

    def tails(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the keys and values that are filled."""
        keys, values = (x[: self.rows, :, : self.length] for x in (self.keys, self.values))
        return keys, values

    def repeat(self, rows: torch.Tensor) -> None:
        """Append copies of these rows."""
        end = self.rows + len(rows)
        if end > len(self.keys):
            self._widen(end + end // 2 - len(self.keys), 0)
        for x in (self.keys, self.values):
            x[self.rows : end, :, : self.length] = x[rows, :, : self.length]
        self.rows = end

    def _widen(self, rows: int, columns: int) -> None:
        around = (0, 0, 0, columns, 0, 0, 0, rows)
        self.keys, self.values = pad(self.keys, around), pad(self.values, around)

    def get_seq_length(self) -> int:
        """Columns of the tail."""
        return self.length


class SharedPrefixCache(Cache):
    """The cache of a batch of groups; `owner` [B] is the group of each row."""

    layers: list[Any]  # of TailLayer

    def __init__(self, layers: list[TailLayer], shared_start: torch.Tensor, owner: torch.Tensor):
        super().__init__(layers=[*layers])
        self.shared_start = shared_start  # [P] first column that is not padding
        self.tail_spans: list[tuple] = []
        self._place_groups()
        self._place_rows(owner)

    def _place_groups(self) -> None:
        """Cut the groups into spans: groups from, to, their first column, their mask."""
        length = self.layers[0].shared_keys.shape[2]
        columns = torch.arange(length, device=self.shared_start.device)
        hidden = (columns < self.shared_start[:, None])[:, None, None]
        firsts = self.shared_start.tolist()
        self.spans = []
        for one in range(0, len(firsts), SPAN):
            span = slice(one, one + SPAN)
            first = min(*firsts[span], length - 1)
            equal = max(firsts[span]) == first
            self.spans.append((span, first, None if equal else hidden[span, ..., first:] * NEVER))

    def _place_rows(self, owner: torch.Tensor) -> None:
        """Prepare the ways from rows to slots and back: a span's groups are filled up to S rows."""
        self.owner = owner
        sizes = owner.bincount(minlength=len(self.shared_start))
        self.widths = [max(part) for part in _cut(sizes.tolist())]
        self.slots = self.back = None
        order = owner.argsort(stable=True)
        rows = torch.arange(len(owner), device=owner.device)
        width = torch.tensor(self.widths, device=owner.device).repeat_interleave(SPAN)[: len(sizes)]
        if bool((width == sizes).all()) and bool((order == rows).all()):
            return
        before, place = width.cumsum(0) - width, rows - (sizes.cumsum(0) - sizes)[owner[order]]
        self.back = torch.empty_like(rows)
        self.back[order] = before[owner[order]] + place
        self.slots = order[sizes.cumsum(0) - sizes].repeat_interleave(width)  # filled by the first
        self.slots[self.back] = rows

    def see_tails(self, start: torch.Tensor) -> None:
        """Note where the tails begin, [B] first columns: those of like length attend together.

        Rows that came to the batch together stand side by side. A GPU would rather have one call.
        """
        self.tail_spans = []
        if start.device.type != "cpu":
            return
        firsts = start.tolist()
        for one in range(0, len(firsts), TAIL_SPAN):
            span = firsts[one : one + TAIL_SPAN]
            first = min(span)
            self.tail_spans.append((slice(one, one + TAIL_SPAN), first, max(span) > first))

    def attend_tails(self, query, key, value, mask) -> tuple[torch.Tensor, ...]:
        """Attention of the rows' queries [B, H, R, D] over their own tails."""
        if not self.tail_spans:
            return _part(query, key, value, mask)
        parts = [
            _part(query[rows], key[rows, :, first:], value[rows, :, first:],
                  mask[rows, ..., first:] if ragged else None)
            for rows, first, ragged in self.tail_spans
        ]  # fmt: skip
        return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))

    def attend_shared(self, query: torch.Tensor, layer: TailLayer) -> tuple[torch.Tensor, ...]:
        """Attention of the rows' queries [B, H, R, D] over their groups' prefixes.

        It goes span by span: neither a short prefix nor a small group is padded to the largest.
        """
        query = query if self.slots is None else query[self.slots]
        parts, at = [], 0
        for (span, first, mask), width in zip(self.spans, self.widths, strict=True):
            keys, values = layer.shared_keys[span, :, first:], layer.shared_values[span, :, first:]
            end = at + width * len(keys)
            found = _part(_together(query[at:end], width), keys, values, mask)
            parts.append([_apart(x, width) for x in found])
            at = end
        joined = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        return tuple(x if self.back is None else x[self.back] for x in joined)

    def repeat(self, rows: torch.Tensor) -> None:
        """Append copies of these rows, in the same groups."""
        for layer in self.layers:
            layer.repeat(rows)
        self._place_rows(torch.cat([self.owner, self.owner[rows]]))

    def select(self, rows: torch.Tensor, trim: int) -> None:
        """Keep these rows and their groups; `trim` leading columns of the tails are dropped."""
        groups, owner = self.owner[rows].unique(return_inverse=True)
        fewer = len(groups) < len(self.shared_start)
        for layer in self.layers:
            layer.hold(*(x[rows, :, trim : layer.length] for x in (layer.keys, layer.values)))
            if fewer:
                layer.shared_keys = layer.shared_keys[groups]
                layer.shared_values = layer.shared_values[groups]
        if fewer:
            self.shared_start = self.shared_start[groups]
            self._place_groups()
        self._place_rows(owner)


def merge(caches: list[SharedPrefixCache]) -> SharedPrefixCache:
    """One cache of all rows, in order; shorter prefixes and tails are padded on the left.

    The caches are used up, layer by layer, so that what they hold never stands there twice.
    """
    lengths = [c.layers[0].shared_keys.shape[2] for c in caches]
    starts = [c.shared_start + max(lengths) - n for c, n in zip(caches, lengths, strict=True)]
    layers = []
    for _ in range(len(caches[0].layers)):
        parts = [c.layers.pop(0) for c in caches]
        layer = TailLayer(
            _stack([p.shared_keys for p in parts]), _stack([p.shared_values for p in parts])
        )
        keys, values = zip(*(p.tails() for p in parts), strict=True)
        layer.hold(_stack(keys), _stack(values))
        layers.append(layer)
    before = [0, *accumulate(len(c.shared_start) for c in caches)]
    owners = [c.owner + n for c, n in zip(caches, before[:-1], strict=True)]
    return SharedPrefixCache(layers, torch.cat(starts), torch.cat(owners))


@contextmanager
def using(cache: SharedPrefixCache | None) -> Iterator[None]:
    """Within the block this thread's forward passes attend over `cache`."""
    _active.cache = cache
    try:
        yield
    finally:
        _active.cache = None


def attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """An attention function of transformers: query [B, H * G, Q, D] -> [B, Q, H * G, D].

    Outside of `using` it is the ordinary scaled dot product attention.
    """
    cache = getattr(_active, "cache", None)
    if cache is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    rows, heads, _, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    grouped = (query * scale).reshape(rows, key.shape[1], -1, size)
    own = cache.attend_tails(grouped, key, value, _repeat(attention_mask, heads // key.shape[1]))
    layer = cache.layers[module.layer_idx]
    output = _join(own, cache.attend_shared(grouped, layer))
    return output.to(query.dtype).reshape(query.shape).transpose(1, 2).contiguous(), None


def _part(query, key, value, mask) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over these keys alone [P, H, R, D], and the log of its softmax sum [P, H, R, 1]."""
    if query.device.type == "cpu" and query.dtype == torch.float32:
        if mask is not None:
            mask = mask.expand(len(query), 1, query.shape[2], key.shape[2])
        output, log_sum = FUSED(query, key, value, 0.0, False, attn_mask=mask, scale=1.0)
        return output, log_sum[..., None]
    scores = (query @ key.transpose(-1, -2)).float()
    if mask is not None:
        scores += mask
    log_sum = scores.logsumexp(-1, keepdim=True)
    weights = scores.sub_(log_sum).exp_()
    return (weights.to(value.dtype) @ value).float(), log_sum


def _cut(sizes: list[int]) -> list[list[int]]:
    return [sizes[one : one + SPAN] for one in range(0, len(sizes), SPAN)]


def _together(x: torch.Tensor, width: int) -> torch.Tensor:
    """[P * S, H, R, D] -> [P, H, S * R, D]."""
    if width == 1:
        return x
    x = x.view(-1, width, *x.shape[1:]).transpose(1, 2)
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _apart(x: torch.Tensor, width: int) -> torch.Tensor:
    """[P, H, S * R, D] -> [P * S, H, R, D]."""
    if width == 1:
        return x
    x = x.view(*x.shape[:2], width, -1, x.shape[-1]).transpose(1, 2)
    return x.reshape(-1, *x.shape[2:])


def _join(one, two) -> torch.Tensor:
    """The softmax over the keys of both parts: each weighs as much as its softmax sum."""
    (out_1, log_1), (out_2, log_2) = one, two
    share = torch.sigmoid(log_1 - log_2)
    return torch.lerp(out_2, out_1, share)


def _repeat(mask: torch.Tensor | None, times: int) -> torch.Tensor | None:
    """[B, 1, Q, T] -> [B, 1, G * Q, T], as the queries of one key-value head stand."""
    if mask is None or mask.shape[2] == 1:
        return mask
    return mask.repeat(1, 1, times, 1)


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate along the rows, padding the columns (dimension 2) on the left."""
    length = max(p.shape[2] for p in parts)
    return torch.cat([pad(p, (0, 0, length - p.shape[2], 0)) for p in parts])


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
