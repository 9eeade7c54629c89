"""EFT as the paper makes it (section 3.2): step PRM, tree search, annotation, filters.

    labelled steps -> PRM   \\
                             tree search -> sibling pairs -> filter -> teacher -> filters -> EFT
    M0 (+ SFT on IFT) -> policy /

What takes long is kept in the run's folder `making/` and used again as long as it was made from the
same; answers that were paid for are kept for good, beside the runs.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from psr_lib import (
    annotate,
    annotators,
    launch,
    manifest,
    prompts,
    shipped,
    sources,
    stats,
    step_labels,
    tallies,
)
from psr_lib.annotate import Check, Funnel, Judged
from psr_lib.engines import opening
from psr_lib.engines.base import Engine
from psr_lib.evaluation import write_csv
from psr_lib.journal import Journal, search_into
from psr_lib.methods import SRLM
from psr_lib.models import load_tokenizer
from psr_lib.prm import PRM, report, train_prm
from psr_lib.prm800k import read_prm800k
from psr_lib.progress import show, track
from psr_lib.records import (
    IFTExample,
    JudgeExample,
    PSRError,
    Question,
    StepLabels,
    StepPair,
    hash_json,
    iter_jsonl,
    read_json,
    seed_of,
    to_dict,
    write_json,
    write_jsonl,
)
from psr_lib.sft import train_sft
from psr_lib.tree import Tree, sibling_pairs, tree_stream

Labelled = tuple[list[StepLabels], list[StepLabels]]  # to train on, to measure on


def make_eft(
    stage: Any,
    ift: Sequence[IFTExample],
    questions: Sequence[Question],
    labelled: Labelled,
    confirm: Check | None = None,
    solutions: Mapping[str, str] | None = None,
) -> dict[str, list[JudgeExample]]:
    """`eft` and `eft_heldout` of the preset's sizes, of different questions.

    `confirm` says of a pair whether its order is right, where something knows; it is for the report
    alone. `solutions`: worked ones by question, for the teacher `rule`. Files of the stage:
    `prm_report.json`, `prm_calibration.csv`, `pairs.jsonl`, `funnel.csv`. Rows that ship for just
    these settings are taken as they are. Raises PSRError where nothing is left, and after the
    estimate of a dry run.
    """
    if folder := shipped.find(stage):
        return shipped.take(stage, folder)
    opening.check_beside(stage.preset.engine)
    policy(stage, ift)  # before an engine holds the devices that it is trained on
    prm, weights = trained_prm(stage, labelled)
    trees = search_trees(stage, ift, questions, prm, weights)
    value = stage.preset.tree.value
    pairs = [pair for tree in trees for pair in sibling_pairs(tree, value)]
    funnel, first = Funnel(confirm), stage.preset.annotate
    apart = annotate.initial_filter(pairs, first.min_gap, first.best_share, funnel)
    write_jsonl(stage.output("pairs.jsonl"), apart)
    kept = annotate.final_filters(judge_pairs(stage, apart, solutions), funnel)
    write_csv(stage.output("funnel.csv"), funnel.rows)
    stage.count(**_tree_counts(trees), pairs=len(pairs), pairs_kept=len(kept))
    return split_rows(stage, kept)


# ------------------------------------------------------------------------------------ step PRM


def labels_of(stage: Any, taken: set[str]) -> Labelled:
    """Labelled solutions to train on and to measure on: the oracle's, or those of PRM800K.

    Grows `taken` by the oracle's questions. PRM800K's problems are divided, not its rows.
    """
    settings, shares = stage.preset.prm, stage.preset.data.eft_shares
    if settings.labels == "oracle":
        sizes = {"prm": settings.solutions, "prm_heldout": settings.heldout}
        made = (step_labels.oracle_labels(n, size, stage.seed, taken, shares, settings.clauses)
                for n, size in sizes.items())  # fmt: skip
        return next(made), next(made)
    rows, counts = read_prm800k(*_prm800k(stage), settings.neutral)
    stage.count(**{f"prm800k {name}": n for name, n in counts.items()})
    return divide(rows, settings.heldout, stage.seed)


def _prm800k(stage: Any) -> tuple[Iterable[Any], str]:
    """The rows of PRM800K, of the hub or of a file, and how messages name them."""
    name = stage.preset.prm.labels
    if name == "prm800k":
        return stage.hub(sources.KNOWN[name], "train", "prm.labels"), name
    path = stage.source(name)
    return iter_jsonl(path), str(path)


def divide(rows: Sequence[StepLabels], heldout: int, seed: int) -> Labelled:
    """The rows of at least `heldout` solutions, whole problems at random, apart from the others.

    Raises PSRError where nothing would be left to train on.
    """
    problems = list(dict.fromkeys(row.problem_id for row in rows))
    random.Random(seed_of("prm heldout", seed)).shuffle(problems)
    sizes = Counter(row.problem_id for row in rows)
    apart: set[str] = set()
    while problems and sum(sizes[name] for name in apart) < heldout:
        apart.add(problems.pop())
    if not problems:
        raise PSRError(f"prm.heldout: {heldout} leaves none of {len(rows)} solutions to train on")
    return ([row for row in rows if row.problem_id not in apart],
            [row for row in rows if row.problem_id in apart])  # fmt: skip


def trained_prm(stage: Any, labelled: Labelled) -> tuple[PRM, str]:
    """The step PRM and its weights' hash; its report on held-out problems is written."""
    ready = stage.preset.prm.model
    folder = stage.source(ready) if ready else _prm_folder(stage, labelled[0])
    return _scored(stage, folder, labelled[1]), manifest.identity(folder)


def _prm_folder(stage: Any, rows: Sequence[StepLabels]) -> Path:
    """The folder of the PRM that is trained on these rows."""
    settings = stage.preset.prm
    base = stage.weights(settings.base) if settings.base else stage.model(0)
    made_from = {"settings": asdict(replace(settings, heldout=1, bins=2)),
                 "labels": hash_rows(rows), "prm_base": manifest.identity(base)}  # fmt: skip

    def build(folder: Path) -> None:
        launch.call(
            stage.preset.train, train_prm, base, _tokenizer(stage, base), rows, settings,
            folder, stage.seed, _family(stage), settings.tag, show("step PRM"),
            device=stage.preset.model.device,
            trust_remote_code=stage.preset.model.trust_remote_code,
        )  # fmt: skip

    return cached(stage, stage.run.making / "prm", made_from, build) / "model"


def _scored(stage: Any, folder: Path | str, heldout: Sequence[StepLabels]) -> PRM:
    """The PRM of a folder; its report goes into the stage's files."""
    engine, settings = open_engine(stage, folder, beside=True), stage.preset.prm
    prm = PRM(engine, _family(stage), engine.tokenizer, settings.tag)
    rows = prm.score_rows(heldout)
    found = report(rows, settings.bins)
    labels, scores = ([row[name] for row in rows] for name in ("label", "p"))
    curve = stats.calibration(labels, scores, settings.bins)
    write_json(stage.output("prm_report.json"), found)
    write_csv(stage.output("prm_calibration.csv"), curve)
    stage.count(**{f"prm_{name}": value for name, value in found.items()})
    return prm


# ------------------------------------------------------------------------------------ tree search


def policy(stage: Any, ift: Sequence[IFTExample]) -> Path | str:
    """The model that the tree search samples from: M0, or M0 fine-tuned on IFT alone."""
    base, preset = stage.model(0), stage.preset
    if preset.tree.policy == "base":
        return base
    settings = replace(preset.sft, epochs=preset.tree.policy_epochs)

    def build(folder: Path) -> None:
        launch.call(
            preset.train, train_sft, base, _tokenizer(stage, base), ift, settings, folder,
            stage.seed, _family(stage), show("policy on IFT"),
            device=preset.model.device, trust_remote_code=preset.model.trust_remote_code,
        )  # fmt: skip

    made_from = {"settings": asdict(settings), "ift": hash_rows(ift)}
    return cached(stage, making(stage) / "policy", made_from, build) / "model"


def search_trees(
    stage: Any, ift: Sequence[IFTExample], questions: Sequence[Question], prm: PRM, weights: str
) -> list[Tree]:
    """A tree a question; a call after one that was cut short goes on with those that are left."""
    settings, folder = stage.preset.tree, policy(stage, ift)
    engine = open_engine(stage, folder, beside=True)
    made_from = {"settings": asdict(replace(settings, live=1)), "questions": hash_rows(questions),
                 "weights": [manifest.identity(folder), weights]}  # fmt: skip
    journal = Journal(stage.run.making / "trees.jsonl", common(stage) | made_from)
    found = tallies.Pairs(sibling_pairs, map(Tree.from_row, journal.rows()))
    with track(len(questions), "tree search", journal.count) as progress:
        search_into(
            journal, questions, lambda asked: tree_stream(
                engine, prm, _family(stage), engine.tokenizer, asked, settings, stage.seed
            ), lambda done, tree: progress.update(done, **found(tree)),
        )  # fmt: skip
    trees = [Tree.from_row(row) for row in journal.rows()]
    journal.close()
    stage.tokens(generated=sum(tree.counts["generated_tokens"] for tree in trees))
    return trees


def _tree_counts(trees: Sequence[Tree]) -> dict[str, int]:
    total = sum((tree.counts for tree in trees), Counter())
    return {"trees": len(trees), **{f"tree_{name}": n for name, n in total.items()}}


# ------------------------------------------------------------------------------------ annotation


def judge_pairs(
    stage: Any, pairs: Sequence[StepPair], solutions: Mapping[str, str] | None = None
) -> list[Judged]:
    """The teacher's answers to every pair in both orders; what was paid for is not asked again."""
    with (
        annotators.opened(stage, pairs, solutions) as teacher,
        track(2 * len(pairs), "annotation") as progress,
    ):
        agree = tallies.Agreement(pairs)
        judged = annotate.annotate(
            pairs, teacher, lambda done, *said: progress.update(done, **agree(*said))
        )
    stage.count(**{f"no verdict: {why}": n for why, n in annotate.faults(judged).items()})
    return judged


def split_rows(stage: Any, kept: Sequence[Judged]) -> dict[str, list[JudgeExample]]:
    """EFT rows to train on and held-out ones, of different questions, at most the preset's sizes.

    Questions are divided at random, so that both parts get their share where pairs are fewer than
    asked for. Held-out pairs stand in one order each.
    """
    data, orders = stage.preset.data, stage.preset.annotate.orders
    rng = random.Random(seed_of("eft split", stage.seed))
    wanted = data.eft / (2 if orders == "both" else 1)
    share = data.eft_heldout / (data.eft_heldout + wanted)
    asked = list(dict.fromkeys(row.pair.problem_id for row in kept))
    rng.shuffle(asked)
    apart = set(asked[: round(share * len(asked))])
    parts = {"eft": [row for row in kept if row.pair.problem_id not in apart],
             "eft_heldout": [row for row in kept if row.pair.problem_id in apart]}  # fmt: skip
    for name, rows in parts.items():
        if not rows:
            raise PSRError(f"{name}: no pair is left; raise tree.questions or lower the filters")
        rng.shuffle(rows)  # a cut at the size takes no question before another
    return {
        "eft": annotate.eft_rows(parts["eft"], "eft", data.eft, orders, _balanced),
        "eft_heldout": annotate.eft_rows(
            parts["eft_heldout"], "eft_heldout", data.eft_heldout, "one", _balanced
        ),
    }


def _balanced(k: int) -> str:
    """Slot of the better step in the k-th row: A in half of them; the rows' order is random."""
    return "AB"[k % 2]


# ------------------------------------------------------------------------------------ what is kept


def making(stage: Any) -> Path:
    """Where what took long is kept; the baseline's stage has a folder of its own."""
    home = stage.run.making
    return home / SRLM if stage.method == SRLM else home


def cached(
    stage: Any, folder: Path, made_from: dict[str, Any], build: Callable[[Path], None]
) -> Path:
    """The folder, built anew unless it holds, unchanged, what the same settings and inputs gave."""
    mark, key = folder / "made_from.json", hash_json(common(stage) | made_from)
    if not mark.is_file() or read_json(mark) != _contents(folder, key):
        shutil.rmtree(folder, ignore_errors=True)
        build(folder)
        write_json(mark, _contents(folder, key))
    return folder


def _contents(folder: Path, key: str) -> dict[str, str]:
    """What the folder was made from, and the hash of all that lies in it but this mark."""
    names = (name for name in manifest.files_in(folder, ()) if name != "made_from.json")
    files = {name: manifest.fingerprint(folder / name) for name in names}
    return {"key": key, "files": hash_json(files)}


def common(stage: Any) -> dict[str, Any]:
    """What all parts depend on: code, seed, the base model, prompts.

    Whatever else a part reads it names itself, by content: the inputs of the stage so far would
    change with what is read after the part was made.
    """
    return {"code": stage.code, "seed": stage.seed, "base": manifest.identity(stage.model(0)),
            "model": asdict(stage.preset.model), "templates": _family(stage).hashes}  # fmt: skip


def hash_rows(rows: Sequence[Any]) -> str:
    """sha256 of rows, by which a part names those that it was made from."""
    return hash_json([to_dict(row) for row in rows])


def _family(stage: Any) -> prompts.Family:
    return prompts.load(stage.preset.prompts)


def _tokenizer(stage: Any, folder: Path | str) -> Any:
    return load_tokenizer(folder, stage.preset.model.trust_remote_code)


def open_engine(stage: Any, folder: Path | str, beside: bool = False) -> Engine:
    """An engine on weights that the chain made; raises PSRError for a server, which has others.

    `beside`: the step PRM and the policy of a tree search are open at once. Ray gives whole devices
    away, so each of them takes half of the workers; other engines share a device.
    """
    settings = stage.preset.engine
    if beside and settings.kind == "ray":
        settings = replace(settings, workers=max(1, settings.workers // 2))
    opening.check_own(settings)
    return opening.open_engine(settings, stage.preset.model, folder)
