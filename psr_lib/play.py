"""Play: a problem that the user types, and one step search on it, watched visit by visit.

The search is the one of notebook 03 (same settings, judge and seed), only nothing of it is kept.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psr_lib import manifest, prompts, rounds, show
from psr_lib.engines import opening
from psr_lib.engines.base import Engine, close
from psr_lib.engines.tasks import alone
from psr_lib.methods import SRLM
from psr_lib.records import PSRError, Question
from psr_lib.search import Search
from psr_lib.traces import SearchTrace

OUTSIDE = "paper"  # prompts of models that were not trained here
PAUSE = 1.0  # seconds between two visits, for whoever watches
WORD = re.compile(r"[^\W\d_]+")


def visits(search: Search, question: Question) -> Iterator[SearchTrace]:
    """The trace of a question after each visit of its search; the last one is what `task` gives."""
    trace = SearchTrace(question)
    while not trace.status:
        candidates, robin = alone(search.engine, search.expand(trace))
        search.advance(trace, candidates, robin)
        trace.pairs = [pair for pair in trace._kept if pair is not None]
        yield trace
    search.judge.forget(question)


def open_search(stage: Any, engine: Engine, family: str = "") -> Search:
    """The step search of the stage's preset with this engine as policy and judge.

    `family`: other prompts than the preset's.
    """
    return Search(
        engine, prompts.load(family or stage.preset.prompts), engine.tokenizer, stage.preset.search,
        rounds.make_judge(stage, engine), stage.seed, select=False, max_tokens=0,
    )  # fmt: skip


def watch(stage: Any, engine: Engine, text: str, model: Path | str = "") -> SearchTrace | None:
    """Display one search on a typed problem as it happens; the trace at its end.

    `model`: the folder of another model that proposes and judges; '' takes the stage's engine. A
    name as in `model.base` is a model that knows none of the rounds, and reads the paper's prompts.
    Raises PSRError where the problem is empty or no such model is to be had.
    """
    if stage.method == SRLM:
        print(f"models of {SRLM} score whole solutions; watch a search with method psrlm")
        return None
    if stage.preset.search.kind != "step":
        print(f"search.kind={stage.preset.search.kind}: what is watched here is the step search")
    question = asked(text)
    if not model:
        return _watched(open_search(stage, engine), question)
    other = opening.open_engine(stage.preset.engine, stage.preset.model, stage.weights(str(model)))
    named = not (manifest.root() / Path(model).expanduser()).exists()
    try:
        return _watched(open_search(stage, other, OUTSIDE if named else ""), question)
    finally:
        close(other)


def _watched(search: Search, question: Question) -> SearchTrace | None:
    from IPython.display import display

    trace = None
    if strange := unknown_words(search.tokenizer, question.text):
        print("words that this model has never read:", ", ".join(strange))
    shown = display(show.search(SearchTrace(question)), display_id=True)
    for trace in visits(search, question):
        shown.update(show.search(trace))
        time.sleep(PAUSE)
    return trace


def asked(text: str) -> Question:
    """A typed problem, its blanks made single as in the data; raises PSRError if it is empty."""
    if not text.strip():
        raise PSRError("question: it is empty; write a problem as in the data, with its question")
    return Question(id="typed", text=" ".join(text.split()))


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """Words for which the tokenizer has nothing but its unknown token; usual ones know them all."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return []
    ids = {word: tokenizer(word, add_special_tokens=False).input_ids for word in WORD.findall(text)}
    return [word for word, found in ids.items() if unknown in found]
