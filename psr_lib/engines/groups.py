"""Which rows stand over one shared prefix, and in which order they are prefilled."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

GROUP_ROWS = 16  # more rows than this over one prefix are cut into several groups
BUCKET = 16  # tails whose lengths differ by less are of one length here
LEAST_SHARED = 8  # tokens; shorter common beginnings are not worth a group


@dataclass
class Row:
    """One completion on its way: the prompt after its group's prefix, and what came of it.

    `ends` holds (option, last token) of the options that are `ids` and one token more.
    """

    place: tuple[int, int]
    tail: list[int]
    seed: int
    room: int
    ids: list[int] = field(default_factory=list)
    finish: str = ""
    ends: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Group:
    """Rows whose prompts begin with the same tokens."""

    prefix: list[int]
    rows: list[Row]

    @property
    def lanes(self) -> int:
        """Rows that are decoded apart from the beginning."""
        return len({tuple(row.tail) for row in self.rows})

    @property
    def longest(self) -> int:
        """Tokens of the longest tail."""
        return max(len(row.tail) for row in self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups that stand side by side in this order need little padding."""
        return -(-self.longest // BUCKET), len(self.rows), len(self.prefix)

    @property
    def work(self) -> int:
        """Tokens that its rows read and write by themselves, at most."""
        return sum(len(row.tail) + row.room for row in self.rows)


@dataclass(frozen=True)
class Extent:
    """What the cache of some groups may come to hold, padding included."""

    groups: int = 0
    prefix: int = 0  # columns of the longest
    rows: int = 0
    tail: int = 0  # columns of the longest
    ahead: int = 0  # tokens that a row may still write

    @property
    def columns(self) -> int:
        """Every prefix is as wide as the longest; so are the tails, which end side by side."""
        return self.groups * self.prefix + self.rows * (self.tail + self.ahead)

    def and_group(self, group: Group) -> "Extent":
        """With this group too, none of whose rows has written anything."""
        ahead = max(row.room for row in group.rows)
        return Extent(self.groups + 1, max(self.prefix, len(group.prefix)),
                      self.rows + len(group.rows), max(self.tail, group.longest),
                      max(self.ahead, ahead))  # fmt: skip


def grouped(items: list[tuple[list[int], Row]]) -> list[Group]:
    """Cut (prompt, row) pairs into groups with a long common beginning (each sets `row.tail`)."""
    items = sorted(items, key=lambda item: (item[0], item[1].place))
    # What a prompt has in common with the next one; its own last token stays out of any prefix.
    alike = [common(a[:-1], b[:-1]) for (a, _), (b, _) in pairwise(items)] + [0]
    groups: list[Group] = []
    members: list[tuple[list[int], Row]] = []
    shared = 0
    for k, (prompt, row) in enumerate(items):
        if members and not _joins(alike[k - 1], alike[k], shared, len(members), len(prompt)):
            groups.append(_group(members, shared))
            members = []
        shared = min(shared, alike[k - 1]) if members else len(prompt) - 1
        members.append((prompt, row))
    return groups + ([_group(members, shared)] if members else [])


def _joins(before: int, after: int, shared: int, members: int, length: int) -> bool:
    """Whether a prompt joins the group before it, or rather begins one with the prompt after it."""
    floor = 0.8 * shared if members > 1 else max(LEAST_SHARED, length / 3)
    return before >= max(floor, 0.8 * after) and members < GROUP_ROWS


def _group(members: list[tuple[list[int], Row]], shared: int) -> Group:
    for prompt, row in members:
        row.tail = prompt[shared:]
    return Group(members[0][0][:shared], [row for _, row in members])


def with_options(groups: list[Group]) -> list[Group]:
    """The groups with what begins each row's options (`row.ids`) after its prompt, in `tail`."""
    for group in groups:
        for row in group.rows:
            row.tail = row.tail + row.ids
    return groups


def common(one: list[int], two: list[int]) -> int:
    """Length of the common beginning."""
    places = range(min(len(one), len(two)))
    return bisect_left(places, True, key=lambda k: one[: k + 1] != two[: k + 1])


def chunked(queue: Iterable[Group], tokens: int, known: int = 0) -> list[list[Group]]:
    """Groups in order, so that prefixes and tails of a chunk, padded, stay within the budget.

    The first `known` tokens of every prefix are not counted: they need not be read.
    """
    chunks: list[list[Group]] = []
    prefix = tail = lanes = 0
    for group in queue:
        own = len(group.prefix) - known
        prefix, tail, lanes = max(prefix, own), max(tail, group.longest), lanes + group.lanes
        if not chunks or (len(chunks[-1]) + 1) * prefix + lanes * tail > tokens:
            chunks.append([])
            prefix, tail, lanes = own, group.longest, group.lanes
        chunks[-1].append(group)
    return chunks


def divided(groups: list[Group], shares: int) -> list[list[Group]]:
    """The groups in shares of like work, always the same ones, each share in the order of shapes.

    The largest group goes to the least share, and so on; then a group is cut in two where it pays.
    """
    parts: list[list[Group]] = [[] for _ in range(shares)]
    work = [0] * shares
    for group in sorted(groups, key=lambda group: group.work, reverse=True):
        least = work.index(min(work))
        parts[least].append(group)
        work[least] += group.work
    for _ in range(shares - 1):
        _even_out(parts, work)
    parts = [sorted(part, key=lambda group: group.shape, reverse=True) for part in parts]
    return [part for part in parts if part]


def _even_out(parts: list[list[Group]], work: list[int]) -> None:
    """Move rows of the greatest share to the least one, unless their prefix costs more than that.

    The prefix has to be read in both shares then.
    """
    most, least = work.index(max(work)), work.index(min(work))
    over = (work[most] - work[least]) // 2
    group = max(parts[most], key=lambda group: len(group.rows), default=None)
    if group is None:
        return
    moved = min(len(group.rows) - 1, over * len(group.rows) // max(1, group.work))
    if moved <= 0 or moved * group.work // len(group.rows) <= len(group.prefix):
        return
    kept, gone = Group(group.prefix, group.rows[:-moved]), Group(group.prefix, group.rows[-moved:])
    parts[most][parts[most].index(group)] = kept
    parts[least].append(gone)
    work[most], work[least] = work[most] - gone.work, work[least] + gone.work
