"""The rows that an engine is decoding now, and the two ways to move them on by a token.

`SharedBatch` holds what a group of rows has in common once (see `attention.py`) and takes what all
groups begin with from a root (`roots.py`); `PlainBatch` lets any causal model of transformers use
its own cache. Both prefill groups, step, and drop rows.
"""

from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache

from psr_lib.engines.attention import NEVER, SharedPrefixCache, TailLayer, merge, using
from psr_lib.engines.groups import Extent, Group, Row
from psr_lib.engines.roots import Layers, Root


class Batch:
    """Rows (completions on their way) and the lanes that are decoded for them.

    A lane is a sequence of tokens with its place in the cache. Siblings that have drawn the same
    tokens so far stand on one lane, so that it is decoded once; where they part, each way goes on
    as a lane of its own. `lane` [rows] says which, None where every row has its own. Seeds and
    counts belong to rows; positions and `logits` [lanes, vocabulary] to lanes.
    """

    lane: torch.Tensor | None = None
    mergeable = False
    tail_logits: torch.Tensor | None = None  # of the columns that were asked for, until a step

    def __init__(self, rows: list[Row], device: torch.device):
        self.rows, self.device = rows, device
        self.seeds = torch.tensor([row.seed for row in rows], device=device)
        self.counts = torch.tensor([len(row.ids) for row in rows], device=device)
        self.position = self.logits = torch.empty(0)

    @property
    def lanes(self) -> int:
        """How many sequences a step moves on."""
        return len(self.position)

    @property
    def extent(self) -> Extent:
        """What its cache may come to hold."""
        raise NotImplementedError

    def row_logits(self) -> torch.Tensor:
        """Logits of every row's next token [rows, vocabulary]."""
        return self.logits if self.lane is None else self.logits[self.lane]

    def row_lanes(self) -> list[int]:
        """The lane of every row."""
        return list(range(self.lanes)) if self.lane is None else self.lane.tolist()

    def idle(self, alive: list[int]) -> float:
        """Share of the lanes on which none of these rows stands."""
        used = len(alive) if self.lane is None else len(self.lane[alive].unique())
        return 1 - used / self.lanes

    def select(self, keep: list[int]) -> torch.Tensor:
        """Keep these rows; returns their indices as a tensor."""
        index = torch.tensor(keep, device=self.device)
        self.rows = [self.rows[i] for i in keep]
        self.seeds, self.counts = self.seeds[index], self.counts[index]
        lanes = index
        if self.lane is not None:
            lanes, self.lane = self.lane[index].unique(return_inverse=True)
        self.position, self.logits = self.position[lanes], self.logits[lanes]
        self.select_lanes(lanes)
        return index

    def select_lanes(self, lanes: torch.Tensor) -> None:
        """Keep these lanes of the cache."""
        raise NotImplementedError

    def step(self, tokens: torch.Tensor, alive: list[int]) -> None:
        """Feed a token to every row [rows]; afterwards `logits` are those of the next."""
        raise NotImplementedError


class SharedBatch(Batch):
    """Rows in groups over a `SharedPrefixCache`."""

    mergeable = True

    def __init__(
        self, groups: list[Group], model, pad_id: int, keep: int = 1, root: Root | None = None
    ):
        """Run the groups' prefixes, then all tails; keeps the logits of the last `keep` columns.

        All prefixes begin with `root`, which is not run again.
        """
        super().__init__([row for group in groups for row in group.rows], model.device)
        self.model = model
        known = len(root.ids) if root else 0
        prefixes = [group.prefix[known:] for group in groups]
        ids, start = _left_pad([p or [pad_id] for p in prefixes], pad_id, self.device)
        start = start + torch.tensor([not p for p in prefixes], device=self.device).long()
        layers = [TailLayer(*kv) for kv in run_prefixes(model, ids, start, root)]
        owner, tails = self._enter(groups)
        self.cache = SharedPrefixCache(layers, start, torch.tensor(owner, device=self.device))
        lengths = [len(groups[g].prefix) for g in owner]
        ids, self.start = _left_pad(tails, pad_id, self.device)
        self.prefilled = sum(map(len, prefixes)) + sum(map(len, tails))
        self._tails(ids, torch.tensor(lengths, device=self.device), keep)

    def _enter(self, groups: list[Group]) -> tuple[list[int], list[list[int]]]:
        """Put rows with equal tails on one lane; each lane's group and tail."""
        known: dict[tuple, int] = {}
        owner, tails, places = [], [], []
        for g, group in enumerate(groups):
            for row in group.rows:
                key = (g, *row.tail)
                if key not in known:
                    known[key] = len(known)
                    owner.append(g)
                    tails.append(row.tail)
                places.append(known[key])
        if len(known) < len(places):
            self.lane = torch.tensor(places, device=self.device)
        return owner, tails

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

    @property
    def extent(self) -> Extent:
        """What its cache may come to hold."""
        shared = self.cache.layers[0].shared_keys
        ahead = max(row.room - len(row.ids) for row in self.rows)
        return Extent(
            len(shared), shared.shape[2], len(self.rows), self.cache.get_seq_length(), ahead
        )

    def step(self, tokens: torch.Tensor, alive: list[int]) -> None:
        """Feed a token to every row [rows]; afterwards `logits` are those of the next.

        Only the rows `alive` count; the others are carried along.
        """
        self.tail_logits = None
        if self.lane is not None:
            tokens = self._part(self.lane, tokens, torch.tensor(alive, device=self.device))
        self.cache.see_tails(self.start)
        columns = torch.arange(self.cache.get_seq_length() + 1, device=self.device)
        mask = (columns < self.start[:, None]).float()[:, None, None] * NEVER
        self.logits = self._run(tokens[:, None], self.position[:, None], mask, keep=1)[:, -1]
        self.position = self.position + 1
        self.counts = self.counts + 1

    def _part(self, lane, tokens: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """Give rows that part from their siblings a lane of their own; the tokens of all lanes."""
        size = self.logits.shape[-1]
        ways, place = (lane[alive] * size + tokens[alive]).unique(return_inverse=True)
        target, stays = ways // size, torch.ones_like(ways, dtype=torch.bool)
        stays[1:] = target[1:] != target[:-1]  # the first way of a lane goes on in its place
        parting = target[~stays]
        if len(parting):
            target[~stays] = self.lanes + torch.arange(len(parting), device=self.device)
            self.position = torch.cat([self.position, self.position[parting]])
            self.start = torch.cat([self.start, self.start[parting]])
            self.cache.repeat(parting)
        lane[alive] = target[place]
        found = tokens.new_zeros(self.lanes)
        found[target] = ways % size
        return found

    def select_lanes(self, lanes: torch.Tensor) -> None:
        """Keep these lanes, their groups, and the columns that one of them still needs."""
        self.tail_logits = None
        self.start = self.start[lanes]
        trim = int(self.start.min())
        self.start = self.start - trim
        self.cache.select(lanes, trim)


def merged(batches: list[SharedBatch]) -> SharedBatch:
    """One batch of all rows, in order."""
    first = batches[0]
    if len(batches) == 1:
        return first
    length = max(b.cache.get_seq_length() for b in batches)
    first.start = torch.cat([b.start + length - b.cache.get_seq_length() for b in batches])
    first.cache = merge([b.cache for b in batches])
    first.lane = _joined_lanes(batches)
    for name in ("seeds", "position", "counts", "logits"):
        setattr(first, name, torch.cat([getattr(b, name) for b in batches]))
    first.rows = [row for b in batches for row in b.rows]
    first.tail_logits = None
    return first


def _joined_lanes(batches: list[SharedBatch]) -> torch.Tensor | None:
    if all(b.lane is None for b in batches):
        return None
    before = [0, *accumulate(b.lanes for b in batches)]
    own = [torch.arange(b.lanes, device=b.device) if b.lane is None else b.lane for b in batches]
    return torch.cat([lane + n for lane, n in zip(own, before[:-1], strict=True)])


class PlainBatch(Batch):
    """Rows over the model's own cache; equal prompts are prefilled once and then copied."""

    mergeable = False

    def __init__(
        self, groups: list[Group], model, pad_id: int, keep: int = 1, root: Root | None = None
    ):
        """Run the whole prompts, `root` too; keeps the logits of the last `keep` columns."""
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

    def step(self, tokens: torch.Tensor, alive: list[int]) -> None:
        """Feed one token a row; afterwards `logits` are those of the next."""
        self.tail_logits = None
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], 1)
        self.logits = self._run(tokens[:, None], self.position[:, None], 1)[:, -1]
        self.position = self.position + 1
        self.counts = self.counts + 1

    def select_lanes(self, lanes: torch.Tensor) -> None:
        """Keep these lanes, which are rows here."""
        self.tail_logits = None
        self.mask = self.mask[lanes]
        self.cache.batch_select_indices(lanes)


def run_prefixes(model, ids: torch.Tensor, start: torch.Tensor, root: Root | None = None) -> Layers:
    """Keys and values [rows, heads, columns, size] of every layer, those of the root included.

    `ids` [rows, columns] follow the root; what is before `start` [rows] is padding, which is to the
    left of the root in the result.
    """
    cache, known = DynamicCache(config=model.config), 0
    if root:
        known = len(root.ids)
        for layer, (keys, values) in enumerate(root.layers):
            cache.update(
                keys.expand(len(ids), -1, -1, -1), values.expand(len(ids), -1, -1, -1), layer
            )
    columns = torch.arange(ids.shape[1], device=ids.device)
    mask = None
    if root or bool((start > 0).any()):
        mask = pad(_causal(columns, start), (known, 0), value=True)[:, None]
    model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(columns - start[:, None]).clamp(min=0) + known,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    layers: list[Any] = cache.layers
    return [
        (_padding_first(layer.keys, known, start), _padding_first(layer.values, known, start))
        for layer in layers
    ]


def _padding_first(x: torch.Tensor, known: int, start: torch.Tensor) -> torch.Tensor:
    """Columns [rows, heads, columns, size] with the padding moved before the first `known` ones."""
    if not known or not bool((start > 0).any()):
        return x
    moved = x.clone()
    for padding in start.unique().tolist():
        rows = start == padding
        moved[rows, :, padding : padding + known] = x[rows, :, :known]
    return moved


def read_root(model, ids: list[int]) -> Layers:
    """Keys and values of tokens with nothing before them, as `Roots` asks for them."""
    row = torch.tensor([ids], device=model.device)
    return run_prefixes(model, row, row.new_zeros(1))


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
