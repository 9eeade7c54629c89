"""Figures: three files a figure, the same bytes every time, nothing cut off or covered."""

import matplotlib.pyplot as plt
import pytest

from psr_lib import figures, sheets
from psr_lib.evaluation import read_csv

ROWS = [{"benchmark": "ordered pairs (Eq. 2)", "accuracy": 0.5, "low": 0.3, "high": 0.7},
        {"benchmark": "b", "accuracy": 1.0, "low": 0.9, "high": 1.0}]  # fmt: skip
MODELS = [{"model": f"M{n}", "easy": 90.0, "easy_low": 85.0, "easy_high": 95.0, "big": 10.0 * n,
           "big_low": 9.0 * n, "big_high": 12.0 * n, "mean": 45 + 5.0 * n, "mean_low": 40.0,
           "mean_high": 70.0} for n in range(5)]  # fmt: skip
STEPS = [{"step": n, "rewards/chosen": 0.1 * n, "rewards/rejected": -0.2 * n} for n in range(1, 4)]
LEFT = [{"filter": "sibling pairs", "pairs": 2345, "confirmed": 1200},
        {"filter": "gap of value at least 0.3", "pairs": 1100, "confirmed": 900},
        {"filter": "agrees with the PRM", "pairs": 0, "confirmed": 0}]  # fmt: skip
CURVE = [
    {"p": k / 10 + 0.05, "right": k / 9, "low": max(0, k / 9 - 0.2), "high": min(1, k / 9 + 0.2)}
    for k in range(10)
]
LONG = "A finding that needs more words than fit above the axes of one small figure"


def charts(title="A finding"):
    """One figure of each kind, with the rows that were plotted."""
    pair = ["rewards/chosen", "rewards/rejected"]
    return {
        "bars": (figures.bars(ROWS, "benchmark", "accuracy", title, "accuracy"), ROWS),
        "counts": (figures.bars(STEPS, "step", "step", title, "count"), STEPS),
        "lines": (figures.lines(STEPS, "step", pair, title, "reward"), STEPS),
        "funnel": (figures.funnel(LEFT, "filter", "pairs", title, "pairs"), LEFT),
        "curve": (figures.calibration_curve(CURVE, title), CURVE),
        "models": (figures.accuracy_by_model(MODELS, title), MODELS),
    }


@pytest.fixture(autouse=True)
def no_open_figures():
    plt.close("all")
    yield
    plt.close("all")


def save_all(folder):
    for name, (figure, rows) in charts().items():
        figures.save_fig(figure, folder, name, rows, "smoke laboratory, seed 0, 05 M1, abc")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every figure, saved once; how many were left open."""
    plt.close("all")
    folder = tmp_path_factory.mktemp("saved")
    save_all(folder)
    return folder, plt.get_fignums()


def test_png_pdf_and_csv_have_the_same_bytes_twice(saved, tmp_path):
    save_all(tmp_path)
    made = sorted(path.name for path in saved[0].iterdir())
    assert made == sorted(f"{n}.{k}" for n in charts() for k in ("csv", "pdf", "png"))
    for name in made:
        assert (saved[0] / name).read_bytes() == (tmp_path / name).read_bytes()


def test_no_time_stamp_and_the_source_in_the_files(saved):
    for path in saved[0].glob("*.p*"):
        data = path.read_bytes()
        assert b"CreationDate" not in data and b"ModDate" not in data and b"tIME" not in data
        assert path.suffix == ".pdf" or b"seed 0, 05 M1, abc" in data
    assert [row["benchmark"] for row in read_csv(saved[0] / "bars.csv")] == [
        row["benchmark"] for row in ROWS
    ]


def test_a_saved_figure_is_closed(saved):
    assert saved[1] == []


@pytest.mark.parametrize("name", charts())
@pytest.mark.parametrize("title", ["A finding", LONG])
def test_nothing_is_cut_off_or_covered(tmp_path, name, title):
    figure, rows = charts(title)[name]
    figures.save_fig(figure, tmp_path, name, rows, "the source of this figure")
    figure.canvas.draw()
    inside = figure.axes[0].get_tightbbox()
    footer = figure.texts[0].get_window_extent()
    assert inside.x0 >= 0 and inside.x1 <= figure.bbox.x1 + 1, "cut at a side"
    assert inside.y1 <= figure.bbox.y1 + 1, "cut at the top"
    assert footer.y1 <= inside.y0 + 1, "the footer covers a label"


def test_a_notebook_shows_every_figure_at_one_size_of_its_letters(tmp_path):
    wide, narrow = (sheets.sheet("t", size)[0] for size in (sheets.PAGE, sheets.COLUMN))
    own = figures.lines(STEPS, "step", ["step"], "t", "y")
    for figure, inches in ((wide, 7.1), (narrow, 3.5), (own, 5.2)):
        picture = figures.show_fig(figure, tmp_path, "one", STEPS, "s")
        assert picture.width == round(figures.SCREEN * inches)
        assert (tmp_path / "one.csv").is_file()


def test_one_update_has_a_tick_of_its_own():
    chart = figures.lines([{"step": 1, "loss": 0.7}], "step", ["loss"], "A finding", "loss")
    chart.canvas.draw()
    texts = [tick.get_text() for tick in chart.axes[0].get_xticklabels()]
    assert "1" in texts and all(float(text) % 1 == 0 for text in texts)


def test_a_log_scale_has_plain_numbers():
    rows = [{"x": k, "y": 4 / 2**k} for k in range(5)]
    chart = figures.lines(rows, "x", ["y"], "A finding", "y")
    figures.log_scale(chart.axes[0])
    chart.canvas.draw()
    texts = [tick.get_text() for which in (False, True)
             for tick in chart.axes[0].get_yticklabels(minor=which) if tick.get_text()]  # fmt: skip
    assert chart.axes[0].get_yscale() == "log" and {"0.5", "1", "2"} <= set(texts)
    assert all(float(text) for text in texts), "no powers of ten"


def test_a_log_scale_of_counts_lies_along_x():
    rows = [{"what": name, "count": n} for name, n in (("few", 13), ("many", 30_000))]
    chart = figures.bars(rows, "what", "count", "A finding", "count (log scale)")
    figures.log_scale(chart.axes[0], "x", between=[1])
    chart.axes[0].set_xlim(0.7)
    chart.canvas.draw()
    texts = [tick.get_text() for tick in chart.axes[0].get_xticklabels()]
    assert {"1", "10", "100", "1,000", "10,000"} <= set(texts)
    assert chart.axes[0].get_yscale() == "linear"


def test_one_point_is_seen():
    drawn = figures.lines(STEPS[:1], "step", ["rewards/chosen"], "t", "y").axes[0].lines[0]
    assert drawn.get_marker() not in ("", "None", None)
    many = [{"step": n, "y": n} for n in range(60)]
    assert figures.lines(many, "step", ["y"], "t", "y").axes[0].lines[0].get_marker() == ""


def test_every_benchmark_has_its_intervals_and_the_mean_is_thick():
    drawn = {c.get_label(): c for c in figures.accuracy_by_model(MODELS, "t").axes[0].containers}
    assert list(drawn) == ["easy", "big", "mean"] and all(c.has_yerr for c in drawn.values())
    ends = [tuple(segment[:, 1]) for segment in drawn["big"].lines[2][0].get_segments()]
    assert ends == [(9.0 * n, 12.0 * n) for n in range(5)]
    assert drawn["mean"].lines[0].get_linewidth() > drawn["easy"].lines[0].get_linewidth()


def test_a_funnel_says_how_many_and_which_share_is_kept():
    axes = figures.funnel(LEFT, "filter", "pairs", "t", "pairs").axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["2,345", "1,100 (47%)", "0 (0%)"]
    widths = [bar.get_width() for container in axes.containers for bar in container]
    assert widths == [2345, 1100, 0, 1200, 900, 0]
    assert axes.get_legend() is None and "confirmed by the oracle" in axes.get_xlabel()
    bare = figures.funnel([{"f": "a", "n": 3}], "f", "n", "t", "x").axes[0]
    assert bare.get_xlabel() == "x" and len(bare.containers) == 1
