"""The tokens of each stage of a run, before it runs: written, read and trained on.

What settings fix is counted from them; the rest is `expected`.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from psr_lib import benchmarks, expected, manifest, search_tokens, symbolic
from psr_lib.methods import BASE, DATA, DPO, EVALUATE, INIT, MAIN, SEARCH, SRLM
from psr_lib.presets import Preset
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key
from psr_lib.stages import stage_preset
from psr_lib.work import Case, Work

REFERENCE_PASS = 1 / 3  # a forward pass costs a third of forward and backward
PRM800K = 75_000  # solutions in it (Lightman et al., arXiv 2305.20050)
SIZES = {  # problems of the sets that are read from the hub, or made
    "gsm8k": 1319, "math": 5000, "gaokao2023en": 385, "olympiadbench": 675, "aime2024": 30,
    "amc2023": 40, "math500": 500, "svamp": 1000, "multiarith": 600,
    symbolic.NAME: symbolic.SIZE,
}  # fmt: skip


def of_stages(case: Case, keys: Iterable[Key]) -> list[Work]:
    """The work of these stages, part by part, in order."""
    return [work for key in keys for work in STAGES[key.stage](_seen(case, key), key)]


def _seen(case: Case, key: Key) -> Case:
    """The case with the preset as the stage sees it."""
    return replace(case, preset=stage_preset(case.preset, key))


def _base(case: Case, key: Key) -> list[Work]:
    return [Work(key, "look at the base model", "generate")]


def _data(case: Case, key: Key) -> list[Work]:
    """Nothing for a device, unless EFT comes from the chain (paper section 3.2)."""
    if case.preset.data.eft_from != "chain":
        return [Work(key, "rows", "generate")]
    if key.method == SRLM:
        return [*_policy(case, key), _solutions(case, key)]
    if case.shipped:
        return [Work(key, "rows; EFT ships with the repository", "generate")]
    return [*_policy(case, key), *_prm(case, key), *search_tokens.of_trees(case, key)]


def _solutions(case: Case, key: Key) -> Work:
    """The policy's solutions that the baseline's EFT is made of."""
    count = case.preset.tree.questions * case.preset.srlm.eft_solutions
    return Work(key, f"{count:,} solutions to score", "generate",
                generated=count * case.model(1).answer_tokens,
                read=case.preset.tree.questions * case.rows.asked())  # fmt: skip


def _policy(case: Case, key: Key) -> list[Work]:
    if case.preset.tree.policy == "base":
        return []
    tokens = case.preset.data.ift * case.rows.asked(case.model(1).answer_tokens)
    trained = tokens * case.preset.tree.policy_epochs
    return [Work(key, "policy of the tree search", "train", trained=trained, section="sft")]


def _prm(case: Case, key: Key) -> list[Work]:
    settings, answer = case.preset.prm, case.model(1).answer_tokens
    count = settings.solutions if settings.labels in ("oracle", "rule") else PRM800K
    found = _labels(case, key) if settings.labels == "rule" else []
    if settings.model:
        return found
    tokens = count * case.rows.asked(answer) + sum(work.read + work.generated for work in found)
    return [*found, Work(key, "step PRM", "train", trained=tokens * settings.epochs,
                         base=settings.base, section="prm")]  # fmt: skip


def _labels(case: Case, key: Key) -> list[Work]:
    """The rule labels a sampled step too beside each step of a solution, which is a row."""
    model = case.model(1)
    count = case.preset.prm.solutions * model.steps.value
    return [Work(key, f"{count:,.0f} steps to label", "generate",
                 generated=count * model.step_tokens.value,
                 read=count * case.rows.asked(model.answer_tokens / 2))]  # fmt: skip


def _init(case: Case, key: Key) -> list[Work]:
    """SFT on IFT and EFT; the baseline's EFT holds whole solutions."""
    data, rows, model = case.preset.data, case.rows, case.model(1)
    answer, shown = model.answer_tokens, _judged_row(case, key.method, 1)
    eft = 0 if data.eft_from == "none" else data.eft
    tokens = data.ift * rows.asked(answer) + eft * (shown + model.verdict_tokens.value)
    trained = tokens * case.preset.sft.epochs
    return [Work(key, f"SFT on {data.ift:,} + {eft:,} rows", "train", trained=trained,
                 section="sft")]  # fmt: skip


def _search(case: Case, key: Key) -> list[Work]:
    return [search_tokens.of_round(case, key)]


def _dpo(case: Case, key: Key) -> list[Work]:
    """Both siblings of every pair, once through the reference and `epochs` times through DPO.

    The baseline has one pair of whole solutions a question, at most.
    """
    model, epochs = case.model(key.n - 1), case.preset.dpo.epochs
    count, answer = search_tokens.pairs(case, key.n), model.answer_tokens
    row = case.rows.asked(answer / 2) + model.step_tokens.value
    if key.method == SRLM:
        count, row = float(case.preset.data.questions[key.n - 2]), case.rows.asked(answer)
    each = {"sft-chosen": row * epochs, "ift-more": case.rows.asked(answer) * epochs}
    pair = 2 * row * (epochs + REFERENCE_PASS) + _replayed(case, key) * epochs
    trained = count * each.get(key.method, pair)
    what = f"step-wise DPO on about {count:,.0f} pairs"
    what = what if key.method not in each else f"{key.method}, as many updates"
    return [Work(key, what, "train", trained=trained, section="dpo")]


def _replayed(case: Case, key: Key) -> float:
    """Tokens of the EFT row that stands beside a pair, if any does."""
    if not case.preset.dpo.replay:
        return 0.0
    model = case.model(key.n - 1)
    return _judged_row(case, key.method, key.n - 1) + model.verdict_tokens.value


def _judged_row(case: Case, method: str, n: int) -> float:
    """What M[n] reads to judge a pair of steps, or to score a solution (the baseline's models)."""
    answer, step = case.model(n).answer_tokens, case.model(n).step_tokens.value
    scores = method == SRLM and n
    return case.rows.shown(answer, 0.0) if scores else case.rows.shown(answer / 2, step)


def _evaluate(case: Case, key: Key) -> list[Work]:
    found = [_greedy(case, key), _heldout(case, key)]
    searched = key.n in case.preset.eval.search_rounds and key.method == MAIN
    return found + ([_test_time(case, key)] if searched and case.preset.data.search_size else [])


def sizes(preset: Preset) -> dict[str, int]:
    """Problems of each benchmark; 0 where the set is not at hand and its size not known."""
    data = preset.data
    return {name: data.benchmark_size or _size(preset, name) for name in data.benchmarks}


def _size(preset: Preset, name: str) -> int:
    data = preset.data
    if data.benchmark_folder != "hub":
        try:
            folder = manifest.root() / data.benchmark_folder
            return len(benchmarks.load(folder, (name,), 0, data.split)[name])
        except PSRError:
            pass
    return SIZES.get(name, 0)


def answers(preset: Preset, n: int) -> dict[str, int]:
    """Answers of M[n] to each benchmark: a greedy one to every problem, `eval.samples` more on
    small sets; M0's with its own prompts too."""
    settings, found = preset.eval, {}
    for name, size in sizes(preset).items():
        more = settings.samples if size <= settings.samples_up_to else 0
        found[name] = size * (1 + more + (bool(settings.own_prompts) and not n))
    return found


def _greedy(case: Case, key: Key) -> Work:
    """What it writes to the benchmarks."""
    total, counts = 0.0, answers(case.preset, key.n)
    for name, count in counts.items():
        answer = expected.on_benchmark(name, case.model(key.n), key.n, case.large)
        total += count * min(answer, case.preset.eval.max_tokens)
    asked = sum(counts.values())
    return Work(key, f"{asked:,} answers to the benchmarks", "generate", generated=total,
                read=asked * case.rows.asked())  # fmt: skip


def _heldout(case: Case, key: Key) -> Work:
    """A verdict a pair; M0 sees worked examples first. The baseline scores each solution anew."""
    data, model = case.preset.data, case.model(key.n)
    count = 0 if data.eft_from == "none" else data.eft_heldout
    verdict = model.verdict_tokens.value
    shown = _judged_row(case, key.method, key.n)
    if key.method == SRLM and key.n:
        asked = count * case.preset.srlm.scores
        return Work(key, f"{count:,} held-out solutions", "generate", judged=asked * verdict,
                    read=asked * shown)  # fmt: skip
    shots = 0 if key.n else case.preset.eval.judge_shots
    return Work(key, f"{count:,} held-out pairs", "generate", judged=count * verdict,
                read=count * (shown + shots * (shown + verdict)))  # fmt: skip


def _test_time(case: Case, key: Key) -> Work:
    """No roll-back there: an expansion a step."""
    most = case.preset.data.search_size
    count = sum(min(size, most) for size in sizes(case.preset).values())
    steps = min(case.model(key.n).steps.value, case.preset.search.max_iterations)
    what = f"test-time search, {count:,} problems"
    return search_tokens.judged(case, key, what, count * steps, key.n)


STAGES: dict[str, Callable[[Case, Key], list[Work]]] = {
    BASE: _base, DATA: _data, INIT: _init, SEARCH: _search, DPO: _dpo, EVALUATE: _evaluate,
}  # fmt: skip
