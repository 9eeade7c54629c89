"""Which files of a run a number was computed from, by the source that its table names."""

from collections.abc import Iterable

from psr_lib import step_counts
from psr_lib.evidence import GREEDY, JUDGE, LABORATORY, OWN, STEPS, TOKENS, Source
from psr_lib.lineage import Made, Record
from psr_lib.methods import STAGES
from psr_lib.run_details import ANSWERS, OWN_FILE
from psr_lib.run_dirs import RunDir

Artifact = tuple[str, str]  # folder and file; without a file the counts of the folder's manifest
FILES = {GREEDY: "answers.jsonl.gz", JUDGE: "verdicts.jsonl.gz", OWN: OWN_FILE}


def artifacts(run: RunDir, source: Source, made: Made) -> list[Artifact]:
    """Where that lies which a number was computed from; nothing where it is not there."""
    if source.what in STAGES:
        return [(folder, "") for folder, one in made.items() if _is_stage(run, source, folder, one)]
    if source.what in (STEPS, TOKENS):
        counted = [("steps", step_counts.FILE)] if "steps" in made else []
        return counted + artifacts(run, source._replace(what=GREEDY), made)
    if source.what == LABORATORY:
        return _laboratory(source, made)
    home = run.round(source.method, int(source.model[1:]) if source.model != "API" else 0)
    place, own = home.relative_to(run.path).as_posix(), f"{source.what}{ANSWERS}"
    lab = f"{place}/judge"
    found = [(f"{place}/eval", FILES.get(source.what, own)), (lab, own), (lab, f"ways{ANSWERS}")]
    return [(at, name) for at, name in found if at in made and name in made[at]["outputs"]][:1]


def missing(run: RunDir, sources: Iterable[Source], made: Made) -> list[str]:
    """Outcomes that a run does not have: a number of several is of the seeds that have them all.

    Counts of stages and tables of the laboratory are averaged one by one, so none of them is.
    """
    own = (source for source in sources if source.what not in (*STAGES, LABORATORY))
    return [str(source) for source in own if not artifacts(run, source, made)]


def _is_stage(run: RunDir, source: Source, folder: str, one: Record) -> bool:
    """Whether a folder is of the stage and model that a source names, borrowed pairs included."""
    if one["stage"] != source.what:
        return False
    if not source.model:
        return one["method"] in ("", source.method)
    n = int(source.model[1:])
    places = (run.ppd(source.method, n), run.model(source.method, n), run.eval(source.method, n))
    return run.path / folder in places


def _laboratory(source: Source, made: Made) -> list[Artifact]:
    """The table of the last model's laboratory; it holds the rows of those before it."""
    found = [name for name in made if name.startswith(f"{source.method}/") and "/judge" in name]
    return [(max(found, key=lambda name: (len(name), name)), "judge.csv")] if found else []
