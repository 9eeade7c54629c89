"""What the stage notebooks call: one function for each thing a stage does with its models.

Each takes the open stage, so that what it reads is recorded and what it costs is counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psr_lib import (
    evaluation,
    launch,
    problems,
    prompts,
    reviews,
    round_pairs,
    srlm_rounds,
    tallies,
)
from psr_lib.engines import opening
from psr_lib.engines.base import Engine
from psr_lib.journal import Journal, Questions, search_into
from psr_lib.judge import Judge
from psr_lib.mcts import mcts_stream
from psr_lib.methods import MAIN, REFERENCE
from psr_lib.presets import PROCEDURAL
from psr_lib.progress import show
from psr_lib.records import (
    IFTExample,
    JudgeExample,
    Problem,
    PSRError,
    Question,
    Rows,
    ScoreExample,
    StepPair,
    read_jsonl,
    write_jsonl,
)
from psr_lib.search import search_stream
from psr_lib.traces import SearchTrace, TraceFile, search_stats

STREAMS = {"step": search_stream, "mcts": mcts_stream}  # how M[n-1] goes through the steps


def open_engine(stage: Any, n: int) -> Engine:
    """M[n] of the stage's method, ready to generate, in the engine that the preset names.

    The method `reference` has no weights here: it is the API model of the preset's `reference`.
    """
    if stage.method == REFERENCE:
        return opening.open_api(stage.preset.engine, stage.preset.engine.model)
    return opening.open_engine(stage.preset.engine, stage.preset.model, stage.model(n), n)


def ask_oracle(question: Question, prefix: list[str], step_a: str, step_b: str) -> str | None:
    """The oracle as a judge, for the control `gold-judge` only; it is no part of the method."""
    return problems.oracle_verdict(question.text, prefix, step_a, step_b)


def make_judge(stage: Any, engine: Engine, shots: Sequence[JudgeExample] = ()) -> Judge:
    """The judge that the preset (or a control) names, playing Eq. 2's round robin."""
    return Judge(
        engine, prompts.load(stage.preset.prompts), engine.tokenizer, stage.preset.judge,
        seed=stage.seed, scoring=stage.preset.search.scoring, oracle=ask_oracle, shots=shots,
    )  # fmt: skip


def make_pairs(stage: Any, engine: Engine) -> Rows:
    """The pairs of round n by M[n-1], and what it did for them: steps, or under `srlm` solutions.

    Returns the traces, which are written with the pairs.
    """
    questions = Rows(stage.input(f"data/questions_{stage.iteration}.jsonl"), Question)
    search = srlm_rounds.search_round if stage.method == "srlm" else search_round
    return search(stage, questions, engine)


def search_round(stage: Any, questions: Questions, engine: Engine) -> TraceFile:
    """Step search of M[n-1] on the questions of round n (Eq. 1-5): traces and pairs, in files.

    A call after one that was cut short goes on with the questions that are left. Counts go to the
    manifest.
    """
    traces = _search(stage, engine, questions, "traces.jsonl.gz", "search")
    pairs = (pair for trace in traces for pair in trace.pairs)
    write_jsonl(stage.output("ppd.jsonl"), pairs)
    stage.count(**_spent(stage, traces))
    return traces


def _search(
    stage: Any, engine: Engine, questions: Questions, name: str, label: str,
    golds: Mapping[str, str] | None = None, **how: Any,
) -> TraceFile:  # fmt: skip
    """Search into a file of the stage, by way of a journal that survives a kill.

    `golds`: answers by question, for the line of progress alone.
    """
    journal = Journal(stage.scratch(name), stage.made_from)
    family, judge = prompts.load(stage.preset.prompts), make_judge(stage, engine)
    stream = STREAMS[stage.preset.search.kind]
    with tallies.searching(journal, len(questions), label, golds) as told:
        search_into(
            journal, questions, lambda asked: stream(
                engine, family, engine.tokenizer, asked, stage.preset.search, judge, stage.seed,
                **how,
            ), told,
        )  # fmt: skip
    write_jsonl(stage.output(name), journal.rows())
    journal.close()
    return TraceFile(stage.folder / name)


def _spent(stage: Any, traces: Iterable[SearchTrace]) -> dict[str, float | int]:
    """The counts of a search; its tokens are added to the stage's."""
    stats = search_stats(traces)
    stage.tokens(generated=stats["generated_tokens"], judged=stats["judged_tokens"])
    return stats


def solve(
    stage: Any, engine: Engine, sets: Mapping[str, Sequence[Problem]], name: str = ""
) -> list[dict]:
    """Greedy answers to every problem, graded; with the prompts `name` instead of the preset's."""
    family = prompts.load(name or stage.preset.prompts)
    rows = evaluation.greedy_accuracy(
        engine, family, engine.tokenizer, sets, stage.preset.eval.max_tokens
    )
    stage.tokens(generated=sum(row["tokens"] for row in rows))
    return rows


def evaluate_judge(stage: Any, engine: Engine) -> tuple[list[dict], dict[str, Any]]:
    """The model as the judge that it was trained to be, on held-out rows, and the summary.

    Pairs of steps (M0 sees worked examples), or under `srlm` scored solutions.
    """
    if stage.method == "srlm" and stage.iteration:
        rows = srlm_rounds.judge_heldout(stage, engine)
        return rows, srlm_rounds.judge_summary(rows)
    heldout = read_jsonl(stage.input("data/eft_heldout.jsonl"), JudgeExample)
    shots = fixed_shots(stage) if stage.iteration == 0 else []
    rows = judge_heldout(stage, engine, heldout, shots)
    return rows, evaluation.judge_summary(rows)


def judge_heldout(
    stage: Any, engine: Engine, examples: Sequence[JudgeExample], shots: Sequence[JudgeExample]
) -> list[dict]:
    """Verdicts on the held-out pairs by the model itself, and which parts of each are right.

    Parts of an explanation can be told on the laboratory's problems alone.
    """
    skills = reviews.skills if stage.preset.data.source == PROCEDURAL else None
    rows = evaluation.judge_accuracy(
        engine, prompts.load(stage.preset.prompts), engine.tokenizer, examples,
        stage.preset.judge, seed=stage.seed, shots=shots, skills=skills,
    )  # fmt: skip
    stage.tokens(judged=sum(row["tokens"] for row in rows))
    return rows


def searches(stage: Any) -> bool:
    """Whether M[n] is given a test-time search: psrlm's, in the preset's rounds.

    No table has one of another method: the baseline judges no steps, and controls are compared
    greedily.
    """
    named = stage.iteration in stage.preset.eval.search_rounds and stage.preset.data.search_size > 0
    return named and stage.method == MAIN


def search_benchmarks(
    stage: Any, engine: Engine, sets: Mapping[str, Sequence[Problem]]
) -> list[dict]:
    """Test-time search (section 5.2) on the first `data.search_size` problems of each set."""
    size = stage.preset.data.search_size
    small = {name: rows[:size] for name, rows in sets.items()}
    questions = [problem.ask() for rows in small.values() for problem in rows]
    how = {"select": True, "max_tokens": stage.preset.eval.max_tokens}
    name = "search_traces.jsonl.gz"
    golds = {problem.id: problem.answer for rows in small.values() for problem in rows}
    traces = _search(stage, engine, questions, name, "test-time search", golds, **how)
    _spent(stage, traces)
    rows = evaluation.search_rows(small, traces)
    write_jsonl(stage.output("search_answers.jsonl.gz"), rows)
    evaluation.write_csv(stage.output("search_accuracy.csv"), evaluation.accuracy_rows(rows))
    return rows


def fixed_shots(stage: Any) -> list[JudgeExample]:
    """The worked examples for M0's judging: the shortest of EFT's first hundred, labels mixed."""
    rows = read_jsonl(stage.input("data/eft.jsonl"), JudgeExample)[:100]
    rows.sort(key=lambda row: (len(row.question) + sum(map(len, row.prefix)), row.id))
    wanted = stage.preset.eval.judge_shots
    half = [[row for row in rows if row.better == label] for label in "AB"]
    mixed = [row for pair in zip(*half, strict=False) for row in pair]
    return mixed[:wanted]


def sft_examples(stage: Any) -> tuple[list[IFTExample], list[JudgeExample] | list[ScoreExample]]:
    """IFT and EFT of the method's M1; the baseline `srlm` has an EFT of its own."""
    ift = read_jsonl(stage.input("data/ift.jsonl"), IFTExample)
    if stage.method == "srlm":
        return ift, read_jsonl(stage.input(srlm_rounds.EFT), ScoreExample)
    return ift, read_jsonl(stage.input("data/eft.jsonl"), JudgeExample)


def train_m1(stage: Any) -> dict[str, Any]:
    """One mixed SFT of M0 on IFT and EFT (section 3.2); the weights go to the stage's folder."""
    from psr_lib.sft import train_sft

    ift, eft = sft_examples(stage)
    source = stage.model(0)
    family, tokenizer = prompts.load(stage.preset.prompts), _tokenizer(stage, source)
    return launch.call(
        stage.preset.train, train_sft, source, tokenizer, [*ift, *eft], stage.preset.sft,
        stage.folder.parent, stage.seed, family, show("SFT"), **_loading(stage),
    )  # fmt: skip


def train_round(stage: Any) -> dict[str, Any]:
    """M[n] from M[n-1]: step-wise DPO (section 3.4), or the control that the method names.

    Raises PSRError where the search left no pair.
    """
    settings, n = stage.preset.dpo, stage.iteration
    pairs = read_jsonl(stage.pairs(), StepPair)
    if not pairs:
        more = "srlm.scores" if stage.method == "srlm" else "search.width"
        raise PSRError(
            f"round {n}: the search left no pairs to train on; raise {more}, "
            "search.temperature or data.questions, or train M1 longer (sft.epochs)"
        )
    pairs = round_pairs.filtered(stage, pairs)
    start = stage.model(1 if settings.start_from == "sft" else n - 1)
    common = (stage.folder.parent, stage.seed, prompts.load(stage.preset.prompts))
    how = _loading(stage)
    if stage.method == "sft-chosen":
        from psr_lib.sft import train_sft_on_chosen

        return launch.call(
            stage.preset.train, train_sft_on_chosen, start, pairs, settings, *common,
            show("SFT on chosen"), **how,
        )  # fmt: skip
    if stage.method == "ift-more":
        return _train_more(stage, start, pairs, common, how)
    from psr_lib.dpo import train_dpo

    reference = stage.model(1 if settings.reference == "sft" else n - 1)
    replay = round_pairs.replayed(stage, sft_examples(stage)[1]) if settings.replay else ()
    return launch.call(
        stage.preset.train, train_dpo, start, reference, pairs, settings, *common,
        show("step-wise DPO"), labels=round_pairs.soft_labels(stage, pairs), replay=replay, **how,
    )  # fmt: skip


def _train_more(
    stage: Any, start: Any, pairs: Sequence[StepPair], common: tuple, how: dict
) -> dict[str, Any]:
    """Control `ift-more`: as many updates as DPO would make, on IFT that M1 has not seen."""
    from psr_lib.dpo import planned_updates
    from psr_lib.sft import train_sft

    settings = stage.preset.dpo
    ift = read_jsonl(stage.input(f"data/ift_more_{stage.iteration}.jsonl"), IFTExample)
    out, seed, family = common
    steps = planned_updates(start, pairs, settings, family, how["trust_remote_code"])
    return launch.call(
        stage.preset.train, train_sft, start, _tokenizer(stage, start), ift, settings, out, seed,
        family, show("more IFT"), max_steps=steps, **how,
    )  # fmt: skip


def _loading(stage: Any) -> dict[str, Any]:
    """How training loads a model: where, and whether the preset lets it bring code of its own."""
    model = stage.preset.model
    return {"device": model.device, "trust_remote_code": model.trust_remote_code}


def _tokenizer(stage: Any, folder: Any) -> Any:
    from psr_lib.models import load_tokenizer

    return load_tokenizer(folder, stage.preset.model.trust_remote_code)


def oracle_report(traces: Iterable[SearchTrace]) -> dict[str, float | int]:
    """How the self-judge did on the model's own siblings, by the oracle; {} on others' problems.

    `judge_accuracy` over verdicts where just one of the two steps is right; `pair_accuracy` over
    the pairs that go to training; `decidable` is the share of verdicts that have a right answer.
    """
    first = next(iter(traces), None)
    if first and not problems.is_procedural(first.question.text):
        return {}
    verdicts, decided, right = 0, 0, 0
    for trace in traces:
        for e in trace.expansions:
            texts = [c.text for c in e.candidates if c.valid]
            good = [problems.is_right(trace.question.text, e.prefix, text) for text in texts]
            for (i, j), verdict in e.robin.verdicts.items():
                verdicts += 1
                if good[i] != good[j]:
                    decided += 1
                    right += verdict.answer == ("A" if good[i] else "B")
    return {"siblings_judge_accuracy": right / max(1, decided), "siblings_decidable":
            decided / max(1, verdicts), "siblings_n": decided, **pair_report(traces)}  # fmt: skip


def pair_report(traces: Iterable[SearchTrace]) -> dict[str, float | int]:
    """By the oracle: how often the chosen and the rejected step of a pair is right."""
    pairs = [pair for trace in traces for pair in trace.pairs]
    chosen = [problems.is_right(p.question, p.prefix, p.chosen) for p in pairs]
    rejected = [problems.is_right(p.question, p.prefix, p.rejected) for p in pairs]
    total = max(1, len(pairs))
    both = list(zip(chosen, rejected, strict=True))
    return {
        "chosen_right": sum(chosen) / total,
        "rejected_right": sum(rejected) / total,
        "ordered_right": sum(c and not r for c, r in both) / total,
        "ordered_wrong": sum(r and not c for c, r in both) / total,
    }


def funnel(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From questions to pairs: how many of each there were."""
    names = {"problems": "questions", "expansions": "visits", "candidates": "candidates",
             "judge_calls": "ordered pairs (Eq. 2)", "judge_made": "verdicts asked for",
             "pairs": "preference pairs"}  # fmt: skip
    names = srlm_rounds.NAMES if "solutions" in counts else names
    return [{"what": label, "count": counts[name]} for name, label in names.items()]


def training_story(history: Sequence[Mapping[str, float]]) -> tuple[str, list[str], str]:
    """Title, columns and axis label of the training figure: the two rewards, or the loss.

    A reward is beta times the log-ratio to the reference, so batches of longer and shorter steps
    can be compared; log-probabilities cannot.
    """
    pair = ["rewards/chosen", "rewards/rejected"]
    if pair[0] not in history[0]:
        losses = [f"{row['loss']:.2f}" for row in history]
        return _title("loss", losses), ["loss"], "loss (nats per scored token)"
    margins = (round(row[pair[0]] - row[pair[1]], 3) + 0 for row in history)  # "+ 0": no -0
    title = _title("reward margin", [f"{margin:.3f}" for margin in margins])
    return title, pair, "reward (β × log-ratio)"


def _title(what: str, values: Sequence[str]) -> str:
    """What is logged is of before an update, so a single one has no before and after."""
    if len(values) == 1:
        return f"One update, at a {what} of {values[0]}"
    return f"{what.capitalize()} from {values[0]} to {values[-1]}"
