"""The transformers engine against transformers' own generate and against brute force."""

import math
import os
import weakref
from collections import deque
from functools import partial

import pytest
import tiny_model
import torch

from psr_lib.engines import attention, forks
from psr_lib.engines.base import Completion, Engine, Usage
from psr_lib.engines.batch import PlainBatch, SharedBatch, merged
from psr_lib.engines.groups import GROUP_ROWS, Group, Row, chunked, divided, grouped
from psr_lib.engines.hf import HFEngine, Run
from psr_lib.engines.roots import LEAST, Roots
from psr_lib.engines.sampling import cut, next_tokens, nucleus, uniform
from psr_lib.records import PSRError

PIECES = "Tom has pens buys How many does Step Problem x The answer is 3 9 1 . : ?"
WORDS = PIECES.split(" ")


def text(k: int, length: int) -> str:
    """A prompt of known tokens that differs by k."""
    return " ".join(WORDS[(k * 7 + i * (k + 1)) % len(WORDS)] for i in range(length))


def prompts_of(count: int) -> list[str]:
    """Prompts of many lengths, several with a long common beginning, some equal."""
    shared = text(3, 30)
    some = [text(k, 1 + 3 * (k % 9)) for k in range(count)]
    return [s if k % 3 else f"{shared} {s}" for k, s in enumerate(some)] + some[:2]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_model.word_tokenizer()


def engine_of(tokenizer, **settings):
    """A fresh engine over a fixed random model; `heads` and `plain` change its kind."""
    plain = settings.pop("plain", False)
    sizes = {"num_attention_heads": 4, "num_key_value_heads": settings.pop("heads", 2)}
    model = tiny_model.random_model(len(tokenizer), **sizes)
    engine = HFEngine(model, tokenizer, **({"workers": 1} | settings))
    if plain:
        engine.batch_class = PlainBatch
    return engine


def sample(engine, prompts, **changes):
    """Sample with short defaults."""
    settings = {"n": 1, "temperature": 1.0, "top_p": 0.95, "max_tokens": 12, "stop": []}
    settings |= {"seeds": list(range(len(prompts)))}
    return engine.sample(prompts, **(settings | changes))


def reference(engine, prompt, count):
    """Greedy token ids by transformers."""
    ids = torch.tensor([engine.tokenizer(prompt).input_ids])
    model = engine.model
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=ids * 0 + 1, do_sample=False, max_new_tokens=count)
    return out[0, ids.shape[1] :].tolist()


def test_it_is_an_engine(tokenizer):
    engine = engine_of(tokenizer)
    assert isinstance(engine, Engine) and engine.honours_seeds
    assert engine.batch_class is not PlainBatch  # a Llama shares prefixes


@pytest.mark.parametrize(("heads", "plain"), [(4, False), (2, False), (1, False), (2, True)])
def test_greedy_equals_transformers_generate(tokenizer, heads, plain):
    engine = engine_of(tokenizer, heads=heads, plain=plain, max_rows=7, batch_tokens=400)
    prompts = prompts_of(20)
    found = sample(engine, prompts, temperature=0.0, max_tokens=16)
    for prompt, (completion,) in zip(prompts, found, strict=True):
        ids = reference(engine, prompt, 16)
        ended = ids[-1] == 1
        assert completion.text == tokenizer.decode(ids[:-1] if ended else ids)
        assert completion.tokens == len(ids)
        assert completion.finish == ("eos" if ended else "length")
        assert completion.prompt_tokens == len(tokenizer(prompt).input_ids)


@pytest.mark.parametrize("plain", [False, True])
def test_a_row_alone_gives_the_same_text_as_in_any_batch(tokenizer, plain):
    engine, prompts = engine_of(tokenizer, plain=plain), prompts_of(16)
    together = sample(engine, prompts, n=3)
    small = engine_of(tokenizer, plain=plain, max_rows=4, batch_tokens=200)
    assert sample(small, prompts, n=3) == together
    order = list(range(len(prompts)))[::-1]
    turned = sample(small, [prompts[i] for i in order], n=3, seeds=order)
    assert turned[::-1] == together
    for i in (0, 5, 9):
        assert sample(engine, [prompts[i]], n=3, seeds=[i])[0] == together[i]
        assert sample(engine, [prompts[i]], n=1, seeds=[i])[0] == together[i][:1]


def test_shared_prefix_and_plain_batches_agree(tokenizer):
    prompts = prompts_of(16)
    kinds = [engine_of(tokenizer, plain=plain) for plain in (False, True)]
    shared, plain = (sample(engine, prompts, n=2) for engine in kinds)
    assert shared == plain
    assert max(engine.usage.prefill for engine in kinds) < kinds[0].usage.prompt
    judge_like = [f"{text(1, 100)} {text(k, 5)}" for k in range(12)]
    for engine in kinds:
        engine.usage = Usage()
        sample(engine, judge_like)
    assert kinds[0].usage.prefill < kinds[1].usage.prefill / 3


def length(tokenizer, prompt):
    """Tokens of a text."""
    return len(tokenizer(prompt).input_ids)


def begun(tokenizer, prompts, **settings):
    """What a fresh engine writes after these, and the prompt tokens that it read."""
    engine = engine_of(tokenizer, **settings)
    return sample(engine, prompts, n=2), engine.usage.prefill


def test_what_all_problems_begin_with_is_read_once(tokenizer):
    instruction = text(1, 100)
    problems = [f"{instruction} {text(k, 20 + k)}" for k in range(2, 14)]
    found, read = begun(tokenizer, problems)
    alone = [begun(tokenizer, [problem])[0][0] for problem in problems[:1]]
    assert found == begun(tokenizer, problems, plain=True)[0] and found[0] == alone[0]
    lengths = [length(tokenizer, problem) for problem in problems]
    common = length(tokenizer, instruction)
    own = sum(n - common for n in lengths)
    assert own + common - len(problems) <= read <= own + common
    assert begun(tokenizer, problems, plain=True)[1] == sum(lengths)


def test_a_root_is_remembered_as_long_as_it_serves_and_the_weights_are_the_same(tokenizer):
    engine, instruction = engine_of(tokenizer), text(1, 100)
    one, *rest = [f"{instruction} {text(k, 20)}" for k in range(2, 3 + 2 * GROUP_ROWS)]

    def read(prompts):
        before = engine.usage.prefill
        return sample(engine, prompts), engine.usage.prefill - before

    common, whole = length(tokenizer, instruction), length(tokenizer, one)
    assert read([one])[1] == whole  # nobody shares it yet
    assert read(rest)[1] <= common + len(rest) * (whole - common)
    found, again = read([one])
    assert again <= whole - common and found == sample(engine_of(tokenizer), [one])
    assert read([text(1, 40)])[1] == 1  # as far as it goes: the last token is run for its logits
    other = [f"{text(1, 60)} {text(k, 20)}" for k in range(2, 2 + 2 * GROUP_ROWS)]
    assert read(other)[0] == sample(engine_of(tokenizer), other)  # a shorter one
    assert read(rest)[0] == sample(engine_of(tokenizer), rest)  # a longer one again
    with torch.no_grad():
        engine.model.get_input_embeddings().weight.mul_(1.5)
    fresh = engine_of(tokenizer)
    with torch.no_grad():
        fresh.model.get_input_embeddings().weight.mul_(1.5)
    assert read(rest) == (sample(fresh, rest), fresh.usage.prefill)


def test_more_equal_prompts_than_a_group_holds_are_read_once(tokenizer):
    prompt = text(4, 60)
    found, read = begun(tokenizer, [prompt] * 40)
    assert read == length(tokenizer, prompt) - 1 + 5  # 80 rows are five groups; the last tokens
    assert found == begun(tokenizer, [prompt] * 40, plain=True)[0]


def test_a_root_of_few_is_not_worth_a_pass_of_its_own(tokenizer):
    asked = []

    def read(ids):
        asked.append(ids)
        return []

    alike = [Group([5] * 400 + [k], []) for k in range(3)]
    others = [Group([k] * 100, []) for k in range(6, 12)]
    assert Roots().over([*alike, *others], read) == [(None, [*alike, *others])] and not asked
    many = [Group([5] * 400 + [k], []) for k in range(4)]
    (root, rooted), (none, rest) = Roots().over([*others, *many], read)
    assert root.ids == [5] * 400 and asked == [root.ids]
    assert (rooted, none, rest) == (many, None, others)
    ((root, rooted),) = Roots().over(alike, read)  # no other pass is needed
    assert root.ids == [5] * 400 and rooted == alike
    short = [Group([5] * (LEAST - 1), []), Group([5] * (LEAST - 1), [])]
    assert Roots().over(short, read) == [(None, short)] and Roots().over([], read) == []


def test_scores_after_a_root_are_those_of_the_whole_prompt(tokenizer):
    prompts = [f"{text(1, 100)} {text(k, 3 * k)}" for k in range(2, 14)]
    lists = [["[[A]]", " 3 9."], ["pens"]] * 6
    scores = [engine_of(tokenizer, plain=plain).choose(prompts, lists) for plain in (False, True)]
    for one, two in zip(*scores, strict=True):
        assert one == pytest.approx(two, abs=1e-4)


def rows_of(count, tail=10, room=40):
    return [Row((0, k), [1] * tail, k, room) for k in range(count)]


def test_shares_have_like_work_and_lose_no_row():
    groups = [Group([7] * 30, rows_of(n)) for n in (6, 6, 6, 6, 6, 6, 6)]
    parts = divided(groups, 2)
    assert [sum(len(group.rows) for group in part) for part in parts] == [21, 21]
    uneven = [Group([k] * 5, rows_of(n)) for k, n in enumerate((12, 1, 2, 1, 3, 1))]
    for shares in (1, 2, 3, 5):
        parts = divided(uneven, shares)
        seen = [row.place for part in parts for group in part for row in group.rows]
        assert len(seen) == 20 and len(parts) == min(shares, 20)
        assert parts == divided(uneven, shares)
    work = [sum(group.work for group in part) for part in divided(uneven, 2)]
    assert max(work) - min(work) <= 50


def test_a_group_is_not_cut_where_its_prefix_would_cost_more():
    groups = [Group([7] * 500, rows_of(2)), Group([8] * 500, rows_of(4))]
    assert sorted(len(group.rows) for part in divided(groups, 2) for group in part) == [2, 4]
    assert divided([], 2) == []


def test_many_rows_that_come_and_go_are_as_if_each_stood_alone(tokenizer):
    # More rows and groups than one span of either attention holds, with waiting ones moving in.
    prompts = [f"{text(3, 30)} {text(k, 1 + k % 23)}" for k in range(150)] + prompts_of(100)
    shared = engine_of(tokenizer, max_rows=2 * attention.TAIL_SPAN + 10)
    found = sample(shared, prompts, max_tokens=20)
    assert found == sample(engine_of(tokenizer, plain=True, max_rows=30), prompts, max_tokens=20)
    assert len({c.tokens for (c,) in found}) > 3


def test_several_workers_give_what_one_gives(tokenizer):
    prompts, seen = prompts_of(16), []
    engine = engine_of(tokenizer, workers=3, max_rows=8)
    engine.progress = lambda done, total, written: seen.append((done, total, written))
    threads = torch.get_num_threads()
    found = sample(engine, prompts, n=2)
    assert found == sample(engine_of(tokenizer), prompts, n=2)
    assert torch.get_num_threads() == threads
    counts = [row[:2] for row in seen]
    assert counts[-1] == (36, 36) and sorted(counts) == counts
    told = sorted(row for _, _, written in seen for row in written)
    assert told == sorted((i, c.text) for i, row in enumerate(found) for c in row)


def waiting(tokenizer, count, room=12):
    """Groups that are waiting for an engine."""
    ids = tokenizer(prompts_of(count)).input_ids
    return grouped([(prompt, Row((i, 0), [], i, room)) for i, prompt in enumerate(ids)])


def held(batch):
    """Columns of a batch's cache: prefixes, and tails as they are allocated."""
    layer = batch.cache.layers[0]
    return sum(len(x) * x.shape[2] for x in (layer.shared_keys, layer.keys))


def test_the_batches_of_all_workers_keep_to_the_budget_together(tokenizer):
    filled = []
    for workers in (1, 2, 3):
        engine, queue = engine_of(tokenizer, workers=workers, batch_tokens=1200), deque()
        queue.extend(waiting(tokenizer, 40))
        with torch.inference_mode():
            batch = Run(engine, 1.0, 1.0, [])._fill(queue, None)
        assert batch.rows and queue and batch.extent.columns <= 1200 / workers
        filled.append(len(batch.rows))
    assert filled == sorted(filled, reverse=True) and len(set(filled)) == 3


def test_no_batch_outgrows_the_budget_with_its_padding(tokenizer, monkeypatch):
    monkeypatch.setattr(attention, "GROWTH", 1)  # a reserve, which small batches would notice
    most, step = [], SharedBatch.step

    def watched(self, *args):
        step(self, *args)
        most.append(held(self))

    monkeypatch.setattr(SharedBatch, "step", watched)
    engine = engine_of(tokenizer, batch_tokens=900)
    found = sample(engine, prompts_of(30), max_tokens=30, stop=["9"])
    assert 450 < max(most) <= 900
    assert found == sample(engine_of(tokenizer), prompts_of(30), max_tokens=30, stop=["9"])


def test_batches_are_merged_without_their_caches_standing_there_twice(tokenizer):
    engine = engine_of(tokenizer)
    with torch.inference_mode():
        parts = [SharedBatch([group], engine.model, engine.pad_id)
                 for group in waiting(tokenizer, 6)]  # fmt: skip
        caches = [part.cache for part in parts]
        old = [weakref.ref(cache.layers[0].shared_keys) for cache in caches]
        whole = merged(parts)
    assert len(whole.cache.layers) == engine.model.config.num_hidden_layers
    assert [ref() for ref in old] == [None] * len(caches) and len(caches) > 1
    assert not any(cache.layers for cache in caches)


def test_threads_give_what_forks_give(tokenizer, monkeypatch):
    engine, prompts = engine_of(tokenizer, workers=2), prompts_of(16)
    options = ["[[A]]", " 3 9."]
    calls = sample(engine, prompts, n=2), engine.usage.copy(), engine.choose(prompts, options)
    monkeypatch.setattr(forks, "POSSIBLE", False)
    engine = engine_of(tokenizer, workers=2)
    assert calls == (
        sample(engine, prompts, n=2), engine.usage.copy(), engine.choose(prompts, options)
    )  # fmt: skip


def test_workers_serve_call_after_call_until_the_engine_changes(tokenizer):
    engine, prompts = engine_of(tokenizer, workers=2), prompts_of(16)

    def pids():
        return [child.pid for child in engine._workers.children]

    first = sample(engine, prompts)
    known = pids()
    assert (
        sample(engine, prompts) == first
        and engine.choose(prompts, [" 3", " 9"])
        and known == pids()
    )
    with torch.no_grad():
        engine.model.get_output_embeddings().weight.neg_()
    changed = sample(engine, prompts)
    assert changed != first and known != pids()
    engine.workers = 1
    assert sample(engine, prompts) == changed


def test_items_are_spread_over_processes(tokenizer):
    engine, prompts = engine_of(tokenizer, workers=2), prompts_of(9)

    def work(part, of):
        for place, prompt in part:
            yield place, sample(of, [prompt], seeds=[place], n=2), os.getpid()

    one = engine_of(tokenizer)
    expected = [found[:2] for found in one.spread(partial(work, of=one), list(enumerate(prompts)))]
    found = list(engine.spread(partial(work, of=engine), list(enumerate(prompts))))
    assert sorted(row[:2] for row in found) == expected
    assert engine.usage == one.usage and engine.workers == 2
    if engine.shards > 1:
        pids = {place: pid for place, _, pid in found}
        assert len(set(pids.values())) == 2 and os.getpid() not in pids.values()
        assert len({pids[place] for place in range(0, 9, 2)}) == 1  # dealt in turn


def test_only_a_small_models_problems_are_divided(tokenizer, monkeypatch):
    engine = engine_of(tokenizer, workers=2)
    assert engine.spreads == (engine.shards > 1)
    monkeypatch.setattr(forks, "SMALL", engine.model.num_parameters() - 1)
    assert not engine.spreads


@pytest.mark.parametrize(("temperature", "most"), [(1e-6, 1), (50.0, 6)])
def test_siblings_are_decoded_once_until_they_part(tokenizer, monkeypatch, temperature, most):
    lanes, run = [], SharedBatch._run

    def noted(batch, ids, *args, **settings):
        lanes.append(len(ids))
        return run(batch, ids, *args, **settings)

    monkeypatch.setattr(SharedBatch, "_run", noted)
    (found,) = sample(engine_of(tokenizer), [text(1, 9)], n=6, temperature=temperature, top_p=1.0)
    assert lanes[0] == 1 and max(lanes) == len({c.text for c in found}) == most


def test_siblings_and_seeds_differ(tokenizer):
    engine = engine_of(tokenizer)
    prompt = text(1, 9)
    found = sample(engine, [prompt, prompt], n=6, top_p=1.0)
    texts = [c.text for completions in found for c in completions]
    assert len(set(texts)) == 12
    assert sample(engine, [prompt], n=6, top_p=1.0, seeds=[1])[0] == found[1]
    greedy = sample(engine, [prompt], n=3, temperature=0.0)[0]
    assert len(set(greedy)) == 1 and engine.usage.rows == 12 + 6 + 3


def test_stop_strings_cut_exactly(tokenizer):
    engine = engine_of(tokenizer)
    prompts = [text(k, 8) for k in range(12)]
    free = sample(engine, prompts, max_tokens=60, top_p=1.0)
    for stop in (["."], ["\n", "is"], [" Step"], ["9 1", "]]"]):
        found = sample(engine, prompts, max_tokens=60, top_p=1.0, stop=stop)
        for (whole,), (short,) in zip(free, found, strict=True):
            ends = [whole.text.find(s) for s in stop if s in whole.text]
            assert short.text == whole.text[: min(ends)] if ends else short == whole
            assert (short.finish == "stop") == bool(ends)
            assert short.tokens <= whole.tokens


def test_stop_strings_over_byte_level_tokens():
    tokenizer = tiny_model.merging_tokenizer()
    engine = engine_of(tokenizer)
    prompts = [f"Step {k}: T" for k in range(8)]
    free = sample(engine, prompts, max_tokens=50, top_p=1.0)
    for stop in (["p 1"], ["\nStep"], ["e"], [" "]):
        found = sample(engine, prompts, max_tokens=50, top_p=1.0, stop=stop)
        for (whole,), (short,) in zip(free, found, strict=True):
            assert short.text == whole.text.split(stop[0])[0]


def test_eos_ends_a_row_and_is_not_in_the_text(tokenizer):
    engine = engine_of(tokenizer)
    found = sample(
        engine, [text(k, 5) for k in range(40)], max_tokens=40, top_p=1.0, temperature=3.0
    )
    ended = [c for (c,) in found if c.finish == "eos"]
    assert ended and all("<eos>" not in c.text and c.tokens <= 40 for c in ended)
    assert all(c.tokens == 40 for (c,) in found if c.finish == "length")


def test_prompts_that_leave_no_room_overflow(tokenizer):
    engine = engine_of(tokenizer)
    context = engine.context
    long, full = "3" * (context + 5), "3" * context
    near, short = "3" * (context - 4), "3"
    found = sample(
        engine, [long, short, full, near], n=2, max_tokens=9, top_p=1.0, seeds=[1, 2, 3, 5]
    )
    assert found[0] == [Completion("", 0, "overflow", context + 5)] * 2
    assert found[2][0].finish == "overflow" and engine.usage.overflow == 4
    assert all(c.tokens <= 4 for c in found[3]) and all(c.tokens > 0 for c in found[1] + found[3])
    assert engine.choose([full, near], ["3"])[0] == [-math.inf]


def test_choose_equals_brute_force(tokenizer):
    prompts, options = prompts_of(9), ["[[A]]", " 3 9.", "Step 1: 14", ""]
    for plain in (False, True):
        engine = engine_of(tokenizer, plain=plain)
        found = engine.choose(prompts, options)
        for prompt, scores in zip(prompts, found, strict=True):
            before = tokenizer(prompt).input_ids
            for option, score in zip(options, scores, strict=True):
                extra = tokenizer(option).input_ids
                with torch.inference_mode():
                    logits = engine.model(torch.tensor([before + extra])).logits[0]
                logs = torch.log_softmax(logits, -1)
                total = sum(float(logs[len(before) - 1 + i, t]) for i, t in enumerate(extra))
                assert score == pytest.approx(total, abs=1e-4)
    own = engine.choose(prompts[:2], [["3"], ["9", "3"]])
    assert own[1][1] == pytest.approx(engine.choose(prompts[1:2], ["3"])[0][0], abs=1e-5)


def test_options_that_part_at_their_last_token_cost_one_row(tokenizer):
    prompts = [f"Step {k}: Ana has {k} apples." for k in range(1, 7)]
    engine = engine_of(tokenizer, workers=1)
    one = [engine.choose([prompt], [option])[0][0] for prompt in prompts for option in "39"]
    whole = sum(len(tokenizer(prompt).input_ids) for prompt in prompts)
    assert engine.usage.prefill == 2 * whole
    both = engine.choose([*prompts, prompts[0]], ["3", "9"])
    assert [x for row in both[:6] for x in row] == pytest.approx(one, abs=1e-5)
    assert both[6] == both[0] and engine.usage.prefill <= 3 * whole


def test_sampling_follows_the_softmax():
    torch.manual_seed(0)
    rows, logits = 40_000, torch.randn(12) * 1.5
    many, seeds = logits.expand(rows, -1), torch.arange(rows)
    for temperature, top_p in ((1.0, 1.0), (0.7, 1.0), (1.0, 0.8)):
        drawn = next_tokens(many, temperature, top_p, seeds, torch.full((rows,), 3))
        kept, ids = nucleus(torch.softmax(logits / temperature, -1)[None], top_p)
        expected = torch.zeros(12).scatter(0, ids[0], kept[0])
        expected = expected / expected.sum() * rows
        counts = torch.bincount(drawn, minlength=12)
        inside = expected > 0
        assert int(counts[~inside].sum()) == 0
        chi_square = ((counts - expected)[inside] ** 2 / expected[inside]).sum()
        assert chi_square < 31.3  # 11 degrees of freedom, p = 0.001


def test_nucleus_is_the_smallest_set_that_reaches_top_p():
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    for top_p, size in ((0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (0.99, 4)):
        assert int((cut(probs.double(), top_p) > 0).sum()) == size, top_p


def test_a_large_vocabulary_is_cut_as_a_small_one():
    torch.manual_seed(0)
    logits = torch.randn(6, 9000) * torch.tensor([1.0, 2, 3, 4, 3, 8])[:, None]
    seeds, steps = torch.arange(6), torch.zeros(6, dtype=torch.long)
    probs = torch.softmax(logits, -1)
    top, ids = probs.sort(dim=-1, descending=True, stable=True)
    # Flat rows need the full sort, peaked ones do not.
    for rows, width in ((slice(0, 6), 9000), (slice(4, 6), 512), (slice(5, 6), 64)):
        kept, _ = nucleus(probs[rows], 0.9)
        assert kept.shape[1] == width
        wide = cut(top[rows], 0.9)
        assert torch.equal(kept > 0, wide[:, : kept.shape[1]] > 0)
        mine = next_tokens(logits[rows], 1.0, 0.9, seeds[rows], steps[rows])
        arrival = -torch.log(uniform(seeds[rows], steps[rows], ids[rows])) / wide
        assert torch.equal(mine, ids[rows].gather(1, arrival.argmin(1, keepdim=True))[:, 0])


def test_noise_is_uniform_and_its_keys_are_independent():
    tokens = torch.arange(256)[None]
    base = uniform(torch.arange(400), torch.zeros(400, dtype=torch.long), tokens)
    assert float(base.min()) > 0 and float(base.max()) < 1
    counts = torch.histc(base.float(), 64, 0, 1)
    expected = base.numel() / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 103.5  # 63 degrees, p = 0.001
    flat = (base - 0.5).flatten()
    shifted = [
        uniform(torch.arange(400), torch.ones(400, dtype=torch.long), tokens),
        uniform(torch.arange(400) + 1, torch.zeros(400, dtype=torch.long), tokens),
        uniform(torch.arange(400), torch.zeros(400, dtype=torch.long), tokens + 1),
    ]
    for other in shifted:
        correlation = float((flat * (other - 0.5).flatten()).mean() * 12)
        assert abs(correlation) < 4 / math.sqrt(flat.numel())
    assert base.unique().numel() == base.numel()
    huge = torch.tensor([2**63 - 1, 0]), torch.tensor([0, 10**6])
    assert bool(((u := uniform(*huge, tokens)) > 0).all() and (u < 1).all())


def test_groups_hold_every_row_once_with_its_whole_prompt():
    def prompt(*parts):
        return [token for part in parts for token in part]

    state = [list(range(100, 150)), list(range(200, 260))]
    steps = [list(range(10 * k, 10 * k + 9)) for k in range(4)]
    prompts = [prompt(s, a, [99], b) for s in state for a in steps for b in steps]
    prompts += [[5], [5], [7, 8, 9]]
    items = [(p, Row((i, k), [], 0, 4)) for i, p in enumerate(prompts) for k in range(2)]
    groups = grouped(items)
    seen = {row.place: group.prefix + row.tail for group in groups for row in group.rows}
    assert seen == {row.place: p for p, row in items}
    assert all(row.tail for group in groups for row in group.rows)
    computed = sum(len(g.prefix) + sum(len(r.tail) for r in g.rows) for g in groups)
    assert computed < sum(len(p) for p, _ in items) / 2


def test_chunks_keep_the_order_and_their_padded_size_within_the_budget():
    lengths = [(40, 3), (40, 3), (41, 30), (3, 2), (90, 1), (500, 2), (2, 2), (2, 2), (2, 2)]
    groups = [
        Group([1] * prefix, [Row((k, i), [2] * (tail - i), 0, 5) for i in range(2)])
        for k, (prefix, tail) in enumerate(lengths)
    ]
    chunks = chunked(groups, 200)
    assert [g for chunk in chunks for g in chunk] == groups
    assert max(map(len, chunks)) == 3 and [groups[5]] in chunks  # too long for any budget: alone
    for chunk in chunks:
        rows = sum(group.lanes for group in chunk)
        prefixes = len(chunk) * max(len(group.prefix) for group in chunk)
        assert prefixes + rows * max(g.longest for g in chunk) <= 200 or len(chunk) == 1


def test_other_attentions_are_left_to_the_model():
    class Config:
        model_type, sliding_window, layer_types = "llama", None, None

    assert attention.supports(Config)
    for change in (
        {"model_type": "gpt2"},
        {"sliding_window": 64},
        {"layer_types": ["sliding_attention"]},
    ):
        assert not attention.supports(type("Other", (Config,), change))


def test_the_model_still_works_outside_the_engine(tokenizer):
    model = tiny_model.random_model(len(tokenizer))
    ids = torch.tensor([tokenizer(text(1, 20)).input_ids] * 2)
    with torch.inference_mode():
        before = model(ids).logits
        HFEngine(model, tokenizer)
        assert torch.allclose(model(ids).logits, before, atol=1e-5)


def test_load_reads_a_model_folder(tokenizer, tmp_path):
    folder, _ = tiny_model.make_tiny_model(tmp_path / "model", tokenizer=tokenizer)
    engine = HFEngine.load(folder, device="cpu", batch_tokens=512)
    assert engine.batch_tokens == 512 and engine.model.dtype == torch.float32
    low = HFEngine.load(folder, dtype="bfloat16", device="cpu")
    assert sample(low, [text(1, 9)])[0][0].tokens > 0
    with pytest.raises(PSRError, match="nowhere"):
        HFEngine.load(tmp_path / "nowhere")


def test_bad_calls_are_named(tokenizer):
    engine = engine_of(tokenizer)
    with pytest.raises(PSRError, match="seeds"):
        sample(engine, ["3"], seeds=[1, 2])
    with pytest.raises(PSRError, match="no tokens"):
        sample(engine, [""])
    assert sample(engine, []) == [] and engine.choose([], ["a"]) == []


def test_usage_counts():
    usage = Usage(rows=1, generated=5)
    before = usage.copy()
    usage.add(Usage(rows=2, prompt=7, generated=1))
    assert usage.since(before) == Usage(rows=2, prompt=7, generated=1) and before.rows == 1
