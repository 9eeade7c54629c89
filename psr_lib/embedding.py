"""Figure 2: a map of the prompts and responses of EFT, IFT and PPD (paper section 5.2).

The paper draws BERT embeddings by t-SNE and says that EFT stands apart from the others; it names
neither pooling, sample size nor round, and gives no number. Here every choice is a setting of the
preset, and the separation is measured in the embedding itself, not on the map.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from psr_lib import manifest, prompts
from psr_lib.memory import Memory
from psr_lib.records import (
    IFTExample,
    JudgeExample,
    PSRError,
    StepPair,
    hash_json,
    read_jsonl,
    seed_of,
)
from psr_lib.shares import share
from psr_lib.steps import join_steps

GROUPS = ("EFT", "IFT", "PPD")
SIDES = ("prompt", "response")
NEAREST = 10  # neighbours that are asked for their group
OWN = "own"  # the run's own base model
BATCH_TOKENS = 16384
Text = dict[str, str]
Row = dict[str, Any]


def eft_text(family: prompts.Family, row: JudgeExample) -> Text:
    """The judge's prompt, and its explanation with the verdict."""
    prompt = family.judge(row.question, row.prefix, row.step_a, row.step_b)
    both = {"prompt": prompt.user, "response": row.explanation}
    return {"group": "EFT", "problem": row.problem_id, **both}


def ift_text(family: prompts.Family, row: IFTExample) -> Text:
    """The solver's prompt, and the whole solution."""
    prompt = family.solve(row.question).user
    both = {"prompt": prompt, "response": join_steps(row.steps)}
    return {"group": "IFT", "problem": row.problem_id, **both}


def ppd_text(family: prompts.Family, row: StepPair) -> Text:
    """The solver's prompt with the steps so far, and the chosen step."""
    prompt = family.solve(row.question, row.prefix)
    both = {"prompt": prompt.user + prompt.assistant, "response": row.chosen}
    return {"group": "PPD", "problem": row.problem_id, **both}


def texts(stage: Any, run: Any, rounds: int, family: prompts.Family) -> list[Text]:
    """The same number of rows of each group that the run holds, drawn with its seed.

    PPD rows come from every round that was searched. Empty where there is no EFT or IFT yet.
    """
    size = stage.preset.paper.embedded
    found: list[Text] = []
    pairs = [run.ppd("psrlm", n) / "ppd.jsonl" for n in range(2, rounds + 1)]
    sources: dict[str, Any] = {
        "EFT": ([run.data / "eft.jsonl"], JudgeExample, eft_text),
        "IFT": ([run.data / "ift.jsonl"], IFTExample, ift_text),
        "PPD": (pairs, StepPair, ppd_text),
    }
    for group, (paths, kind, make) in sources.items():
        there = [stage.holding(path) for path in paths if path.is_file()]
        rows = [row for path in there for row in read_jsonl(path, kind)]
        noise = random.Random(seed_of(run.seed, "map", group))
        drawn = noise.sample(range(len(rows)), min(size, len(rows)))
        found += [make(family, rows[k]) for k in sorted(drawn)]
    return found


def map_rows(stage: Any, run: Any, rounds: int, memory: Memory) -> tuple[list[Row], list[Row]]:
    """The points of the map, and the separation of each pair of groups; both empty without data.

    Remembered by texts, model and settings, since the embedding and t-SNE take long.
    """
    family = prompts.load(stage.preset.prompts)
    found = texts(stage, run, rounds, family)
    if not found:
        return [], []
    settings, source = stage.preset.paper, stage.preset.paper.embedding
    model = stage.model(0) if source == OWN else source
    code = manifest.fingerprint(Path(__file__))
    made_from = [hash_json(found), _identity(model), settings.perplexity, run.seed, code]
    result = memory.get(made_from, lambda: _map(found, model, settings, run.seed, stage))
    return result["points"], result["separation"]


def _identity(model: Path | str) -> str:
    return manifest.fingerprint(Path(model)) if Path(model).is_dir() else str(model)


def _map(found: list[Text], model: Path | str, settings: Any, seed: int, stage: Any) -> dict:
    groups, points, apart = [one["group"] for one in found], [], []
    problems = [one["problem"] for one in found]
    device = stage.preset.model.device
    for side in SIDES:
        vectors = embed([one[side] for one in found], model, device)
        places = tsne(vectors, settings.perplexity, seed)
        points += [
            {"side": side, "group": group, "x": round(float(x), 3), "y": round(float(y), 3)}
            for group, (x, y) in zip(groups, places, strict=True)
        ]
        apart += [{"side": side, **row} for row in separation(vectors, groups, problems)]
    return {"points": points, "separation": apart}


def embed(found: Sequence[str], model: Path | str, device: str = "auto") -> np.ndarray:
    """The mean over a text's tokens of the last hidden states, [texts, width].

    `model` is a folder or a name of the hub; longer texts than it takes are cut. Raises PSRError
    where it cannot be loaded.
    """
    import torch

    from psr_lib.models import device_of

    tokenizer, network = _load(model)
    network = network.to(device_of(device)).eval()
    limit = getattr(network.config, "max_position_embeddings", 512)
    rows = [list(tokenizer(text, truncation=True, max_length=limit).input_ids) or [0]
            for text in found]  # fmt: skip
    vectors = np.zeros((len(rows), network.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for batch in _batches(rows):
            vectors[batch] = _pooled(network, [rows[k] for k in batch])
    return vectors


def _batches(rows: Sequence[list[int]]) -> list[list[int]]:
    """Places of texts of like length, few enough tokens together."""
    found: list[list[int]] = [[]]
    for k in sorted(range(len(rows)), key=lambda k: len(rows[k])):
        if (len(found[-1]) + 1) * len(rows[k]) > BATCH_TOKENS and found[-1]:
            found.append([])
        found[-1].append(k)
    return found


def _pooled(network: Any, rows: Sequence[list[int]]) -> np.ndarray:
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    ids, mask = ids.to(network.device), mask.to(network.device)
    states = network(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask[:, :, None].to(states.dtype)
    return ((states * weight).sum(1) / weight.sum(1)).float().cpu().numpy()


def _load(model: Path | str) -> tuple[Any, Any]:
    """Tokenizer and bare network of a folder or of the hub, safetensors only."""
    from transformers import AutoModel, AutoTokenizer

    from psr_lib.models import quiet

    local = Path(model).is_dir()
    try:
        with quiet():
            how = {"local_files_only": local, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(model, **how)
            network = AutoModel.from_pretrained(model, use_safetensors=True, **how)
    except Exception as error:  # no network, no such model, damaged files: one line either way
        reason = str(error).strip().split("\n")[0][:120]
        raise PSRError(
            f"paper.embedding: {model} cannot be loaded ({reason}); take {OWN}"
        ) from None
    return tokenizer, network


def tsne(vectors: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """The map, [texts, 2]; a perplexity that is too large for so few texts is lowered."""
    from sklearn.manifold import TSNE

    most = max(1.0, (len(vectors) - 1) / 3)
    return TSNE(perplexity=min(perplexity, most), init="pca", random_state=seed).fit_transform(
        vectors
    )


def separation(
    vectors: np.ndarray, groups: Sequence[str], problems: Sequence[str]
) -> list[Row]:  # fmt: skip
    """How far each two groups stand apart: silhouette, and the share of neighbours of one's own.

    Both in the embedding, by cosine, with 95 % intervals over problems, as texts of one problem are
    alike; `problems` names that of each text. A silhouette of 0 and a share of one half mean that
    the groups are mixed, 1 that they are apart.
    """
    names, found, asked = np.array(groups), [], np.array(problems)
    for k, first in enumerate(GROUPS):
        for second in GROUPS[k + 1 :]:
            both = np.isin(names, (first, second))
            if min((names == first).sum(), (names == second).sum()) < 2:
                continue
            row = _separation(vectors[both], names[both], asked[both])
            found.append({"pair": f"{first}–{second}", **row})
    return found


def _separation(vectors: np.ndarray, names: np.ndarray, problems: np.ndarray) -> Row:
    distances = _cosine_distances(vectors)
    measures = {
        "silhouette": silhouettes(distances, names),
        "own": own_neighbours(distances, names),
    }
    row: Row = {}
    for name, values in measures.items():
        parts = values.round(9).tolist()  # a share of 1 is just that, and has an interval too
        mean = share(parts, [1.0] * len(parts), problems.tolist())
        row |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return row


def _cosine_distances(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.clip(1 - unit.astype(float) @ unit.T.astype(float), 0, 2)


def silhouettes(distances: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Each text's silhouette between two groups: (b - a) / max(a, b), mean distances to both."""
    same = names[:, None] == names[None, :]
    own = (distances * same).sum(1) / np.maximum(same.sum(1) - 1, 1)
    other = (distances * ~same).sum(1) / (~same).sum(1)
    return (other - own) / np.maximum(np.maximum(own, other), 1e-12)


def own_neighbours(distances: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Share of each text's nearest neighbours that are of its group, both groups weighing alike."""
    apart = distances + np.diag(np.full(len(distances), np.inf))
    nearest = np.argsort(apart, axis=1, kind="stable")[:, : min(NEAREST, len(names) - 1)]
    sizes = {name: (names == name).sum() for name in set(names)}
    weights = np.array([1 / sizes[name] for name in names])[nearest]
    same = names[nearest] == names[:, None]
    return (weights * same).sum(1) / weights.sum(1)
