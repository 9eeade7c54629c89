"""Run every command of the README, on the smallest preset, in a copy of this repository.

    .venv/bin/python tests/readme_commands.py

It fails at the first command that does. A command is run as the page has it, but for what would
only take long: the preset is `smoke` with two rounds (so the last model is M2, not M4), and there
are fewer seeds, methods and values. Plans and dry runs keep the preset, as they run no model of it.
What cannot be run here is listed below, with what checks it. With words after it, it runs those
commands alone that hold all of them: `tests/readme_commands.py plan`.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import processes

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 3600  # seconds for one command, on a machine that others use too

# What is not run here, by how it begins, and what runs it or what it is made of: a test, by name.
ELSEWHERE = {
    "git clone": "this copy is one",
    ".venv/bin/python -m pip": "tests/test_environment.py::test_the_pip_sections_resolve",
    "make test": ".ci/run",
    "make torture": ".ci/run",
    "make lab": "it opens a browser; the notebooks are run by "
    "tests/test_smoke.py::test_one_command_runs_everything_and_ends_with_the_table",
    "make base": "hours; a small one: tests/test_base_model.py::test_two_phases_train_one_model",
    "make bench": "hours; a little of it: "
    "tests/test_bench.py::test_the_timed_literal_loop_makes_the_same_pairs_with_every_call",
    "make iteration N=2 PRESET=smol": "a model of the hub; "
    "tests/test_chain_teachers.py::test_the_rule_teaches_the_whole_chain_offline",
    "make plan PRESET=smol SET": "a model of one's own; "
    "tests/test_plan.py::test_every_preset_can_be_planned_for_here_and_for_a_cluster",
    "make data PRESET=smol": "problems of one's own; "
    "tests/test_sources.py::test_a_preset_and_a_path_make_every_pool",
    'make iteration N=2 SET="extensions': "a file of one's own; the page's own: "
    "tests/test_registry.py::test_the_readmes_judge_trusts_a_verdict_that_stands_in_both_slots",
    "make evaluate N=0 PRESET=qwen": "a model of the hub; "
    "tests/test_rounds.py::test_problems_are_solved_with_a_template_of_another_name",
    "make evaluate METHOD=reference": "a server; "
    "tests/test_chat_server.py::test_an_api_model_is_evaluated_as_solver_and_as_judge",
    "make judge METHOD=reference": "a server; "
    "tests/test_judge_lab.py::test_an_api_model_goes_by_its_own_name",
    "make judge N=1 SET=\"lab.audit": "labels of one's own; "
    "tests/test_judge_lab.py::test_an_audit_asks_both_orders_and_reports_by_source",
}  # fmt: skip
GRID = "KNOB=search.width VALUES='2 4'"
LESS = {"SEEDS": "0 1", "METHODS": "psrlm ift-more", "VALUES": "2 4"}  # enough to see it run
ADDED = {"make fuzz": "COUNT=2000", "make ablate": GRID, "make keep-ablation": GRID}
SHORT = "rounds=2"  # two rounds make every kind of stage
LAST = {"N=4": "N=2", "/M4/": "/M2/"}  # the last model of such a run
THEN = {"make clean-stage": "make reproduce"}  # what the page says to do next


def commands(text: str) -> list[str]:
    """The commands of the page, each once and in order: lines of its blocks, and `make ...`."""
    parts = re.compile(r"^```(\w*)\n(.*?)^```|`(make [^`]+)`", re.DOTALL | re.MULTILINE)
    found = []
    for match in parts.finditer(text):
        if match[1] in ("python", "bibtex"):
            continue
        lines = [match[3]] if match[3] else match[2].splitlines()
        lines = [re.sub(r"\s{2,}#.*", "", line).strip() for line in lines]
        found += [line for line in lines if re.match(r"(make|git|conda|python|pip|\.venv/)", line)]
    return list(dict.fromkeys(found))


def elsewhere(command: str) -> str:
    """What runs it, '' where this check does."""
    return next((why for start, why in ELSEWHERE.items() if command.startswith(start)), "")


def smaller(command: str) -> list[str]:
    """The command's words as they are run here: two rounds of smoke, fewer seeds and methods."""
    added = next((more for start, more in ADDED.items() if command.startswith(start)), "")
    given = [word.partition("=") for word in shlex.split(command)]
    words = [f"{name}={LESS.get(name, value)}" if mark else name for name, mark, value in given]
    words += shlex.split(added)
    if words[1] != "plan" and "DRY=1" not in words:
        words = _short(words)
    return [*words, f"CONDA={sys.executable}"]  # with CONDA nothing is set up


def _short(words: list[str]) -> list[str]:
    """The words for preset smoke with two rounds, what they set beside that kept."""
    for old, new in LAST.items():
        words = [word.replace(old, new) for word in words]
    changes = [word.removeprefix("SET=") for word in words if word.startswith("SET=")]
    kept = [word for word in words if not word.startswith(("PRESET=", "SET="))]
    return [*kept, "PRESET=smoke", f"SET={' '.join([*changes, SHORT])}"]


def due(page: str, words: list[str]) -> list[str]:
    """The commands to run: those of the page that hold all of these words, and what they need."""
    asked = [one for one in commands(page) if not elsewhere(one) and all(w in one for w in words)]
    follow = [[one, *(then for start, then in THEN.items() if one.startswith(start))]
              for one in asked]  # fmt: skip
    return [one for part in follow for one in part]


def copy_to(folder: Path) -> Path:
    """This checkout as it is, in a repository of its own."""
    place = folder / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(place)], check=True)
    listed = ["git", "ls-files", "-mo", "--exclude-standard"]
    changed = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in changed.splitlines():
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes((ROOT / name).read_bytes())
    return place


def run(command: str, **settings: Any) -> str:
    """Run a command as it is run here; '' or the end of what it said where it failed."""
    with subprocess.Popen(smaller(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **settings) as started:  # fmt: skip
        try:
            said, _ = started.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            for pid in (*processes.below(started.pid), started.pid):
                processes.send(pid, signal.SIGKILL)
            return f"not done after {PATIENCE} s"
    return said[-4000:] or "failed" if started.returncode else ""


def main() -> int:
    """Run them; 1 where one failed."""
    asked, start = due((ROOT / "README.md").read_text(encoding="utf-8"), sys.argv[1:]), time.time()
    with tempfile.TemporaryDirectory() as folder:
        place = copy_to(Path(folder))
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        settings = {"cwd": place, "env": {**kept, "PYTHONPATH": str(place), "PSR_QUIET": "1"}}
        for command in asked:
            began = time.monotonic()
            wrong = run(command, **settings)
            print(f"{time.monotonic() - began:6.0f} s  {command}", flush=True)
            if wrong:
                print(wrong)
                return 1
    print(f"{time.time() - start:6.0f} s  {len(asked)} commands of the README ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
