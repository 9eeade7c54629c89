"""Files that were truncated, edited or swapped: named, with the stage that has to run again."""

import json
import re
import shutil

import pytest

from psr_lib import integrity, manifest, upkeep
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir, run_of

AGAIN = "04_step_dpo M2 has to run again, after make clean-stage STAGE=04 N=2"


@pytest.fixture
def run(repo, monkeypatch):
    """The toy run in which round 2 was made."""
    monkeypatch.setattr(manifest, "root", lambda: repo.root)
    return RunDir("smoke", 0, repo.root / "runs")


def swap(one, other):
    """Let two files or folders change places."""
    aside = one.with_name("aside")
    one.rename(aside), other.rename(one), aside.rename(other)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])


def edit(path):
    text = path.read_bytes()
    path.write_bytes(text[:-1] + bytes([text[-1] ^ 1]))


FAULTS = {
    "cut short": (cut, "model.safetensors changed after it was written: 3 bytes, not 5"),
    "edited": (edit, "model.safetensors changed after it was written;"),
    "gone": (lambda path: path.unlink(), "model.safetensors is missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_changed_file_is_named_with_its_stage_when_it_is_read(run, name):
    model = run.model("psrlm", 2)
    assert integrity.check(run, model) == model
    spoil, words = FAULTS[name]
    spoil(model / "model.safetensors")
    with pytest.raises(PSRError) as caught:
        integrity.check(run, model)
    assert words in str(caught.value) and AGAIN in str(caught.value)


def test_swapped_files_are_named(run):
    pairs, accuracy = (run.ppd("psrlm", 2) / "ppd.jsonl", run.eval("psrlm", 2) / "accuracy.csv")
    swap(pairs, accuracy)
    for path, stage in ((pairs, "03_search_judge"), (accuracy, "05_evaluate")):
        with pytest.raises(PSRError, match=f"{path.name} changed .* {stage} M2 has to run again"):
            integrity.check(run, path)


def test_folders_that_changed_places_whole_are_named(run):
    swap(run.model("psrlm", 1), run.model("psrlm", 2))
    with pytest.raises(PSRError) as caught:
        integrity.check(run, run.model("psrlm", 2) / "model.safetensors")
    assert "holds what 02_init M1 of seed 0 made, which belongs elsewhere" in str(caught.value)


def test_a_folder_of_another_seed_is_named(run):
    other = RunDir("smoke", 3, run.root)
    shutil.copytree(run.path, other.path)
    with pytest.raises(PSRError, match="of seed 0 made, which belongs elsewhere"):
        integrity.check(other, other.model("psrlm", 2))


def test_an_edited_manifest_is_damage(run):
    path = run.ppd("psrlm", 2) / manifest.NAME
    found = json.loads(path.read_text())
    assert len(found["seal"]) == 64 and manifest.read(path.parent)["counts"] == {"pairs": 1}
    found["counts"]["pairs"] = 900
    path.write_text(json.dumps(found))
    with pytest.raises(PSRError, match=r"ppd/manifest.json: damaged \(edited after it was written"):
        integrity.check(run, path.parent / "ppd.jsonl")


LAST = {  # each folder that a stage writes, by its place alone: its command
    "data": "01_data_prep has to run again, after make clean-stage STAGE=01 PRESET=smoke",
    "psrlm/M1/model": "STAGE=02 N=1 PRESET=smoke",
    "psrlm/M2/ppd": "03_search_judge M2 has to run again, after make clean-stage STAGE=03 N=2",
    "psrlm/M2/eval": "STAGE=05 N=2 PRESET=smoke",
}


@pytest.mark.parametrize("spoil", ["no seal", "no text"])
def test_a_manifest_without_its_seal_is_named_with_its_stage(run, spoil):
    for place, words in LAST.items():
        path = run.path / place / manifest.NAME
        found = json.loads(path.read_text())
        kept = {name: value for name, value in found.items() if name != "seal"}
        path.write_text(json.dumps(kept) if spoil == "no seal" else "")
        with pytest.raises(PSRError, match=r"manifest.json: damaged \(") as caught:
            integrity.check(run, path.parent)
        assert words in str(caught.value) and "\n" not in str(caught.value)
        if spoil == "no seal":
            assert "damaged (its seal is missing)" in str(caught.value)
        path.write_text(json.dumps(kept | {"format": 1}))  # from before there were seals
        assert integrity.check(run, path.parent) == path.parent


def test_the_way_out_names_the_seed_the_method_and_the_preset():
    tiny = run_of("tiny", 2, "runs")
    assert integrity.remedy(tiny, Key("04_step_dpo", "srlm", 3)).endswith(
        "make clean-stage STAGE=04 METHOD=srlm N=3 SEED=2"
    )
    both = run_of("smoke", 0, "runs", "0 1")
    paper = both.folder(Key("08_paper"))
    assert integrity.stage_at(both, paper) == (both, Key("08_paper"))
    again = integrity.remedy(*integrity.stage_at(both, paper))
    assert again.endswith('make paper SEEDS="0 1" PRESET=smoke FORCE=1')
    own = both.parts[1].folder(Key("07_judge_lab", "psrlm", 2))
    assert integrity.stage_at(both, own) == (both.parts[1], Key("07_judge_lab", "psrlm", 2))
    assert integrity.stage_at(both, own / "figures") is None


def test_what_no_stage_made_is_not_read(run):
    stray = run.model("psrlm", 2) / "more.json"
    stray.write_text("{}")
    with pytest.raises(PSRError, match="04_step_dpo M2 did not make it"):
        integrity.check(run, stray)
    with pytest.raises(PSRError, match="no complete stage made it"):
        integrity.check(run, run.path / "psrlm" / "M3" / "model")


def test_a_folder_is_read_only_if_all_in_it_is_the_stages(run):
    model = run.model("psrlm", 2)
    (model / "adapter_config.json").write_text("{}")  # a loader of models would take it up
    with pytest.raises(PSRError, match="model: 04_step_dpo M2 did not make adapter_config"):
        integrity.check(run, model)
    integrity.check(run, model / "config.json")
    empty = run.eval("psrlm", 2) / "figures"
    empty.mkdir()
    with pytest.raises(PSRError, match="figures: 05_evaluate M2 did not make it"):
        integrity.check(run, empty)


def test_every_file_of_a_users_folder_counts(tmp_path):
    seen = set()
    for name in ("rows.jsonl", "eval/rows.jsonl", "rows.part1.jsonl", "judge/a.partial.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
        seen.add(manifest.fingerprint(tmp_path))
    assert len(seen) == 4
    (tmp_path / "rows.jsonl.part123").write_text("half")
    assert manifest.fingerprint(tmp_path) in seen, "it is on its way"


def test_large_files_are_sampled_when_read_and_read_whole_by_verify(run, monkeypatch):
    monkeypatch.setattr(manifest, "LARGE", 100)
    monkeypatch.setattr(manifest, "SAMPLE", 2)
    folder = run.model("psrlm", 2)
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(1000))
    made = manifest.read(folder)
    made["outputs"]["model.safetensors"] = manifest.describe(weights, whole=True)
    (folder / manifest.NAME).write_text(json.dumps(manifest.sealed(made)))
    assert set(wrong(run)) == {"psrlm/M2/eval"}, "it read the model as it was before"
    changed = bytearray(1000)
    changed[5] = 1  # between two samples
    weights.write_bytes(changed)
    integrity.check(run, folder)
    assert wrong(run)["psrlm/M2/model"].startswith("model.safetensors changed after it was")


def wrong(run):
    """What the audit finds, by folder."""
    return {finding.folder.relative_to(run.path).as_posix(): finding.wrong
            for finding in integrity.audit(run) if finding.wrong}  # fmt: skip


def test_what_was_made_from_other_files_than_are_there_is_told(run):
    assert integrity.mixed(run) == []
    (run.model("psrlm", 1) / "config.json").write_text("made anew")
    assert {folder.name for folder in integrity.mixed(run)} == {"ppd", "model"}
    assert {folder.parent.name for folder in integrity.mixed(run)} == {"M2"}


# --- make verify


def test_verify_reads_every_stage_and_says_that_all_is_well(repo):
    done = repo.call("verify")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "6 stages are as they were made"
    assert re.search(r"^runs/smoke/seed0/psrlm/M2/model +ok, 3 files, 0.0 MB$", done.stdout, re.M)


def test_verify_names_what_is_wrong_and_ends_in_an_error(repo):
    edit(repo.run / "psrlm/M2/ppd/ppd.jsonl")
    repo.write("runs/smoke/seed0/data/notes.txt", "mine")
    repo.write("runs/smoke/seed0/psrlm/M2/eval/manifest.json", "{}")
    repo.write("data/tiny/base/config.json", "another")
    done = repo.call("verify")
    assert done.returncode == 2 and "6 of 6 stages are not as they were made" in done.stderr
    found = {line[:44].split("/seed0/")[-1].strip(): line for line in done.stdout.splitlines()}
    assert "STAGE=03 N=2" in found["psrlm/M2/ppd"]
    assert "01_data_prep did not make notes.txt" in found["data"]
    assert "manifest.json: damaged" in found["psrlm/M2/eval"]
    assert "repository:data/tiny/base is not what 02_init M1 read" in found["psrlm/M1/model"]
    assert "run:psrlm/M2/ppd/ppd.jsonl is not what 04_step_dpo M2 read" in found["psrlm/M2/model"]


def test_verify_of_no_run_writes_nothing(empty_repo):
    done = empty_repo.call("verify")
    assert done.returncode == 2 and "there is no such run" in done.stderr
    some = RunDir("smoke", 0, empty_repo.root / "some")
    some.path.mkdir(parents=True)
    with pytest.raises(PSRError, match="seed7: there is no such run"):
        upkeep._there(run_of("smoke", 0, some.root, "0 7"))
    assert not (empty_repo.root / "runs").exists()
