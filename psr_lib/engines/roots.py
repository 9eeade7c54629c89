"""Beginnings that the prefixes of many groups share: an instruction, the judge's examples.

A group's prefix is read once for its rows (`groups.py`). The prefixes of different problems begin
alike too, with the whole of the instruction; that root is read once for all of them, and remembered
for the calls to come.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from psr_lib.engines.groups import Group, common

LEAST = 32  # tokens; shorter beginnings are read with each group
WORTH = 1024  # tokens to be saved by a root that not all have: its groups take passes of their own
NEAR = 0.9  # a remembered root serves where it is so much of what could be shared
KEPT = 4  # roots that are remembered

Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Root:
    """Tokens, and their keys and values [1, heads, tokens, size] in every layer."""

    ids: list[int]
    layers: Layers

    def cut(self, length: int) -> "Root":
        """Its first tokens."""
        if length == len(self.ids):
            return self
        layers = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers]
        return Root(self.ids[:length], layers)


class Roots(threading.local):
    """The roots of one model, the latest few; they hold as long as its weights are the same.

    Each thread remembers its own, so that what is read does not depend on which one came first;
    where threads take the place of forks, they live for one call.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], Root] = {}

    def over(
        self, groups: Iterable[Group], read: Callable[[list[int]], Layers]
    ) -> list[tuple[Root | None, list[Group]]]:
        """The groups, each with the root that its prefix begins with; None where there is none.

        `read` runs tokens through the model; it is asked for a new root only.
        """
        kinds: dict[tuple[int, ...], list[Group]] = {}
        for group in groups:
            kinds.setdefault(tuple(group.prefix[:LEAST]), []).append(group)
        found: list[tuple[Root | None, list[Group]]] = []
        rest: list[Group] = []
        for key, some in kinds.items():
            worth = WORTH if len(kinds) > 1 else 1
            root = self._root(key, some, worth, read) if len(key) == LEAST else None
            if root:
                found.append((root, some))
            else:
                rest += some
        return [*found, (None, rest)] if rest else found

    def _root(
        self,
        key: tuple[int, ...],
        groups: list[Group],
        worth: int,
        read: Callable[[list[int]], Layers],
    ) -> Root | None:
        prefixes = [group.prefix for group in groups]
        first = min(prefixes)
        shared = first[: common(first, max(prefixes))]  # what the extremes share, all share
        known = self.known.get(key)
        usable = common(known.ids, shared) if known else 0
        anew = len(shared) * (len(groups) - 1)  # tokens saved by a root that is read now
        if (
            known
            and usable * len(groups) >= worth
            and (usable >= NEAR * len(shared) or anew < worth)
        ):
            return known.cut(usable)
        if anew < worth:
            return None
        self.known.pop(key, None)
        self.known = {**dict(list(self.known.items())[1 - KEPT :]), key: Root(shared, read(shared))}
        return self.known[key]
