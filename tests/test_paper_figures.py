"""Figures of the paper and beyond: drawn from any evidence, nothing cut off, intervals there."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
from matplotlib.container import ErrorbarContainer
from paper_run import SETS, SIZE, evidence, summary

from psr_lib import curves, maps, paper, round_curves
from psr_lib.evaluation import read_csv
from psr_lib.evidence import Evidence, NotRun

POINTS = [{"side": side, "group": group, "x": k, "y": k * k} for side in ("prompt", "response")
          for group in ("EFT", "IFT", "PPD") for k in range(4)]  # fmt: skip
APART = [{"side": side, "pair": pair, "silhouette": 0.4, "silhouette_low": 0.3,
          "silhouette_high": 0.5, "own": 0.98, "own_low": 0.9, "own_high": 1.0}
         for side in ("prompt", "response")
         for pair in ("EFT–IFT", "EFT–PPD", "IFT–PPD")]  # fmt: skip
NAMES = ["figure1", "figure2", *curves.CURVES]
MANY = ("psrlm", "srlm", "random-judge", "gold-judge", "ift-more", "sft-chosen")


@pytest.fixture(autouse=True)
def no_open_figures():
    plt.close("all")
    yield
    plt.close("all")


def figures_of(found):
    """Every figure, undrawn, by name."""
    made = {name: draw(take(found)) for name, (take, draw) in curves.CURVES.items()}
    made["figure1"] = maps.flow_figure(maps.flow_rows(found))
    made["figure2"] = maps.map_figure(POINTS, APART)
    return made


def test_every_figure_is_written_with_its_rows_and_source(tmp_path):
    found = evidence()
    drawn = paper.draw(found, POINTS, APART, tmp_path, paper.source_of(found))
    assert list(drawn) == NAMES and plt.get_fignums() == []
    for name in NAMES:
        assert drawn[name] == tmp_path / f"{name}.png"
        assert read_csv(tmp_path / f"{name}.csv")
        assert b"run at 01234567" in (tmp_path / f"{name}.png").read_bytes()
    assert set(paper.CAPTIONS) == set(NAMES)


def test_the_same_evidence_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "CURVES", {"methods": curves.CURVES["methods"]})
    for folder in ("first", "second"):
        paper.draw(evidence(), POINTS, APART, tmp_path / folder, "source")
    made = sorted((tmp_path / "first").iterdir())
    assert len(made) == 3 * 3 + 1, "the map shows a second table"
    for path in made:
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off(name):
    figure = figures_of(evidence(MANY, (0, 1, 2)))[name]
    figure.canvas.draw()
    for part in (*figure.axes, *figure.legends, figure._suptitle):
        box = part.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, f"{part} is cut at a side"
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, f"{part} is cut above or below"
    for part in (*figure.axes, *figure.legends):
        box = part.get_tightbbox(figure.canvas.get_renderer())
        above = figure._suptitle.get_tightbbox(figure.canvas.get_renderer())
        assert box.y1 <= above.y0 + 1, f"the title covers {part}"


@pytest.mark.parametrize("name", ["methods", "tokens", "judge", "steps"])
def test_intervals_are_drawn(name):
    figure = figures_of(evidence())[name]
    bars = [c for axes in figure.axes for c in axes.containers if isinstance(c, ErrorbarContainer)]
    assert bars and all(bar.has_yerr for bar in bars)


def test_the_title_claims_no_more_than_the_paired_interval():
    def kept(method, seed, *right):
        wins = [{"easy": "1" * n + "0" * (100 - n)} for n in right]
        models = [{"model": f"M{n + 1}", "outcomes": won, "accuracy": {"easy": 0.5}}
                  for n, won in enumerate(wins)]  # fmt: skip
        return {"method": method, "seed": seed, "models": models}

    def title(**methods):
        seeds = {"apart": (7, 8)}
        found = [kept(name, seed, 40, last) for name, last in methods.items()
                 for seed in seeds.get(name, (0, 1))]  # fmt: skip
        return curves.finding(curves.methods_rows(Evidence(found)))

    assert title(psrlm=60, far=45) == "M2 is highest with psrlm"
    found = [
        kept(name, 0, 40, last) for name, last in (("srlm", 60), ("psrlm", 45), ("gold-judge", 80))
    ]
    assert (
        curves.finding(curves.methods_rows(Evidence(found)))
        == "M2 is highest with srlm (gold-judge not ranked)"
    )
    assert title(far=45, near=59, psrlm=60) == "M2: psrlm and near cannot be told apart"
    assert title(psrlm=60, apart=45) == "M2: psrlm and apart cannot be told apart"  # not paired
    unfinished = kept("behind", 0, 90)
    rows = curves.methods_rows(Evidence([kept("psrlm", 0, 40, 60), unfinished]))
    assert curves.finding(rows) == "psrlm: 40.0 % at M1, 60.0 % at M2"
    assert title(psrlm=60) == "psrlm: 40.0 % at M1, 60.0 % at M2"


def test_no_two_series_of_a_figure_look_alike():
    for name, figure in figures_of(evidence(MANY)).items():
        for axes in figure.axes if name in ("methods", "tokens", "judge", "steps") else ():
            looks = [(bar[0].get_color(), bar[0].get_marker()) for bar in axes.containers]
            assert len(set(looks)) == len(looks), (name, looks)


def test_curves_hold_the_evidences_numbers():
    found = evidence(seeds=(0, 1))
    rows = {(row["method"], row["model"]): row for row in curves.methods_rows(found)}
    level = found.share(("psrlm", "M3", "greedy"))
    for name in ("value", "low", "high"):
        assert rows["psrlm", "M3"][name] == pytest.approx(getattr(level, name), abs=1e-6)
    spent = [row["tokens"] for row in curves.tokens_rows(found)
             if (row["panel"], row["series"]) == ("rounds", "psrlm")]  # fmt: skip
    assert spent == [0.0, 3e6, 6e6, 9e6]
    answers = {(row["series"], row["model"]): row["tokens"] for row in curves.tokens_rows(found)
               if row["panel"] == "answers"}  # fmt: skip
    assert answers["search", "M1"] == 1500 and answers["greedy", "M4"] == 100
    dear = summary()  # greedy answers to problems that the search was not given are long
    dear["models"][1]["spent"] = {k: " ".join(["100"] * 10 + ["900"] * (SIZE - 10)) for k in SETS}
    (greedy,) = (row["tokens"] for row in curves.tokens_rows(Evidence([dear]))
                 if (row["series"], row["model"]) == ("greedy", "M1"))  # fmt: skip
    assert greedy == 100
    dear["models"] = dear["models"][2:]  # M0 and M1 were not evaluated
    rounds = [row["model"] for row in curves.tokens_rows(Evidence([dear]))
              if (row["panel"], row["series"]) == ("rounds", "psrlm")]  # fmt: skip
    assert rounds == ["M2", "M3", "M4"]
    assert ("best-of-N", "M1") not in answers
    steps = {(r["panel"], r["series"], r["model"]) for r in curves.steps_rows(found)}
    assert steps == {(p, s, f"M{n}") for p in ("number", "length", "total")
                     for s in (*SETS, "mean") for n in range(1, 5)}  # fmt: skip


def test_decodings_at_equal_tokens_stand_apart():
    ways = {"greedy": 100, "search": 1700, "best-of-N": 1700, "majority": 1700}
    rows = [{"panel": "answers", "series": way, "model": model, "value": 40.0,
             "tokens": tokens + 73.3 * (model == "M4" and way != "greedy"),
             "low": 35.0, "high": 45.0, "gain": 1.0, "gain_low": 0.5, "gain_high": 1.5}
            for way, tokens in ways.items() for model in ("M1", "M4")]  # fmt: skip
    rows.append({"panel": "rounds", "series": "psrlm", "model": "M1", "tokens": 0, "value": 4.0})
    figure = curves.tokens_figure(rows)
    figure.canvas.draw()
    axes = figure.axes[1]
    places = sorted(x for bars in axes.containers for x in bars[0].get_xdata())
    assert len(places) == 8 and min(b - a for a, b in pairwise(places)) > 0.15
    assert [t.get_text() for t in axes.get_xticklabels()][:2] == [
        "greedy\n100, 100",
        "step search\n1.7 k, 1.8 k",
    ]
    boxes = [t.get_window_extent() for t in (*axes.texts, *axes.get_xticklabels())]
    assert not [(a, b) for k, a in enumerate(boxes) for b in boxes[:k] if a.overlaps(b)]


def test_titles_state_what_was_found():
    figures = figures_of(evidence())
    assert figures["methods"].get_suptitle() == "M4 is highest with psrlm"
    gain = evidence().change(("psrlm", "M4", "greedy"), ("psrlm", "M4", "search"))
    title = figures["tokens"].get_suptitle().replace("\n", " ")
    assert "15 times greedy" in title
    assert f"{gain.value:+.1f} points [{gain.low:+.1f}, {gain.high:+.1f}]" in title
    assert "33, 33, 33 step pairs" in figures["figure1"].get_suptitle().replace("\n", " ")


def test_the_dpo_figure_means_over_seeds_and_late_updates():
    rows = [
        {"model": "M2", "seed": seed, "update": k, "margin": float(k * (1 + seed)),
         "chosen": -1.0, "rejected": -2.0}
        for seed in (0, 1) for k in range(8 - seed)
    ]  # fmt: skip
    figure = round_curves.dpo_figure(rows)
    late = (6.5 + (10 + 12) / 2) / 2  # of 0..7 and of 0, 2, .., 12
    assert figure.get_suptitle().replace("\n", " ").endswith(f"{late:+.2f} (M2)")
    (mean,) = (line for line in figure.axes[0].lines if line.get_label() == "M2")
    assert list(mean.get_xdata()) == list(range(7))
    assert list(mean.get_ydata()) == [1.5 * k for k in range(7)]


def test_figure_1_shows_each_count_of_the_run():
    one = summary()
    texts = "\n".join(
        t.get_text() for t in maps.flow_figure(maps.flow_rows(Evidence([one]))).axes[0].texts
    )
    for shown in (
        "200 judge rows", "50 held out", "100 solutions", "19 SFT updates", "10 questions",
        "360 candidates", "500 verdicts", "12 ties", "5 roll-backs", "33 pairs", "7 DPO updates",
    ):  # fmt: skip
        assert shown in texts, shown


def test_figure_1_of_an_unfinished_run_says_what_is_missing():
    one = summary()
    one["stages"] = one["stages"][:1]
    chart = maps.flow_figure(maps.flow_rows(Evidence([one])))
    texts = "\n".join(t.get_text() for t in chart.axes[0].texts)
    assert "SFT updates: not run" in texts and "questions" not in texts


def test_without_results_no_figure_is_drawn(tmp_path):
    drawn = paper.draw(Evidence([]), [], [], tmp_path, "s")
    assert list(drawn) == NAMES and not list(tmp_path.iterdir())
    assert all(isinstance(why, str) and why.startswith("not run: ") for why in drawn.values())


def test_missing_parts_leave_the_rest():
    one = summary(steps=False)
    for model in one["models"]:
        model.pop("training", None), model.pop("decodings", None)
    found = Evidence([one])
    for name in ("dpo", "steps"):
        with pytest.raises(NotRun):
            curves.CURVES[name][0](found)
    rows = curves.tokens_rows(found)
    assert {row["panel"] for row in rows} == {"rounds"}
    curves.tokens_figure(rows)
