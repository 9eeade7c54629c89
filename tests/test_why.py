"""From a number of a table back to what it was made from, on runs written by hand."""

import json
import re
from collections import Counter
from dataclasses import asdict

import pytest
from conftest import ROOT
from paper_run import evidence
from test_results import fake_run

from psr_lib import (
    ablations,
    claims,
    commands,
    facts,
    items,
    ledger,
    lineage,
    manifest,
    more_tables,
    origins,
    readme,
    readme_items,
    results,
    tables,
    upkeep,
    why,
)
from psr_lib.evaluation import write_csv
from psr_lib.evidence import Source, sources
from psr_lib.items import Item
from psr_lib.methods import DATA, DPO, EVALUATE, INIT, LAB, PAPER, SEARCH, STEPS
from psr_lib.records import PSRError, write_json
from psr_lib.run_dirs import Key, RunDir
from psr_lib.tables import RUN

NAME = re.compile(r"[\w.+-]+(/[\w.+-]+)+")


def all_tables(found):
    """Every table of `make paper`."""
    return [*more_tables.make_all(found), ledger.table(claims.ledger(found), found)]


# --- the names, and what each number says it was computed from


def test_every_number_has_a_name_of_its_own_and_says_what_it_came_from():
    rows = [row for table in all_tables(evidence(seeds=(0, 1))) for row in tables.rows(table)]
    names = [row["item"] for row in rows]
    assert len(set(names)) == len(names) > 500
    assert [name for name in names if not NAME.fullmatch(name)] == []
    ours = [row for row in rows if row["source"] == RUN and row["value"]]
    assert len(ours) > 150 and [row["item"] for row in ours if not row["sources"]] == []
    numbers = re.compile(r"[<+−-]?\s?\d+(\.\d+)?")
    texts = [row for row in rows if numbers.fullmatch(row["text"].strip())]
    assert len(texts) > 200 and [row["item"] for row in texts if not row["sources"]] == []


def test_sources_of_some_numbers():
    found = {row["item"]: row for table in all_tables(evidence()) for row in tables.rows(table)}
    for item, made_of in {
        "table1/psrlm/M4/hard": "psrlm/M4/greedy/hard",
        "table1/M0/average": "psrlm/M0/greedy",
        "table2/random-judge/p": "psrlm/M1/greedy random-judge/M4/greedy",
        "table3/psrlm/M1": "psrlm/M1/judge",
        "table4/length/M2/average": "psrlm/M2/step_tokens psrlm/M2/steps",
        "table5/M1/search-minus-greedy": "psrlm/M1/greedy psrlm/M1/search",
        "table7/paper/7B/number/M4/math": "data/paper/table7.csv",
        "table1/psrlm/M4/paper-7B-average": "data/paper/table1.csv",
        "judge/M1/M2/ties": f"psrlm/M2/{SEARCH}",
        "budget/psrlm/all": " ".join(f"psrlm/M{n}/{SEARCH}" for n in (2, 3, 4)),
        "claims/judge/judge-accuracy-M1/estimate": "psrlm/M1/judge",
    }.items():
        assert found[item]["sources"] == made_of, item


def test_a_source_is_read_as_it_was_written():
    for one in sources([("reference", "gpt/4o mini", "greedy"), ("psrlm", "M1", "search")], ["a"]):
        assert Source.read(str(one)) == one and " " not in str(one)
    assert Source.read("psrlm/M2/steps") == Source("psrlm", "M2", "steps")


# --- the files behind a source, and the chain behind a file


def write(run, key, inputs=(), outputs=("x",), **more):
    """A stage's manifest, of hand-made hashes."""
    folder = run.folder(key)
    for name in outputs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_text(f"{key} {name}")
    params = {"method": key.method, "iteration": key.n, "seed": run.seed, "prompts": "compact",
              "search": {"width": 4}, "templates": {"solve": "5" * 64}, **more}  # fmt: skip
    hashes = {name: {"hash": manifest.fingerprint(run.path / name)} for name in inputs}
    write_json(folder / manifest.NAME, manifest.sealed({
        "format": manifest.FORMAT, "status": "complete", "stage": key.stage, "method": key.method,
        "iteration": key.n, "seed": run.seed, "params": params, "params_hash": "9" * 64,
        "git": {"commit": "0123456789abcdef", "dirty": True}, "code": {}, "device": "cpu",
        "started": "2026-11-22T12:00:00Z", "wall_seconds": 1.0, "counts": {},
        "tokens": {"generated": 0, "judged": 0},
        "inputs": {f"run:{name}": entry for name, entry in hashes.items()},
        "outputs": {name: manifest.describe(folder / name) for name in outputs},
    }))  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """M0 to M2 of psrlm and a control, with step counts and a laboratory."""
    run = RunDir("tiny", 0, tmp_path / "runs")
    both = ("answers.jsonl.gz", "verdicts.jsonl.gz")
    write(run, Key(DATA), outputs=("ift.jsonl", "questions_2.jsonl"))
    write(run, Key(INIT, "psrlm", 1), ["data/ift.jsonl"], ("model.safetensors",))
    write(run, Key(EVALUATE, "psrlm", 1), ["psrlm/M1/model"], both)
    asked = ["data/questions_2.jsonl", "psrlm/M1/model"]
    write(run, Key(SEARCH, "psrlm", 2), asked, ("ppd.jsonl",))
    for method in ("psrlm", "sft-chosen"):
        pairs = ["psrlm/M2/ppd/ppd.jsonl", "psrlm/M1/model"]
        write(run, Key(DPO, method, 2), pairs, ("model.safetensors",), dpo={"m": method})
        answers = (*both, "search_answers.jsonl.gz") if method == "psrlm" else both
        write(run, Key(EVALUATE, method, 2), [f"{method}/M2/model"], answers)
    write(run, Key(STEPS), ["psrlm/M2/eval/answers.jsonl.gz", "sft-chosen/M2/eval/manifest.json"])
    write(run, Key(LAB, "psrlm", 2), ["psrlm/M2/eval/manifest.json"],
          ("judge.csv", "ways_answers.jsonl.gz"))  # fmt: skip
    return run


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("psrlm/M2/greedy/easy", ["psrlm/M2/eval/answers.jsonl.gz"]),
        ("psrlm/M1/judge", ["psrlm/M1/eval/verdicts.jsonl.gz"]),
        ("sft-chosen/M1/greedy", ["psrlm/M1/eval/answers.jsonl.gz"]),
        ("psrlm/M2/search", ["psrlm/M2/eval/search_answers.jsonl.gz"]),
        ("psrlm/M2/best-of-N", ["psrlm/M2/judge/ways_answers.jsonl.gz"]),
        ("psrlm/M2/steps", ["steps/steps.jsonl.gz", "psrlm/M2/eval/answers.jsonl.gz"]),
        (f"sft-chosen/M2/{SEARCH}", ["psrlm/M2/ppd/"]),
        ("psrlm/M1/laboratory", ["psrlm/M2/judge/judge.csv"]),
        ("psrlm/M3/greedy", []),
        ("reference/API/greedy", []),
    ],
)
def test_the_files_behind_a_source(run, source, wanted):
    found = origins.artifacts(run, Source.read(source), lineage.records(run))
    assert [f"{folder}/{name}" for folder, name in found] == wanted


def test_the_chain_goes_back_to_the_data_and_not_sideways(run):
    made = lineage.records(run)
    assert lineage.chain(made, ["sft-chosen/M2/eval"]) == [
        "sft-chosen/M2/eval", "sft-chosen/M2/model", "psrlm/M2/ppd", "psrlm/M1/model", "data",
    ]  # fmt: skip
    assert lineage.chain(made, ["steps"]) == ["steps"], "a report has read everything"
    assert lineage.made_from(made, "psrlm/M2/ppd") == [
        "psrlm/M2/eval", "psrlm/M2/judge", "psrlm/M2/model", "sft-chosen/M2/eval",
        "sft-chosen/M2/model", "steps",
    ]  # fmt: skip


def stored(run, found):
    """The tables of `make paper`, as notebook 08 writes them."""
    for table in all_tables(found):
        tables.write(table, run.paper / "tables")
    read = [f"psrlm/M2/{name}/manifest.json" for name in ("ppd", "eval")]
    write(run, Key(PAPER), read, manifest.files_in(run.paper))


def test_why_tells_the_chain_with_parameters_prompts_commit_and_seed(run):
    stored(run, evidence(rounds=2))
    lines = why.explain(run, "table1/psrlm/M2/hard")
    text = "\n".join(lines)
    assert re.match(r"table1/psrlm/M2/hard = [\d.]+ \[[\d.]+, [\d.]+\]$", lines[0])
    assert "seed 0: psrlm/M2/eval/answers.jsonl.gz" in lines
    stages_ = [line.split()[0] for line in lines if re.match(r"\d\d_", line)]
    assert stages_ == [EVALUATE, DPO, SEARCH, INIT, DATA]
    for words in ("made     2026-11-22T12:00:00Z at 0123456789ab with changes on cpu",
                  "params   999999999999: prompts, search", "prompts  solve 555555555555",
                  "read     psrlm/M2/model ", '  search    {"width": 4}', "  prompts   compact",
                  "wrote    ppd.jsonl "):  # fmt: skip
        assert words in text, words
    hashed = manifest.fingerprint(run.eval("psrlm", 2) / "answers.jsonl.gz")[: why.SHORT]
    assert f"answers.jsonl.gz {hashed}" in text and "NOW" not in text
    place = manifest.shown(run.paper / "tables/table1.csv")
    when = "2026-11-22T12:00:00Z at 0123456789ab with changes"
    assert lines[1] == f"  in    {place}, by 08_paper, {when}"


def test_why_says_what_is_no_longer_as_it_was(run):
    stored(run, evidence(rounds=2))
    (run.ppd("psrlm", 2) / "ppd.jsonl").write_text("edited")
    found = [line for line in why.explain(run, "table1/psrlm/M2/hard") if "NOW" in line]
    assert len(found) == 2 and "ppd.jsonl changed after it was written" in found[1]
    assert "run:psrlm/M2/ppd/ppd.jsonl is not what 04_step_dpo M2 read" in found[0]


def test_why_says_that_a_table_is_older_than_the_run(run):
    stored(run, evidence(rounds=2))
    (run.ppd("psrlm", 2) / "ppd.jsonl").unlink()
    write(run, Key(SEARCH, "psrlm", 2), outputs=("ppd.jsonl",), search={"width": 6})
    lines = why.explain(run, "table1/psrlm/M2/hard")
    assert lines[3].startswith("  NOW   run:psrlm/M2/ppd/manifest.json is not what 08_paper read")
    assert any(line.endswith('{"width": 6}') for line in lines), "it was not made with that"


def test_an_edited_or_unfinished_table_explains_nothing(run):
    stored(run, evidence(rounds=2))
    table = run.paper / "tables" / "table1.csv"
    table.write_text(table.read_text().replace("psrlm", "psr1m"))
    with pytest.raises(PSRError, match=r"table1.csv changed after it was written; 08_paper has to"):
        why.explain(run, "table1/psrlm/M2/hard")
    (run.paper / manifest.NAME).unlink()
    assert items.of_tables(run) == {}


def test_a_sampled_hash_is_shortened_to_its_digits(run, monkeypatch):
    monkeypatch.setattr(manifest, "LARGE", 0)
    monkeypatch.setattr(manifest, "SAMPLE", 1)
    weights = run.model("psrlm", 2) / "model.safetensors"
    hashed = manifest.fingerprint(weights)
    write(run, Key(DPO, "psrlm", 2), outputs=("model.safetensors",))
    kept = lineage.brief(run, [weights.parent])["stages"]["psrlm/M2/model"]["outputs"]
    assert hashed.startswith("sampled-") and hashed.rpartition("-")[2].startswith(*kept.values())
    assert all(len(one) == lineage.DIGITS for one in kept.values())


def test_where_stages_differ_in_a_parameter_both_are_told(run):
    made = lineage.records(run)
    found = lineage.settings([made["psrlm/M2/model"], made["sft-chosen/M2/model"]])
    assert found["dpo"] == {"m": "psrlm"} and found["prompts"] == "compact"
    assert found["dpo in 04_step_dpo sft-chosen"] == {"m": "sft-chosen"}


def test_a_number_of_the_paper_names_its_file(run):
    stored(run, evidence(rounds=2))
    lines = why.explain(run, "table7/paper/7B/number/M4/math")
    assert lines[0].endswith(f"= {facts.look_up('7/7B/number/M4/math')}")
    assert "data/paper/table7.csv: the paper's own number" in lines[2]
    assert (ROOT / "data/paper/table7.csv").is_file()


def test_an_unknown_item_is_one_line_with_the_nearest(run):
    stored(run, evidence(rounds=2))
    with pytest.raises(PSRError, match="did you mean 'table1/psrlm/M2/hard'") as caught:
        why.explain(run, "table1/psrlm/M2/hrad")
    assert "\n" not in str(caught.value)
    with pytest.raises(PSRError, match="did you mean 'readme/accuracy/"):
        why.explain(run, "readme/acuracy/psrlm/0/M1")


def test_the_beginning_of_a_name_shows_what_stands_below_it(run):
    stored(run, evidence(rounds=2))
    row = "table1/psrlm/M2/{easy,hard,average,paper-7B-average,paper-72B-average}"
    with pytest.raises(PSRError, match=re.escape(f"did you mean {row!r}? (make why lists")):
        why.explain(run, "table1/psrlm/M2")
    with pytest.raises(PSRError, match=r"item 'figure99' is unknown \(make why lists them all\)"):
        why.explain(run, "figure99")


def test_a_seed_that_lacks_a_part_of_the_number_is_no_part_of_it(run, tmp_path):
    """As in `Evidence.data`: the search of M2 was compared with best-of-N in one seed alone."""
    stored(run, evidence(rounds=2))
    made = lineage.records(run)
    both = [Source("psrlm", "M2", name) for name in ("search", "best-of-N")]
    assert origins.missing(run, both, made) == []
    (run.lab("psrlm", 2) / manifest.NAME).unlink()
    made = lineage.records(run)
    assert origins.missing(run, both, made) == ["psrlm/M2/best-of-N"]
    item = Item("table5/M2/best-of-N", "32", "table5.csv", tuple(both))
    told = list(why._told(run, item, made, lineage.settings, lambda folder: "", "seed 0"))
    assert told == ["", "seed 0: no part of it, as there is no psrlm/M2/best-of-N"]
    counts = [Source("psrlm", f"M{n}", SEARCH) for n in (2, 3)]
    assert origins.missing(run, counts, made) == [], "counts are averaged each by itself"


def test_items_are_listed_a_line_a_row(run, tmp_path):
    stored(run, evidence(rounds=2))
    lines = why.listing(run)
    assert "table1/psrlm/M2/{easy,hard,average,paper-7B-average,paper-72B-average}" in lines
    assert any(line.startswith("readme/") for line in lines)
    assert not any("no tables yet" in line for line in lines)
    empty = why.listing(RunDir("tiny", 7, tmp_path))
    assert any("no tables yet; make paper writes them" in line for line in empty)


def test_the_command_lists_and_explains(run, capsys):
    stored(run, evidence(rounds=2))
    words = ["why", "--runs-dir", str(run.root), "--item"]
    for item, shown in (("", "{easy,hard,average,"), ("table1/psrlm/M2/hard", "seed 0: psrlm/M2")):
        upkeep.why(commands.make_parser().parse_args([*words, item]))
        assert shown in capsys.readouterr().out


# --- the README


def keep_baseline(root):
    """The baseline, whose search for M2 had a budget."""
    run, _ = fake_run(root / "runs", "srlm")
    path = run.ppd("srlm", 2) / manifest.NAME
    made = json.loads(path.read_text())
    spent = {"budget": 100, "spent": 98, "budget_used": 0.98, "solutions_each": 2.0}
    write_json(path, made | {"counts": made["counts"] | spent})
    results.keep(run, "srlm", 2)


def keep_ablation(root, monkeypatch):
    """Two values of one setting, as `make keep-ablation` leaves them."""
    monkeypatch.setattr(ablations, "check", lambda run, path: path)
    grid = ablations.Grid("tiny", "psrlm", 2, "search.width", ("2", "4"), "4", "dev", (0,))
    found = []
    for value in grid.values:
        own, _ = fake_run(root / "runs/ablations/search.width" / value, split="dev")
        found.append(ablations.summary(grid, value, own))
    path = results.folder() / "ablations/tiny/search.width.json"
    write_json(path, {"grid": asdict(grid), "runs": found})


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A repository with one kept run, and its README."""
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    readme.kept_evidence.cache_clear()
    run, _ = fake_run(tmp_path / "runs")
    results.keep(run, "psrlm", 2)
    keep_baseline(tmp_path)
    results.keep(fake_run(tmp_path / "runs", preset="smoke")[0], "psrlm", 2)
    keep_ablation(tmp_path, monkeypatch)
    readme.kept_evidence.cache_clear()
    blocks = "".join(f"<!-- made: {name} -->\n<!-- end -->\n" for name in readme.BLOCKS)
    (tmp_path / "README.md").write_text(readme.filled(blocks), encoding="utf-8")
    yield run
    readme.kept_evidence.cache_clear()


@pytest.mark.slow
def test_every_number_of_a_table_of_the_readme_can_be_explained(kept):
    """Whichever blocks print a table, of all kept runs: tiny, another preset and an ablation."""
    found = readme_items.of_readme()
    text = (manifest.root() / "README.md").read_text(encoding="utf-8")
    printed = {match[2] for match in readme.BLOCK.finditer(text) if readme_items.cells(match[0])}
    words = {"status"}  # a table without a number
    assert {"ablations", "presets", "claims", "budget"} <= printed
    assert printed - words == {name.split("/")[1] for name in found}
    for name, item in found.items():
        lines = why.explain(kept, name)
        assert item.file or any(line.startswith("seed 0") for line in lines), name


def test_numbers_of_an_ablation_and_of_another_preset_have_their_own_stages(kept):
    changed = "\n".join(why.explain(kept, "readme/ablations/search.width/2/change"))
    assert "from  psrlm/M2/greedy" in changed
    for value in ("2", "4"):
        assert f"seed 0, value {value}, data/results/ablations/tiny/search.width.json" in changed
    pairs = why.explain(kept, "readme/ablations/search.width/4-preset/pairs")
    assert [line.split()[0] for line in pairs if re.match(r"\d\d_", line)] == [SEARCH]
    of_smoke = "\n".join(why.explain(kept, "readme/presets/smoke/data-tiny-base/minutes"))
    assert "data/results/smoke/seed0/psrlm.json" in of_smoke and f"{INIT} M1" in of_smoke


def test_a_number_of_a_stages_own_table_is_traced_from_there(run):
    write_csv(run.lab("psrlm", 2) / "attacks.csv", [
        {"model": "M2", "attack": name, "pairs": 4, "flipped": 0.25} for name in ("role", "role")
    ])  # fmt: skip
    write_csv(run.steps / "steps.csv", [{"model": "psrlm M2", "benchmark": "easy", "number": 2.5}])
    write(run, Key(LAB, "psrlm", 2), ["psrlm/M2/eval/manifest.json"], ("attacks.csv",))
    write(run, Key(STEPS), ["psrlm/M2/eval/answers.jsonl.gz"], ("steps.csv",))
    lines = why.explain(run, "psrlm/M2/judge/attacks/M2/role/flipped")
    assert lines[0].endswith(" = 0.25") and ", by 07_judge_lab M2, 2026-11-22" in lines[1]
    assert "seed 0: psrlm/M2/judge/attacks.csv" in lines
    told = [line.split()[0] for line in lines if re.match(r"\d\d_", line)]
    assert told == [LAB, EVALUATE, DPO, SEARCH, INIT, DATA]
    assert why.explain(run, "psrlm/M2/judge/attacks/M2/role/2/pairs")[0].endswith(" = 4")
    assert why.explain(run, "steps/steps/psrlm-M2/easy/number")[0].endswith(" = 2.5")
    with pytest.raises(PSRError, match="did you mean 'steps/steps/psrlm-M2/easy/number'"):
        why.explain(run, "steps/steps")
    (run.steps / "steps.csv").write_text("model,number\nM2,9\n")
    with pytest.raises(PSRError, match=r"steps.csv changed after .*; 06_steps has to run again"):
        why.explain(run, "steps/steps/psrlm-M2/easy/number")


def test_a_number_of_the_readme_is_traced_through_its_summary(kept):
    mean = results.load("tiny", 0, "psrlm")["models"][2]["accuracy"]["mean"]
    lines = why.explain(kept, "readme/accuracy/psrlm/0/M2")
    assert f"= {100 * mean:.1f} [" in lines[0] and lines[1] == "  in    README.md"
    assert any("data/results/tiny/seed0/psrlm.json: nothing of it" in line for line in lines)
    cost = why.explain(kept, "readme/cost/all/minutes")
    told = [line.split()[0] for line in cost if re.match(r"\d\d_", line)]
    assert {DATA, INIT, SEARCH, DPO, EVALUATE} <= set(told)


def test_a_summary_from_before_says_so(kept):
    path = results.folder() / "tiny/seed0/psrlm.json"
    found = json.loads(path.read_text())
    del found["provenance"]
    write_json(path, found)
    text = "\n".join(why.explain(kept, "readme/judge/M1/accuracy"))
    assert "commit 0123456789ab, parameters " in text and "make keep" in text


def test_every_number_of_the_readmes_tables_is_an_item():
    readme.kept_evidence.cache_clear()
    found = Counter(name.split("/")[1] for name in readme_items.of_readme())
    for block in ("accuracy", "judge", "search", "cost", "tests"):
        _, *rows = readme_items.cells(block_of(block))
        numbers = [cell for row in rows for cell in row[readme_items.LABELS.get(block, 1) :]]
        assert found[block] == sum(bool(re.search(r"\d", cell)) for cell in numbers) > 0, block
    assert found["claims"] >= 8 and found["secondary"] and found["contradictions"]


def block_of(name):
    """A block of this repository's README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return next(match[0] for match in readme.BLOCK.finditer(text) if match[2] == name)


def test_an_item_is_found_by_its_name():
    one = items.Item("a/b", "1", "x")
    assert items.find({"a/b": one}, "a/b") is one
    with pytest.raises(PSRError, match="no tables yet, run make paper"):
        items.find({}, "a/b")
