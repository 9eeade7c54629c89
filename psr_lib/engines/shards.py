"""Which worker gets which prompts of a call."""

ALIKE = 0.5  # share of a prompt that a neighbour must begin with to stay beside it


def shards(prompts: list[str], workers: int) -> list[list[int]]:
    """Indices of the prompts of each worker: about equal lengths, alike neighbours together.

    Neighbours that begin alike share a prefill, so they stay with one worker; the blocks go, the
    longest first, to the worker with the least to do. The same prompts give the same shards.
    """
    most = max(1, -(-len(prompts) // (4 * workers)))  # four blocks a worker at least
    blocks: list[list[int]] = []
    for i, prompt in enumerate(prompts):
        alike = blocks and len(blocks[-1]) < most and _alike(prompts[blocks[-1][0]], prompt)
        if alike:
            blocks[-1].append(i)
        else:
            blocks.append([i])
    loads = [0] * workers
    found: list[list[int]] = [[] for _ in range(workers)]
    size = {block[0]: sum(len(prompts[i]) for i in block) for block in blocks}
    for block in sorted(blocks, key=lambda block: (-size[block[0]], block[0])):
        least = loads.index(min(loads))
        found[least] += block
        loads[least] += size[block[0]]
    return [sorted(share) for share in found]


def _alike(one: str, two: str) -> bool:
    length = int(ALIKE * max(len(one), len(two)))
    return one[:length] == two[:length]
