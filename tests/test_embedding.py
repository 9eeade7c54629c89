"""Figure 2's numbers: embeddings by hand, silhouettes against scikit-learn, groups that differ."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_samples
from tiny_model import eft, ift, make_tiny_model, step_pair

from psr_lib import embedding, prompts
from psr_lib.memory import Memory
from psr_lib.models import load_model, text_ids
from psr_lib.records import PSRError, write_jsonl
from psr_lib.run_dirs import RunDir
from psr_lib.stats import wilson


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "m")


def test_an_embedding_is_the_mean_of_the_last_hidden_states(tiny):
    folder, tokenizer = tiny
    found = ["Tom has 14 pens.", "Step 1: 14 + 25 = 39.\nStep 2: x", "x"]
    vectors = embedding.embed(found, folder, "cpu")
    model = load_model(folder, "float32", "cpu")
    for text, vector in zip(found, vectors, strict=True):
        ids = torch.tensor([text_ids(tokenizer, text)])
        states = model(ids, output_hidden_states=True).hidden_states[-1][0]
        assert vector == pytest.approx(states.mean(0).detach().numpy(), abs=1e-4)


def test_batches_do_not_change_an_embedding(tiny, monkeypatch):
    found = [f"Tom has {k} pens." * (1 + k % 4) for k in range(12)]
    whole = embedding.embed(found, tiny[0], "cpu")
    monkeypatch.setattr(embedding, "BATCH_TOKENS", 30)
    assert len(embedding._batches([[0] * 20] * 3)) == 3
    assert embedding.embed(found, tiny[0], "cpu") == pytest.approx(whole, abs=1e-4)


def test_a_model_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PSRError, match=r"paper\.embedding: no/such-model cannot be loaded"):
        embedding.embed(["x"], "no/such-model", "cpu")


def clouds(gap, sizes=(30, 20)):
    noise = np.random.default_rng(0)
    groups = ["EFT"] * sizes[0] + ["IFT"] * sizes[1]
    vectors = noise.normal(size=(sum(sizes), 6))
    vectors[: sizes[0], 0] += gap
    vectors[sizes[0] :, 0] -= gap
    return vectors, groups


def test_silhouettes_are_scikit_learns():
    vectors, groups = clouds(1.0)
    distances = embedding._cosine_distances(vectors)
    mine = embedding.silhouettes(distances, np.array(groups))
    assert mine == pytest.approx(silhouette_samples(vectors, groups, metric="cosine"))


def test_neighbours_by_plain_loops_and_groups_weigh_alike():
    vectors, groups = clouds(0.5)
    distances = embedding._cosine_distances(vectors)
    mine = embedding.own_neighbours(distances, np.array(groups))
    for k, share in enumerate(mine):
        order = sorted((d, j) for j, d in enumerate(distances[k]) if j != k)[: embedding.NEAREST]
        weight = {name: 1 / groups.count(name) for name in set(groups)}
        own = sum(weight[groups[j]] for _, j in order if groups[j] == groups[k])
        assert share == pytest.approx(own / sum(weight[groups[j]] for _, j in order))


def test_mixed_groups_are_near_chance_and_distant_ones_apart():
    each = [str(k) for k in range(50)]
    (mixed,), (apart,) = (embedding.separation(*clouds(gap), each) for gap in (0.0, 9.0))
    assert abs(mixed["silhouette"]) < 0.03 and 0.4 < mixed["own"] < 0.6
    assert apart["silhouette"] > 0.8 and apart["own"] == 1.0 and apart["pair"] == "EFT–IFT"
    assert mixed["own_low"] < mixed["own"] < mixed["own_high"]
    assert apart["own_high"] == 1 and apart["own_low"] == pytest.approx(wilson(50, 50)[0])


def test_texts_of_one_problem_count_as_one_in_the_interval():
    vectors, groups = clouds(0.5)
    copies = vectors.repeat(5, 0), [name for name in groups for _ in range(5)]
    (own,), (shared,) = (
        embedding.separation(*copies, [str(k // texts) for k in range(250)]) for texts in (1, 5)
    )
    assert own["silhouette"] == pytest.approx(shared["silhouette"])
    widths = [row["silhouette_high"] - row["silhouette_low"] for row in (own, shared)]
    assert widths[1] == pytest.approx(5**0.5 * widths[0], rel=0.15)


def test_a_map_is_seeded_and_takes_few_texts():
    vectors, _ = clouds(2.0, (6, 5))
    first, second = (embedding.tsne(vectors, 30.0, 3) for _ in range(2))
    assert first.shape == (11, 2) and (first == second).all()


@pytest.fixture
def stage(tmp_path, tiny):
    run = RunDir("tiny", 0, tmp_path)
    write_jsonl(run.data / "eft.jsonl", [eft(k) for k in range(20)])
    write_jsonl(run.data / "ift.jsonl", [ift(k) for k in range(20)])
    for n in (2, 3):
        write_jsonl(run.ppd("psrlm", n) / "ppd.jsonl", [step_pair(10 * n + k) for k in range(10)])
    settings = SimpleNamespace(embedding="own", embedded=8, perplexity=5.0)
    preset = SimpleNamespace(paper=settings, prompts="compact", model=SimpleNamespace(device="cpu"))
    taken = []
    return SimpleNamespace(run=run, preset=preset, model=lambda n: tiny[0], taken=taken,
                           holding=lambda path: taken.append(path) or path)  # fmt: skip


def test_groups_have_equal_numbers_and_every_round_is_drawn_from(stage):
    found = embedding.texts(stage, stage.run, 4, prompts.load("compact"))
    groups = [one["group"] for one in found]
    assert {name: groups.count(name) for name in groups} == {"EFT": 8, "IFT": 8, "PPD": 8}
    assert [path.parts[-3:][0] for path in stage.taken[-2:]] == ["M2", "M3"]
    ppd = [one for one in found if one["group"] == "PPD"]
    assert {one["problem"] for one in found} <= {f"p/{k}" for k in range(40)}
    assert all(one["response"].startswith("Step") for one in ppd)
    judged = next(one for one in found if one["group"] == "EFT")
    assert judged["prompt"].rstrip().endswith("Review:") and "[[" in judged["response"]
    assert found == embedding.texts(stage, stage.run, 4, prompts.load("compact"))


def test_the_map_is_made_once(stage):
    memory = Memory()
    points, apart = embedding.map_rows(stage, stage.run, 4, memory)
    assert len(points) == 2 * 24 and len(apart) == 6 and memory.made == 1
    assert embedding.map_rows(stage, stage.run, 4, memory) == (points, apart)
    assert memory.made == 1
    stage.preset.paper.perplexity = 4.0
    embedding.map_rows(stage, stage.run, 4, memory)
    assert memory.made == 2


def test_a_run_without_data_has_no_map(stage):
    empty = RunDir("tiny", 1, stage.run.root)
    assert embedding.map_rows(stage, empty, 4, Memory()) == ([], [])
