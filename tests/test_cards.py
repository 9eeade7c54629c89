"""Cards say what the manifests say, and nothing else; the hub reads their front matter."""

import json

import pytest
from card_runs import ACCURACY, evaluate, finish, make_run
from huggingface_hub import DatasetCard, ModelCard

from psr_lib import cards, manifest
from psr_lib.records import PSRError, write_json
from psr_lib.run_dirs import Key


@pytest.fixture
def run(tmp_path):
    """A run with M1 and an evaluated M2."""
    return make_run(tmp_path)


def rows(text, first):
    """Cells of the table rows that begin with this cell."""
    lines = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return [cells for cells in lines if cells[0] == first]


def test_both_cards_lie_beside_each_model(run):
    made = cards.refresh(run, "psrlm", 4)
    names = [path.relative_to(run.path).as_posix() for path in made]
    assert names == [f"psrlm/M{n}/{card}" for n in (1, 2) for card in (cards.MODEL, cards.DATA)]
    assert not (run.model("psrlm", 2) / cards.MODEL).exists(), "no file joins a stage's outputs"


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (999_999, "100K<n<1M"),
     (1_000_000, "1M<n<10M"), (3 * 10**8, "100M<n<1B"), (10**12, "n>1T")],
)  # fmt: skip
def test_sizes_are_named_as_the_hub_names_them(rows, name):
    assert cards.size_category(rows) == name


def test_a_card_that_would_not_change_is_left_alone(run):
    for path in cards.refresh(run, "psrlm", 2):
        path.touch()
    assert cards.refresh(run, "psrlm", 2) == []
    run.round("psrlm", 1).joinpath(cards.MODEL).unlink()
    assert [path.name for path in cards.refresh(run, "psrlm", 2)] == [cards.MODEL]


def test_the_hub_reads_the_models_front_matter(run):
    card = ModelCard(cards.model_card(run, "psrlm", 2))
    data = card.data
    assert (data.license, data.library_name) == ("apache-2.0", "transformers")
    assert data.pipeline_tag == "text-generation" and data.base_model is None
    (easy, mean) = data.eval_results
    assert (easy.dataset_type, easy.dataset_split, easy.metric_type) == ("easy", "test", "accuracy")
    assert easy.metric_value == 62.5 and mean.dataset_type == "mean"
    assert card.text.strip().startswith("# psr-smoke-psrlm-M2-seed0")


def test_a_base_model_of_the_hub_is_named_with_its_licence(run, tmp_path):
    path = run.model("psrlm", 2) / manifest.NAME
    made = json.loads(path.read_text())
    made["params"]["model"]["base"] = "Qwen/Qwen2.5-Math-7B"
    write_json(path, made)
    data = ModelCard(cards.model_card(run, "psrlm", 2)).data
    assert (data.base_model, data.license) == ("Qwen/Qwen2.5-Math-7B", "apache-2.0")
    made["params"]["model"]["base"] = "somebody/unknown-model"
    write_json(path, made)
    data = ModelCard(cards.model_card(run, "psrlm", 2)).data
    assert (data.base_model, data.license) == ("somebody/unknown-model", None)


def test_results_are_those_of_the_evaluation_and_follow_it(run):
    text = cards.model_card(run, "psrlm", 2)
    assert rows(text, "easy") == [["easy", "8", "62.5", "[30.6, 86.3]"]]
    assert "24 held-out pairs: 91.7 % right [74.2, 97.7]" in text
    ACCURACY[0]["accuracy"] = 0.5
    try:
        evaluate(run, "psrlm")
    finally:
        ACCURACY[0]["accuracy"] = 0.625
    assert rows(cards.model_card(run, "psrlm", 2), "easy")[0][2] == "50.0"


def test_results_that_were_changed_by_hand_are_not_shown(run):
    path = run.eval("psrlm", 2) / "accuracy.csv"
    path.write_text(path.read_text().replace("0.625", "0.925"))
    text = cards.model_card(run, "psrlm", 2)
    assert "Not evaluated" in text and "92.5" not in text


def test_results_of_the_model_that_was_there_before_are_not_shown(run):
    weights = run.model("psrlm", 2)
    read = {"run:psrlm/M2/model": {"hash": manifest.fingerprint(weights)}}
    finish(run, Key("05_evaluate", "psrlm", 2), read)
    assert rows(cards.model_card(run, "psrlm", 2), "easy")
    write_json(weights / "model.safetensors", {"of": "another"})
    finish(run, Key("04_step_dpo", "psrlm", 2))
    text = cards.model_card(run, "psrlm", 2)
    assert not rows(text, "easy") and ModelCard(text).data.eval_results is None
    assert "Not evaluated. What its last" in text and "`make evaluate N=2 PRESET=smoke`" in text


def test_a_model_that_was_not_evaluated_says_so(run):
    text = cards.model_card(run, "psrlm", 1)
    assert "Not evaluated." in text and ModelCard(text).data.eval_results is None


def test_training_lineage_and_provenance_stand_in_the_model_card(run):
    text = cards.model_card(run, "psrlm", 2)
    assert rows(text, "beta") == [["beta", "0.1"]]
    assert rows(text, "updates") == [["updates", "5"]]
    assert rows(text, "`run:psrlm/M1/model`") == [["`run:psrlm/M1/model`", f"`{'f' * 16}`"]]
    assert rows(text, "commit") == [["commit", "0123456789abcdef"]]
    assert "Problem: {question}\nSolution:" in text and "arXiv:2503.03746" in text
    assert "epochs" in cards.model_card(run, "psrlm", 1), "M1 was made by SFT"


def test_templates_that_changed_since_are_not_shown_as_the_models_own(run):
    other = {"templates": {"solve": "0" * 64}}
    finish(run, Key("04_step_dpo", "psrlm", 2), **other)
    text = cards.model_card(run, "psrlm", 2)
    assert "templates have changed since" in text and "Problem: {question}" not in text


def test_the_data_card_counts_the_rows_that_the_model_was_trained_on(run):
    first, second = (DatasetCard(cards.data_card(run, "psrlm", n)) for n in (1, 2))
    assert [row[:2] for row in rows(first.text, "ift.jsonl")] == [["ift.jsonl", "1200"]]
    assert first.data.size_categories == ["1K<n<10K"] and first.data.license == "apache-2.0"
    assert rows(second.text, "ppd.jsonl")[0][1] == "21"
    assert second.data.size_categories == ["n<1K"]
    assert rows(second.text, "tie_rate") == [["tie_rate", "0.3738"]]
    assert "ift.jsonl" not in second.text and "width: 4" in second.text


def test_replayed_eft_is_on_the_data_card(run):
    path = run.model("psrlm", 2) / manifest.NAME
    made = json.loads(path.read_text())
    made["counts"]["replayed"] = 128
    path.write_text(json.dumps(made))
    text = cards.data_card(run, "psrlm", 2)
    assert "a row of M1's EFT, of 128" in text and "## data" not in text
    assert "EFT, of" not in cards.data_card(run, "psrlm", 1)


def test_a_borrowing_controls_data_are_psrlms_pairs(run):
    write_json(run.model("sft-chosen", 2) / "model.safetensors", {})
    finish(run, Key("04_step_dpo", "sft-chosen", 2))
    text = cards.data_card(run, "sft-chosen", 2)
    assert "## psrlm/M2/ppd" in text and "psrlm's M1 proposed" in text
    assert "# psr-smoke-sft-chosen-M2-seed0-data" in text


def test_data_of_another_source_has_no_licence_of_ours(run):
    path = run.data / manifest.NAME
    made = json.loads(path.read_text())
    made["params"]["data"]["source"] = "numina"
    write_json(path, made)
    card = DatasetCard(cards.data_card(run, "psrlm", 1))
    assert card.data.license is None and "`numina`: its own licence holds" in card.text


def test_cards_tell_no_folder_and_no_address_of_the_machine(run):
    for folder in (run.data, run.model("psrlm", 2), run.ppd("psrlm", 2)):
        made = json.loads((folder / manifest.NAME).read_text())
        made["inputs"]["path:/home/me/secret/base"] = {"hash": "a" * 64}
        made["params"].setdefault("model", {})["base"] = "/home/me/secret/base"
        if "data" in made["params"]:
            made["params"]["data"]["source"] = "~/secret/problems.jsonl"
            made["params"]["lab"] = {"audit": ["/home/me/secret/a.jsonl", "data/b", "../secret/c"]}
        write_json(folder / manifest.NAME, made)
    shown = [cards.data_card(run, "psrlm", n) for n in (1, 2)] + [cards.model_card(run, "psrlm", 2)]
    assert all("secret" not in text and "127.0.0.1" not in text for text in shown)
    assert "`…/base`" in shown[2] and "source: …/problems.jsonl" in shown[0]
    assert "audit: ['…/a.jsonl', 'data/b', '…/c']" in shown[0]


def test_of_several_sources_each_is_told_by_its_last_name(run):
    made = json.loads((run.data / manifest.NAME).read_text())
    made["params"]["data"]["source"] = "gsm_symbolic+/home/me/secret/mine.jsonl+openai/gsm8k"
    write_json(run.data / manifest.NAME, made)
    text = cards.data_card(run, "psrlm", 1)
    assert "secret" not in text and text.count("gsm_symbolic+…/mine.jsonl+openai/gsm8k") == 2


def test_the_limits_name_the_laboratory_before_an_evaluation_too(run):
    assert "small laboratory" in cards.model_card(run, "psrlm", 1)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("psrlm", "are a model's own: no gold answer took part"),
        ("random-judge", "A coin gave the verdicts"),
        ("gold-judge", "The oracle, which knows every right step, gave the verdicts"),
    ],
)
def test_the_limits_say_who_gave_the_verdicts(method, words, tmp_path):
    run = make_run(tmp_path, method=method)
    text = cards.model_card(run, method, 2)
    assert words in text and text.count("the verdicts behind") + text.count("The verdicts b") == 1


def test_a_first_model_and_more_ift_know_no_preference_pairs(run):
    assert "no preference pairs of this method" in cards.model_card(run, "psrlm", 1)
    write_json(run.model("ift-more", 2) / "model.safetensors", {})
    finish(run, Key("04_step_dpo", "ift-more", 2))
    text = cards.model_card(run, "ift-more", 2)
    assert "no preference pairs of this method" in text and "verdicts behind" not in text


def test_a_model_that_is_not_there_has_no_card(run):
    with pytest.raises(PSRError, match="no complete stage made it"):
        cards.model_card(run, "psrlm", 3)
    (run.model("psrlm", 2) / manifest.NAME).write_text("{")
    assert {path.parent.name for path in cards.refresh(run, "psrlm", 4)} == {"M1"}


def test_the_cards_of_a_model_that_has_gone_go_too(run):
    cards.refresh(run, "psrlm", 2)
    (run.model("psrlm", 2) / manifest.NAME).unlink()
    assert cards.refresh(run, "psrlm", 2) == []
    assert {path.parent.name for path in run.path.rglob("*_CARD.md")} == {"M1"}


def test_no_cell_breaks_its_table():
    assert cards.table(["a", "b"], [["x|y", "1\n2"]]).splitlines()[2] == r"| x\|y | 1 2 |"
    assert cards.table(["a"], []) == ""
