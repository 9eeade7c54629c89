"""Runs made by hand for the tests of tables, figures and claims: summaries with known outcomes."""

import numpy as np

from psr_lib import lineage
from psr_lib.evidence import Evidence

SETS = ("easy", "hard")
SIZE = 40
COUNTS = {"problems": 10, "expansions": 60, "candidates": 360, "judge_made": 500, "ties": 12,
          "rollbacks": 5, "pairs": 33, "tie_rate": 0.2, "rollback_rate": 0.08,
          "judge_first_position": 0.45, "judge_unreadable": 0.01, "judge_consistency": 0.6,
          "siblings_judge_accuracy": 0.75, "chosen_right": 0.6, "rejected_right": 0.1}  # fmt: skip


def bits(noise, share, size=SIZE):
    """Outcomes as a string."""
    return "".join(str(int(x < share)) for x in noise.random(size))


def model(noise, n, share, judge=0.9, rounds=4, sets=SETS, steps=None):
    """A model's part of a summary; M1 and the last one were searched with."""
    outcomes = {name: bits(noise, share) for name in sets}
    means = {k: v.count("1") / len(v) for k, v in outcomes.items()}
    held = bits(noise, judge, 100)
    found = {
        "model": f"M{n}", "accuracy": means | {"mean": sum(means.values()) / len(means)},
        "judge": {"accuracy": held.count("1") / 100, "first_position": 0.5, "unreadable": 0.0,
                  "skill_recompute": 0.9, "skill_copy": 0.9, "skill_compare": 0.9},
        "outcomes": outcomes, "judge_outcomes": held,
        "judge_problems": " ".join(map(str, range(len(held)))),
        "tokens": {"prefill": 30.0, "generated": 100.0, "judged": 0.0},
        "spent": {name: " ".join(["100"] * SIZE) for name in sets},
    }  # fmt: skip
    if steps:
        number, length = steps
        counts = {name: noise.poisson(number, SIZE) + 1 for name in sets}
        found["steps"] = {k: " ".join(map(str, v)) for k, v in counts.items()}
        found["step_tokens"] = {k: " ".join(str(length * x) for x in v) for k, v in counts.items()}
    if n in (1, rounds):
        asked = {name: bits(noise, share + 0.1, 10) + "-" * (SIZE - 10) for name in sets}
        spent = " ".join(["1500"] * 10 + ["-"] * (SIZE - 10))
        found["decodings"] = {
            "search": {"outcomes": asked, "tokens": {"generated": 600.0, "judged": 900.0},
                       "spent": dict.fromkeys(sets, spent)}
        }  # fmt: skip
        found["search_accuracy"] = {name: v.count("1") / 10 for name, v in asked.items()}
    if n > 1:
        found["training"] = {"step": [1, 2, 3], "loss": [1.0, 0.9, 0.8],
                             "margin": [0.0, 0.1 * n, 0.2 * n], "chosen": [-2.0, -1.9, -1.8],
                             "rejected": [-6.0, -7.0, -8.0]}  # fmt: skip
    return found


def settings(method, switched=(), **changed):
    """What the stages of a summary were set to; `changed` as `search__width=4`."""
    own = {key.replace("__", ".", 1): value for key, value in changed.items()}
    width, nll = own.get("search.width", 6), own.get("dpo.nll_weight", 10.0)
    judge = {"kind": dict(switched).get("judge.kind", "self"), "votes": 1}
    params = {"01_data_prep": {"data": {"ift": 100}, "rounds": 4},
              "03_search_judge": {"search": {"width": width, "live": own.get("search.live", 8)},
                                  "judge": judge},
              "04_step_dpo": {"dpo": {"nll_weight": nll, "replay": own.get("dpo.replay", 0.0)}},
              "05_evaluate": {"search": {"width": width}, "judge": {"kind": "self", "votes": 1},
                              "eval": {"max_tokens": own.get("eval.max_tokens", 64)}},
              }  # fmt: skip
    keys = [("01_data_prep", "", 0), ("05_evaluate", "", 0), ("05_evaluate", "psrlm", 1)]
    keys += [(name, method, n) for n in (2, 3, 4) for name in
             ("03_search_judge", "04_step_dpo", "05_evaluate")]  # fmt: skip
    made = ({"stage": name, "method": who, "iteration": n, "params": params[name]}
            for name, who, n in keys)  # fmt: skip
    return lineage.by_stage(made)


def stage(name, method="", n=0, **counts):
    """A stage's part of a summary."""
    return {"stage": name, "method": method, "iteration": n, "wall_seconds": 60.0,
            "tokens": {"generated": 1_000_000, "judged": 2_000_000}, "counts": counts}  # fmt: skip


def summary(method="psrlm", seed=0, rise=0.12, rounds=4, sets=SETS, steps=True):
    """A whole summary; accuracy rises by `rise` a round, steps get fewer and longer."""
    noise = np.random.default_rng([seed, len(method)])
    first = np.random.default_rng(seed)  # M0 and M1 are shared by all methods
    models = [model(first, 0, 0.2, judge=0.5, rounds=rounds, sets=sets),
              model(first, 1, 0.35, rounds=rounds, sets=sets,
                    steps=(5, 10) if steps else None)]  # fmt: skip
    for n in range(2, rounds + 1):
        walked = (5 - n * 0.8, 10 + 3 * n) if steps else None
        share = min(0.95, 0.35 + rise * (n - 1))
        models.append(model(noise, n, share, rounds=rounds, sets=sets, steps=walked))
    made = [
        stage("01_data_prep", ift=100, eft=200, eft_heldout=50),
        stage("02_init", "psrlm", 1, updates=19),
    ]
    for n in range(2, rounds + 1):
        made += [stage("03_search_judge", method, n, **COUNTS),
                 stage("04_step_dpo", method, n, updates=7, used=30)]  # fmt: skip
    return {
        "preset": "tiny", "seed": seed, "method": method, "split": "test", "base": "data/tiny/base",
        "git": {"commit": "0123456789abcdef", "dirty": False}, "params_hash": "x", "versions": {},
        "device": "cpu", "models": models, "stages": made,
    }  # fmt: skip


def evidence(methods=("psrlm", "random-judge"), seeds=(0,), **how):
    """Evidence of several methods and seeds; controls do not rise."""
    return Evidence(
        summary(method, seed, **({"rise": 0.0} if method != "psrlm" else {}) | how)
        for method in methods for seed in seeds
    )  # fmt: skip
