"""The page of `make report`: whole by itself, true to the run, the same again, and safe to open."""

import base64
import re
import struct
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from test_results import fake_run
from test_rounds import FIRST, LAST, SIGN, TEXT, candidate, expansion, pair
from test_show import ALLOWED, EVIL
from tiny_model import eft

from psr_lib import claims, facts, manifest, paper, presets, report, report_runs
from psr_lib.evidence import GREEDY
from psr_lib.methods import SEARCH
from psr_lib.records import PSRError, Question, read_json, read_jsonl, write_json, write_jsonl
from psr_lib.robins import RoundRobin, Verdict
from psr_lib.run_dirs import RunDir, run_of
from psr_lib.traces import SearchTrace

TINY = presets.load("tiny", "rounds=2 data.benchmark_folder=nowhere")
PAGE = {"html", "head", "meta", "title", "style", "body", "main", "header", "nav", "h1", "h2", "h3",
        "p", "a", "figure", "figcaption", "img"}  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 2000, 900) + b"no more of it"


def searched(question):
    """A search with a pair, its question under attack."""
    e = expansion([candidate(FIRST), candidate(SIGN)], {}, chosen=0, rejected=1, outcome="kept")
    e.robin = RoundRobin((1, 0), {(0, 1): Verdict("A", "because")}, 2, 2)
    row = SearchTrace(Question(id="q/0", text=question), path=[FIRST], status="complete",
                      expansions=[e], pairs=[pair(FIRST, SIGN)])  # fmt: skip
    return row.to_row()


def make_run(root, seed=0):
    """A run of two rounds with outcomes, texts, a search, pairs, verdicts and a figure."""
    run, answers = fake_run(root, seed=seed)
    for n, rows in answers.items():
        texts = [{**row, "text": f"{FIRST}\n{LAST} M{n} {row['problem_id']}"} for row in rows]
        write_jsonl(run.eval("psrlm", n) / "answers.jsonl.gz", texts)
    write_jsonl(run.ppd("psrlm", 2) / "traces.jsonl.gz", [searched(EVIL), searched(TEXT)][:1])
    write_jsonl(run.ppd("psrlm", 2) / "ppd.jsonl", [pair(FIRST, SIGN), pair(LAST, SIGN, [FIRST])])
    write_jsonl(run.data / "eft_heldout.jsonl", [eft(0)])
    told = {
        "id": eft(0).id,
        "problem_id": eft(0).problem_id,
        "better": "B",
        "verdict": "A",
        "correct": False,
        "explanation": EVIL,
    }
    write_jsonl(run.eval("psrlm", 2) / "verdicts.jsonl.gz", [told] * 4)
    (run.paper / "figures").mkdir(parents=True)
    (run.paper / "figures" / "methods.png").write_bytes(PNG)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run and its page."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "root", lambda: root)
        run = make_run(root / "runs")
        path = report.write(run, TINY)
        yield SimpleNamespace(run=run, path=path, text=path.read_text(), root=root,
                              evidence=paper.evidence_of(run, 2)[0])  # fmt: skip


class Links(HTMLParser):
    """Elements, and what they point at."""

    def __init__(self, text):
        super().__init__()
        self.names, self.targets, self.ids, self.handlers = set(), [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.targets.append(value)
            self.ids |= {value} if name == "id" else set()
            self.handlers += [name] if name.startswith("on") else []


def plain(text):
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_the_page_needs_nothing_else(made):
    page = Links(made.text)
    assert page.names <= ALLOWED | PAGE and "script" not in page.names and page.handlers == []
    inside = {target for target in page.targets if target.startswith("#")}
    assert inside == {f"#{name}" for name in ("claims", "tables", "figures", "examples", "cost",
                                              "provenance")}  # fmt: skip
    assert {target[1:] for target in inside} <= page.ids
    link = "https://arxiv.org/abs/2503.03746"  # of the paper, for whoever wants to follow it
    rest = [target for target in page.targets if not target.startswith("#") and target != link]
    assert rest and all(target.startswith("data:image/png;base64,") for target in rest)
    styles = re.search(r"<style>(.*?)</style>", made.text, re.DOTALL)[1]
    assert "url(" not in styles and "@import" not in styles
    assert "default-src 'none'" in made.text, "a browser would refuse to load anything"
    assert "prefers-color-scheme: dark" in styles and 'name="viewport"' in made.text


def test_the_texts_of_models_stay_texts(made):
    assert "<script>alert" not in made.text and "&lt;script&gt;alert(1)" in made.text
    assert "\x1b" not in made.text and "\u202e" not in made.text


def test_it_names_no_place_of_this_machine(made):
    assert str(made.root) not in made.text


def test_the_page_says_when_the_tests_of_claims_were_written(made):
    text = plain(made.text)
    assert "a claim that came later says so" in text and "before the results" not in text
    assert [one["id"] for one in facts.claims() if "added when" in one["claim"]] == ["search-last"]


def test_numbers_are_the_runs(made):
    text = plain(made.text)
    level = made.evidence.share(("psrlm", "M2", GREEDY))
    change = made.evidence.change(("psrlm", "M1", GREEDY), ("psrlm", "M2", GREEDY))
    assert f"psrlm: mean accuracy of M2 {level.value:.1f} %" in text
    assert f"{change.value:+.1f} points from M1".replace("-", "−") in text
    verdicts = [one.verdict for one in claims.ledger(made.evidence)]
    good = verdicts.count(claims.REPLICATED)
    assert f"claims of the paper, replicated {good} of {len(verdicts)}" in text
    assert text.count("✗ not replicated") == verdicts.count(claims.NOT)
    stages = len(list(made.run.path.rglob(manifest.NAME)))
    total = f"all {stages:.2f} {stages:.2f} {2 * stages:.2f}"  # a minute, a and two M tokens each
    assert total in text and f"{stages}.0 minutes" in text


def test_figures_are_whole_and_missing_ones_are_named(made):
    (data,) = re.findall(r"base64,([^\"]+)\" alt=\"([^\"]+)\"", made.text)
    assert base64.b64decode(data[0]) == PNG and data[1] == paper.CAPTIONS["methods"]
    missing = [text for name, text in paper.CAPTIONS.items() if name != "methods"]
    assert all(text in plain(made.text) for text in missing)


def test_examples_are_of_the_run(made):
    text = plain(made.text)
    for title in ("A search for the pairs of M2, by M1", "Its judge", "Preference pair 2 of M2",
                  "A problem that was gained", "A problem that was lost",
                  "A held-out pair, judged by M2"):  # fmt: skip
        assert text.count(title) == 1, title
    assert "because" in text
    first, last = (
        {row["problem_id"]: row["strict"] for row in answers(made.run, n)} for n in (1, 2)
    )
    (gained,) = re.findall(r"was gained.*? M1 ([a-z]+/\d)", text)
    assert gained == next(name for name in first if not first[name] and last[name])


def answers(run, n):
    return read_jsonl(run.eval("psrlm", n) / "answers.jsonl.gz")


def test_the_same_run_gives_the_same_page(made):
    before = made.path.read_bytes()
    assert report.write(made.run, TINY).read_bytes() == before


def test_changes_that_were_not_committed_are_told(made, tmp_path):
    one = read_json(made.run.ppd("psrlm", 2) / manifest.NAME)
    dirty = {**one, "git": {"commit": "fedcba9876543210", "dirty": True}, "by_hand": True,
             "started": "2025-11-22T10:00:00Z", "params_hash": "abc"}  # fmt: skip
    rows = dict(report_runs.provenance([one, dirty])["rows"])
    assert rows["commits"] == "0123456789ab; fedcba987654, with changes that were not committed"
    assert rows["run by hand"] == "03_search_judge M2"
    assert rows["stages"].endswith("2025-11-22 10:00:00 UTC")


def test_a_claims_verdict_stands_beside_it(made):
    head = re.search(r'id="claims".*?<thead>(.*?)</thead>', made.text, re.DOTALL).group(1)
    assert plain(head) == "claim verdict the paper effect 95 % interval what decides it"


def test_stages_with_the_same_parameters_are_counted_and_then_named():
    def one(n, **params):
        return {"stage": "05_evaluate", "method": "psrlm", "iteration": n, "params": params}

    same = {"templates": {"solve": "ab"}, "rounds": 2}
    first, second = report_runs.parameters([one(1, **same), one(2, **same), one(3, rounds=4)])
    assert first["name"] == "05_evaluate M1 and 1 more"
    assert first["text"] == "# 05_evaluate M1, 05_evaluate M2\nrounds: 2\n"
    assert second == {"name": "05_evaluate M3", "text": "rounds: 4\n"}


def test_prompts_of_a_stage_that_names_no_family_are_not_listed():
    params = {"templates": {"solve": "abc"}}
    assert report_runs._templates(params) == ""
    assert report_runs._templates({**params, "prompts": "paper"}) == "paper: solve abc"


def test_costs_are_by_method_and_stage():
    def one(stage, method, minutes):
        return {"stage": stage, "method": method, "wall_seconds": 60 * minutes,
                "tokens": {"generated": 500_000, "judged": 0}}  # fmt: skip

    made = [one(SEARCH, "srlm", 1), one(SEARCH, "psrlm", 2), one(SEARCH, "psrlm", 3),
            one("01_data_prep", "", 4)]  # fmt: skip
    assert report_runs.cost(made)["rows"] == [
        ["shared", "data", "4.00", "0.50", "0.00"],
        ["psrlm", "search and judge", "5.00", "1.00", "0.00"],
        ["srlm", "search and judge", "1.00", "0.50", "0.00"],
        ["all", "", "10.00", "2.00", "0.00"],
    ]


def test_several_seeds_are_one_page(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    for seed in (0, 1):
        make_run(tmp_path / "runs", seed)
    together = run_of("tiny", 0, tmp_path / "runs", "0 1")
    path = report.write(together, TINY)
    assert path == together.path / "report.html"
    text = plain(path.read_text())
    assert text.count("tiny, seeds 0, 1") == 2 and "seeds 0; 1" in text
    assert "Examples All of seed 0." in text


def test_a_run_of_which_m1_was_not_evaluated_has_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    run = make_run(tmp_path / "runs")
    (run.eval("psrlm", 1) / manifest.NAME).unlink()
    text = plain(report.write(run, TINY).read_text())
    assert "psrlm: mean accuracy of M2" in text and "points from M1" not in text


def test_no_example_is_of_a_stage_that_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    run = make_run(tmp_path / "runs")
    for folder in (run.ppd("psrlm", 2), run.eval("psrlm", 2), run.data):
        (folder / manifest.NAME).unlink()
    text = plain(report.write(run, TINY).read_text())
    assert "An answer of M1" in text
    assert not any(word in text for word in ("A search for", "Preference pair", "A held-out pair"))


def test_a_changed_file_has_no_page(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    run = make_run(tmp_path / "runs")
    folder = run.ppd("psrlm", 2)
    made = {**read_json(folder / manifest.NAME), "inputs": {}}
    made["outputs"] = {"ppd.jsonl": manifest.describe(folder / "ppd.jsonl")}
    write_json(folder / manifest.NAME, manifest.sealed(made))
    report.write(run, TINY)
    write_jsonl(folder / "ppd.jsonl", [pair(LAST, SIGN)])
    with pytest.raises(PSRError, match=r"ppd: ppd.jsonl changed .* 03_search_judge M2 has to run"):
        report.write(run, TINY)


def test_a_run_that_holds_nothing_has_no_page(tmp_path):
    with pytest.raises(PSRError, match="nothing to report; run make reproduce first"):
        report.write(RunDir("tiny", 5, tmp_path), TINY)
    assert list(tmp_path.iterdir()) == []
