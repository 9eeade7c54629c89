"""The rows that an engine is decoding now, and the two ways to move them on by a token.

`SharedBatch` holds what a group of rows has in common once (see `attention.py`); `PlainBatch` lets
any causal model of transformers use its own cache. Both prefill groups, step, and drop rows.
"""

import torch
from transformers.cache_utils import DynamicCache

from psr_lib.engines.attention import NEVER, SharedPrefixCache, TailLayer, merge, using
from psr_lib.engines.groups import Group, Row


class Batch:
    """Rows, their next positions and the logits of their next tokens [rows, vocabulary]."""

    def __init__(self, rows: list[Row], device: torch.device):
        self.rows, self.device = rows, device
        self.seeds = torch.tensor([row.seed for row in rows], device=device)
        self.position = torch.tensor([0] * len(rows), device=device)
        self.counts = torch.tensor([len(row.ids) for row in rows], device=device)
        self.logits: torch.Tensor = torch.empty(0)

    def select(self, keep: list[int]) -> torch.Tensor:
        """Keep these rows; returns their indices as a tensor."""
        index = torch.tensor(keep, device=self.device)
        self.rows = [self.rows[i] for i in keep]
        self.seeds, self.position = self.seeds[index], self.position[index]
        self.counts, self.logits = self.counts[index], self.logits[index]
        return index


class SharedBatch(Batch):
    """Rows in groups over a `SharedPrefixCache`."""

    mergeable = True

    def __init__(self, groups: list[Group], model, pad_id: int, keep: int = 1):
        """Run the groups' prefixes, then all tails; keeps the logits of the last `keep` columns."""
        super().__init__([row for group in groups for row in group.rows], model.device)
        self.model = model
        prefixes = [group.prefix or [pad_id] for group in groups]
        ids, start = _left_pad(prefixes, pad_id, self.device)
        start = start + torch.tensor([not g.prefix for g in groups], device=self.device).long()
        layers = [TailLayer(*kv) for kv in self._prefill(ids, start)]
        sizes = [len(group.rows) for group in groups]
        self.cache = SharedPrefixCache(layers, start, sizes)
        lengths = [len(group.prefix) for group in groups for _ in group.rows]
        ids, self.start = _left_pad([row.tail for row in self.rows], pad_id, self.device)
        self.prefilled = sum(len(g.prefix) for g in groups) + sum(len(r.tail) for r in self.rows)
        self._tails(ids, torch.tensor(lengths, device=self.device), keep)

    def _prefill(self, ids: torch.Tensor, start: torch.Tensor) -> list[tuple]:
        """Keys and values [groups, heads, columns, size] of every layer."""
        columns = torch.arange(ids.shape[1], device=self.device)
        mask = _causal(columns, start)[:, None] if bool((start > 0).any()) else None
        cache = DynamicCache(config=self.model.config)
        self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(columns - start[:, None]).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _tails(self, ids: torch.Tensor, lengths: torch.Tensor, keep: int) -> None:
        columns = torch.arange(ids.shape[1], device=self.device)
        positions = (columns - self.start[:, None]).clamp(min=0) + lengths[:, None]
        mask = (~_causal(columns, self.start)).float()[:, None] * NEVER
        self.tail_logits = self._run(ids, positions, mask, keep)
        self.logits = self.tail_logits[:, -1]
        self.position = positions[:, -1] + 1

    def _run(self, ids, positions, mask, keep: int) -> torch.Tensor:
        with using(self.cache):
            return self.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=keep,
            ).logits

    def step(self, tokens: torch.Tensor) -> None:
        """Feed one token a row; afterwards `logits` are those of the next."""
        self.tail_logits = None
        columns = torch.arange(self.cache.get_seq_length() + 1, device=self.device)
        mask = (columns < self.start[:, None]).float()[:, None, None] * NEVER
        self.logits = self._run(tokens[:, None], self.position[:, None], mask, keep=1)[:, -1]
        self.position = self.position + 1
        self.counts = self.counts + 1

    def select(self, keep: list[int]) -> torch.Tensor:
        """Keep these rows, the groups that still have one, and the columns that one still needs."""
        owner = [g for g, size in enumerate(self.cache.sizes) for _ in range(size)]
        left = [owner[i] for i in keep]
        groups = sorted(set(left))
        index = super().select(keep)
        self.tail_logits = None
        self.start = self.start[index]
        trim = int(self.start.min())
        self.start = self.start - trim
        chosen = torch.tensor(groups, device=self.device)
        self.cache.select(index, chosen, [left.count(g) for g in groups], trim)
        return index


def merged(batches: list[SharedBatch]) -> SharedBatch:
    """One batch of all rows, in order."""
    first = batches[0]
    if len(batches) == 1:
        return first
    length = max(b.cache.get_seq_length() for b in batches)
    first.start = torch.cat([b.start + length - b.cache.get_seq_length() for b in batches])
    first.cache = merge([b.cache for b in batches])
    for name in ("seeds", "position", "counts", "logits"):
        setattr(first, name, torch.cat([getattr(b, name) for b in batches]))
    first.rows = [row for b in batches for row in b.rows]
    first.tail_logits = None
    return first


class PlainBatch(Batch):
    """Rows over the model's own cache; equal prompts are prefilled once and then copied."""

    mergeable = False

    def __init__(self, groups: list[Group], model, pad_id: int, keep: int = 1):
        """Run the whole prompts; keeps the logits of the last `keep` columns."""
        super().__init__([row for group in groups for row in group.rows], model.device)
        self.model = model
        full = [tuple(group.prefix + row.tail) for group in groups for row in group.rows]
        prompts = sorted(set(full), key=full.index)
        ids, start = _left_pad([list(p) for p in prompts], pad_id, self.device)
        columns = torch.arange(ids.shape[1], device=self.device)
        self.mask = (columns >= start[:, None]).long()
        self.cache = DynamicCache(config=model.config)
        positions = (columns - start[:, None]).clamp(min=0)
        self.tail_logits = self._run(ids, positions, keep)
        self.position = positions[:, -1] + 1
        self.prefilled = sum(len(p) for p in prompts)
        place = {prompt: i for i, prompt in enumerate(prompts)}
        index = torch.tensor([place[p] for p in full], device=self.device)
        self.tail_logits = self.tail_logits[index]
        self.logits = self.tail_logits[:, -1]
        self.position, self.mask = self.position[index], self.mask[index]
        self.cache.batch_select_indices(index)

    def _run(self, ids, positions, keep: int) -> torch.Tensor:
        return self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits

    def step(self, tokens: torch.Tensor) -> None:
        """Feed one token a row; afterwards `logits` are those of the next."""
        self.tail_logits = None
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], 1)
        self.logits = self._run(tokens[:, None], self.position[:, None], 1)[:, -1]
        self.position = self.position + 1
        self.counts = self.counts + 1

    def select(self, keep: list[int]) -> torch.Tensor:
        """Keep these rows."""
        index = super().select(keep)
        self.mask = self.mask[index]
        self.cache.batch_select_indices(index)
        return index


def _left_pad(rows: list[list[int]], pad_id: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [rows, longest] and the first real column of each row [rows]."""
    length = max(map(len, rows))
    ids = [[pad_id] * (length - len(row)) + row for row in rows]
    start = [length - len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(start, device=device)


def _causal(columns: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Which columns each column may see, [rows, columns, columns]; padding sees itself only."""
    before = columns[None, :] <= columns[:, None]
    real = columns >= start[:, None]
    itself = columns[None, :] == columns[:, None]
    return (before[None] & real[:, None, :]) | itself[None]
