"""MODEL_CARD.md and DATA_CARD.md of each M[n], written beside its model from manifests alone.

The runner writes them when its stages are done. Whatever a card says stands in a manifest or in a
table that a manifest names and that is unchanged, so a run always has the same cards.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from psr_lib import architectures, integrity, manifest, prompts
from psr_lib.base_weights import is_hub_id
from psr_lib.methods import BORROWED_PAIRS, METHODS, SRLM
from psr_lib.presets import PROCEDURAL
from psr_lib.records import PSRError, read_json, write_text
from psr_lib.run_dirs import RunDir

MODEL, DATA = "MODEL_CARD.md", "DATA_CARD.md"
NOT_EVALUATED = "Not evaluated."
PAPER = "arXiv:2503.03746"
CITATION = (
    "The method is by Zhang et al., Process-based Self-Rewarding Language Models, "
    f"{PAPER} (Findings of ACL 2025)."
)
# Whose verdicts made the preference pairs, by `judge.kind` of their search.
JUDGES = {
    "self": "The verdicts behind its preference pairs are a model's own: no gold answer took part, "
            "and wrong ones are among them.",
    "random": "A coin gave the verdicts behind its preference pairs: about half of them are wrong.",
    "oracle": "The oracle, which knows every right step, gave the verdicts behind its preference "
              "pairs: it is a reference that uses gold.",
}  # fmt: skip
LABORATORY = (
    "The problems are procedural word problems of a small laboratory, checked by an oracle: "
    "neither data nor numbers say anything about other problems or large models."
)
SIZES = {"n<1K": 1e3, "1K<n<10K": 1e4, "10K<n<100K": 1e5, "100K<n<1M": 1e6, "1M<n<10M": 1e7,
         "10M<n<100M": 1e8, "100M<n<1B": 1e9, "1B<n<10B": 1e10, "10B<n<100B": 1e11,
         "100B<n<1T": 1e12}  # the hub's names, and below how many rows  # fmt: skip
Manifest = dict[str, Any]


def refresh(run: RunDir, method: str, rounds: int) -> list[Path]:
    """Write the cards of every M[n] that is complete; those that would not change are left.

    A card of what is missing or damaged goes: why it is is for `make status` to say.
    """
    written = []
    for n in range(1, rounds + 1):
        for name, make in ((MODEL, model_card), (DATA, data_card)):
            path = run.round(method, n) / name
            try:
                text = make(run, method, n)
            except PSRError:
                path.unlink(missing_ok=True)
                continue
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
                written.append(path)
    return written


# ------------------------------------------------------------------------------------ the model


def model_card(run: RunDir, method: str, n: int) -> str:
    """The card of M[n]; its results are there once it was evaluated.

    Raises PSRError where M[n] is not complete.
    """
    made = _complete(run.model(method, n))
    evaluated, missing = _evaluation(run, method, n)
    rows = accuracy(run.eval(method, n)) if evaluated else []
    split = evaluated["params"].get("data", {}).get("split", "") if evaluated else ""
    settings = made["params"].get("dpo") or made["params"].get("sft") or {}
    parts = [
        f"# {name_of(made)}",
        f"M{n} of method `{made['method']}` ({METHODS[made['method']]}), preset "
        f"`{made['preset']}`, seed {made['seed']}; base model `{_public(_base(made))}`, stage "
        f"`{made['stage']}`.",
        "## Results", missing or _results(run.eval(method, n), rows, split),
        "## Made from", _inputs(made),
        "## Training", table(["setting", "value"], _public(settings).items()),
        table(["count", "value"], _plain(made["counts"]).items()),
        "## Prompts", _prompts(made["params"]),
        "## Limits", _limits(run, method, n),
        "## Provenance", _provenance(made), CITATION,
    ]  # fmt: skip
    return _front(_model_data(made, rows, split)) + "\n\n".join(filter(None, parts)) + "\n"


def _evaluation(run: RunDir, method: str, n: int) -> tuple[Manifest | None, str]:
    """The manifest of an evaluation of this very M[n], its files unchanged; or what is missing."""
    home = run.eval(method, n)
    made = manifest.read(home)
    if not made or manifest.damage(home, made):
        return None, NOT_EVALUATED
    if integrity.outdated(run, made):
        again = f"make evaluate{integrity.model_words(run, made['method'], n)}"
        return None, f"{NOT_EVALUATED} What its last evaluation read has changed since; evaluate " \
                     f"it anew: `{again}`, with the `SET` that it was made with."  # fmt: skip
    return made, ""


def name_of(made: Manifest) -> str:
    """What a model is called, such as `psr-tiny-psrlm-M2-seed0`."""
    return f"psr-{made['preset']}-{made['method']}-M{made['iteration']}-seed{made['seed']}"


def accuracy(home: Path) -> list[dict[str, str]]:
    """The rows of an evaluation's accuracy table, the mean last; [] where there is none."""
    if not (home / "accuracy.csv").is_file():
        return []
    with open(home / "accuracy.csv", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [row for row in rows if row.get("benchmark") and row.get("accuracy")]


def _model_data(made: Manifest, rows: Sequence[Mapping], split: str) -> dict[str, Any]:
    """The hub's metadata."""
    base = _base(made)
    data: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation",
                            "language": ["en"]}  # fmt: skip
    if is_hub_id(base) and not (manifest.root() / base).exists():
        data["base_model"] = base
    if licence := architectures.licence(base):
        data["license"] = licence
    data["tags"] = ["math", "self-rewarding", "step-dpo", PAPER.lower()]
    if rows:
        results = [_result(row, split) for row in rows]
        data["model-index"] = [{"name": name_of(made), "results": results}]
    return data


def _result(row: Mapping[str, str], split: str) -> dict[str, Any]:
    name = row["benchmark"]
    metric = {"type": "accuracy", "value": _percent(row["accuracy"]), "name": "greedy accuracy, %"}
    data = {"name": f"{name} ({row['n']} problems)", "type": name, "split": split}
    return {"task": {"type": "text-generation"}, "dataset": data, "metrics": [metric]}


def _results(home: Path, rows: Sequence[Mapping[str, str]], split: str) -> str:
    """Accuracy with its interval, and the model as a judge."""
    if not rows:
        return NOT_EVALUATED
    cells = [[row["benchmark"], row["n"], f"{_percent(row['accuracy'])}", _interval(row)]
             for row in rows]  # fmt: skip
    found = [f"Greedy accuracy on the `{split}` problems, in percent (the boxed answer).",
             table(["benchmark", "problems", "accuracy", "95 % interval"], cells)]  # fmt: skip
    if (home / "judge.json").is_file():
        judge = read_json(home / "judge.json")
        found.append(f"As a judge of {judge['n']} held-out pairs: {_percent(judge['accuracy'])} % "
                     f"right {_interval(judge)}.")  # fmt: skip
    return "\n\n".join(found)


def _interval(row: Mapping[str, Any]) -> str:
    return f"[{_percent(row['low'])}, {_percent(row['high'])}]"


def _percent(share: Any) -> float:
    return round(100 * float(share), 1)


def _prompts(params: Mapping[str, Any]) -> str:
    """The solver's and the judge's template, if they are still those of the manifest."""
    family = prompts.load(params["prompts"])
    if family.hashes != params.get("templates"):
        return f"Family `{params['prompts']}`, whose templates have changed since."
    how = "as the user's turn of the chat template" if family.chat else "as plain text"
    blocks = [f"{role}:\n\n```\n{family.templates[role]}\n```" for role in ("solve", "judge")]
    return "\n\n".join([f"Family `{family.name}`, {how}; a step ends at {family.stop!r}.", *blocks])


def _base(made: Manifest) -> str:
    return made["params"].get("model", {}).get("base", "")


def _limits(run: RunDir, method: str, n: int) -> str:
    source = (manifest.read(run.data) or {"params": {}})["params"].get("data", {}).get("source")
    found = [LABORATORY] if source == PROCEDURAL else []
    return " ".join([*found, _judged(run, method, n)])


def _judged(run: RunDir, method: str, n: int) -> str:
    """Who gave the verdicts behind the preference pairs of M[n]."""
    if n == 1 or method == "ift-more":
        return "It was trained on no preference pairs of this method."
    made = manifest.read(run.ppd(method, n)) or {"params": {}}
    kind = made["params"].get("judge", {}).get("kind", "self")  # the baseline scores by itself
    return JUDGES.get(kind, f"The judge `{kind}` gave the verdicts behind its preference pairs.")


# ------------------------------------------------------------------------------------ the data


def data_card(run: RunDir, method: str, n: int) -> str:
    """The card of what M[n] was trained on; raises PSRError where that is not complete."""
    folders = data_folders(run, method, n)
    made = [_complete(folder) for folder in folders]
    trained = _complete(run.model(method, n))
    title = f"{name_of(trained)}-data"
    parts = [f"# {title}", _about(method, n), _replayed(trained)]
    for folder, one in zip(folders, made, strict=True):
        place = folder.relative_to(run.path).as_posix()
        parts += [f"## {place}", _files(one), "### Settings", _settings(one), "### Counts",
                  table(["count", "value"], _plain(one["counts"]).items()),
                  "### Made from", _inputs(one), "### Provenance", _provenance(one)]  # fmt: skip
    first = _complete(run.data)["params"].get("data", {})
    parts += ["## Limits", _data_limits(first), CITATION]
    return _front(_data_data(title, made, first)) + "\n\n".join(filter(None, parts)) + "\n"


def data_folders(run: RunDir, method: str, n: int) -> list[Path]:
    """Where the rows lie that M[n] was trained on."""
    if n > 1 and method != "ift-more":
        return [run.ppd(method, n)]
    return [run.data, *([run.path / SRLM / "data"] if method == SRLM else [])]


def _replayed(made: Manifest) -> str:
    """What stood beside the pairs of a round, '' for nothing."""
    rows = made["counts"].get("replayed")
    return f"Beside each pair stood a row of M1's EFT, of {rows:,} (`dpo.replay`)." if rows else ""


def _about(method: str, n: int) -> str:
    if n == 1:
        return "IFT and EFT, on which M0 is fine-tuned to M1, and the questions of every round."
    if method == "ift-more":
        return (
            f"More IFT, `ift_more_{n}.jsonl`, with which this control trains in the place of DPO."
        )
    whose = "psrlm's M" if method in BORROWED_PAIRS else "M"
    what = "whole solutions" if method == SRLM else "next steps"
    return f"Preference pairs of {what} that {whose}{n - 1} proposed, with the judge of `{method}`."


def _data_data(title: str, made: Sequence[Manifest], settings: Mapping) -> dict[str, Any]:
    rows = sum(entry.get("rows", 0) for one in made for entry in one["outputs"].values())
    data: dict[str, Any] = {"pretty_name": title, "language": ["en"],
                            "size_categories": [size_category(rows)],
                            "task_categories": ["text-generation"]}  # fmt: skip
    if settings.get("source") == PROCEDURAL:
        data["license"] = "apache-2.0"
    return data | {"tags": ["math", "preference", "self-rewarding", PAPER.lower()]}


def size_category(rows: int) -> str:
    """The hub's name for the size of a data set.

    >>> size_category(999), size_category(1000), size_category(2_000_000)
    ('n<1K', '1K<n<10K', '1M<n<10M')
    """
    return next((name for name, most in SIZES.items() if rows < most), "n>1T")


def _files(made: Manifest) -> str:
    """The stage's rows; figures and reports are left out."""
    rows = [[name, entry.get("rows", ""), entry.get("bytes", ""), f"`{entry['hash'][:16]}`"]
            for name, entry in made["outputs"].items() if ".jsonl" in name]  # fmt: skip
    return table(["file", "rows", "bytes", "sha256 (first 16)"], rows)


def _settings(made: Manifest) -> str:
    """The preset's sections that the stage read, each on its line."""
    found = {
        k: v for k, v in made["params"].items() if isinstance(v, dict) and "templates" not in k
    }
    return table(["section", "values"], [[name, _flat(values)] for name, values in found.items()])


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {_public(v)}" for key, v in values.items() if key != "url")


def _public(value: Any) -> Any:
    """A value without the folders of this machine, which a card that is shared should not tell.

    >>> _public("gsm_symbolic+/home/me/sets/mine.jsonl"), _public(["~/a/b", "data/tiny"])
    ('gsm_symbolic+…/mine.jsonl', ['…/b', 'data/tiny'])
    """
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    if not isinstance(value, str):
        return value
    whole = value.startswith("path:")
    parts = [value.removeprefix("path:")] if whole else value.split("+")  # as in data.source
    return "+".join(map(_last_name, parts))


def _last_name(text: str) -> str:
    """A path that leads out of the repository by its last name alone; any other text as it is."""
    outside = text.strip().startswith(("/", "~", "../"))
    return f"…/{Path(text.strip()).name}" if outside else text


def _data_limits(settings: Mapping[str, Any]) -> str:
    source = settings.get("source", "")
    if source == PROCEDURAL:
        return LABORATORY
    return (f"The problems are from `{_public(source)}`: its own licence holds, and what was left "
            "out of it is listed in `removed.jsonl`.")  # fmt: skip


# ------------------------------------------------------------------------------------ both


def _complete(folder: Path) -> Manifest:
    made = manifest.read(folder)
    if made is None:
        raise PSRError(f"{manifest.shown(folder)}: no complete stage made it; run make iteration")
    return made


def _inputs(made: Manifest) -> str:
    rows = [
        [f"`{_public(name)}`", f"`{entry['hash'][:16]}`"] for name, entry in made["inputs"].items()
    ]
    return table(["input", "hash (first 16)"], rows)


def _provenance(made: Manifest) -> str:
    git = made["git"]
    commit = f"{git['commit']}{' with changes' if git['dirty'] else ''}"
    rows = {"commit": commit, "parameters": made["params_hash"][:16], "seed": made["seed"],
            "device": made["device"], "seconds": made["wall_seconds"],
            "tokens generated": made["tokens"]["generated"],
            "tokens judged": made["tokens"]["judged"],
            "packages": _flat(made["versions"])}  # fmt: skip
    return table(["", "value"], rows.items())


def _plain(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as they are read: four digits of a fraction."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in counts.items()}


def _front(data: Mapping[str, Any]) -> str:
    """YAML front matter, as the hub reads it."""
    text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n\n"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, '' without rows."""
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    shown = [list(header), ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown) if lines else ""
