"""The stages by name, what each may read of the preset, and the methods that go through them."""

from typing import Any

# Sections of the preset that a stage may read. Its parameters' hash is made from these alone, so
# another evaluation setting never retrains a model.
STAGES = {
    "00_base_model": ("prompts", "model"),
    "01_data_prep": ("prompts", "rounds", "data"),
    "02_init": ("prompts", "model", "sft"),
    "03_search_judge": ("prompts", "model", "search", "judge", "engine"),
    "04_step_dpo": ("prompts", "model", "dpo"),
    "05_evaluate": ("prompts", "model", "data", "search", "judge", "eval", "engine"),
    "06_steps": ("model",),
    "07_judge_lab": ("prompts", "model", "data", "search", "judge", "eval", "engine", "lab"),
    "08_paper": ("rounds", "prompts", "model", "paper"),
}
BASE, DATA, INIT, SEARCH, DPO, EVALUATE, STEPS, LAB, PAPER = STAGES
REPORTS = (STEPS, PAPER)  # they read whatever a run holds, and need nothing
MAIN, SRLM, REFERENCE = "psrlm", "srlm", "reference"
# The baseline scores solutions where the others judge steps, and has an EFT of its own.
SRLM_STAGES = {
    DATA: ("prompts", "data", "srlm"),
    SEARCH: ("prompts", "model", "search", "srlm", "engine"),
    EVALUATE: ("prompts", "model", "data", "srlm", "eval", "engine"),
    LAB: ("prompts", "model", "data", "search", "srlm", "eval", "engine", "lab"),
}
METHODS = {
    MAIN: "the paper's method",
    SRLM: "baseline: whole solutions that the model scores itself (Yuan et al.)",
    "random-judge": "control: a coin gives every verdict of the search",
    "random-judge-nll0": "control: a coin's verdicts, and DPO without the anchor (nll_weight 0)",
    "gold-judge": "reference, uses gold: the oracle gives every verdict of the search",
    "ift-more": "control: as many updates, on more IFT",
    "sft-chosen": "control: psrlm's pairs, likelihood of the chosen step only",
    REFERENCE: "an API model, evaluated beside the run's own",
}
# What a method changes of the preset, stage by stage; it is all that parts it from psrlm.
SWITCHES: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "random-judge": {SEARCH: {"judge": {"kind": "random"}}},
    "random-judge-nll0": {SEARCH: {"judge": {"kind": "random"}}, DPO: {"dpo": {"nll_weight": 0.0}}},
    "gold-judge": {SEARCH: {"judge": {"kind": "oracle"}}},
}
USES_GOLD = frozenset({"gold-judge"})  # never ranked with methods that see no gold
BORROWED_PAIRS = frozenset({"ift-more", "sft-chosen"})  # they take psrlm's pairs, round by round


def starter(method: str) -> str:
    """The method whose M1 this one starts from."""
    return SRLM if method == SRLM else MAIN
