"""Every command of the README is one that make and the runner take; `readme_commands` runs them."""

import re
import shlex
import subprocess
import sys

import pytest
import readme_commands
from conftest import ROOT

from psr_lib import commands, presets

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FOUND = readme_commands.commands(TEXT)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.search(r"\.PHONY: (.*)", MAKEFILE).group(1).split()
VARIABLES = re.findall(r"^([A-Z0-9]+) *\?=", MAKEFILE, re.MULTILINE)


def dry(words):
    """What make would run."""
    line = ["make", "-n", "--no-print-directory", *words, f"CONDA={sys.executable}"]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def test_the_commands_of_a_page_are_found():
    page = """Text `make plan N=2`, `make help`.

```
git clone x && cd y
make reproduce      # all of it
make data SET="a={b: c}"
```

```python
make = 1
```
And `make plan N=2` again.

```
make status
```
At the end `make why`."""
    assert readme_commands.commands(page) == [
        "make plan N=2", "make help", "git clone x && cd y", "make reproduce",
        'make data SET="a={b: c}"', "make status", "make why",
    ]  # fmt: skip


def test_the_readme_has_commands_and_each_is_run_somewhere():
    assert len(FOUND) > 30 and "make reproduce" in FOUND
    here = [one for one in FOUND if not readme_commands.elsewhere(one)]
    assert len(here) > 25 and all(one.startswith("make ") for one in here)
    for start, where in readme_commands.ELSEWHERE.items():
        named = re.findall(r"(tests/\w+\.py|\.ci/run)(?:::(\w+))?", where)
        assert named or start == "git clone", f"{start}: {where}"
        assert any(one.startswith(start) for one in FOUND), f"{start}: no command of the page"
        for file, test in named:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert file == ".ci/run" or f"\ndef {test}(" in text, f"{start}: {where}"


def test_a_command_runs_on_the_smallest_preset_with_few_seeds():
    words = readme_commands.smaller('make confirm PRESET=tiny SEEDS="0 1 2" N=2')
    assert words[:2] == ["make", "confirm"] and "SEEDS=0 1" in words and "N=2" in words
    assert [word for word in words if word.startswith("PRESET")] == ["PRESET=smoke"]
    (settings,) = (w for w in readme_commands.smaller("make data SET='a=1 b=2'") if "SET=" in w[:4])
    assert settings == "SET=a=1 b=2 rounds=2"
    assert "ITEM=table1/psrlm/M2/average" in readme_commands.smaller(
        "make why ITEM=table1/psrlm/M4/average"
    )
    assert "N=2" in readme_commands.smaller("make export N=4 TO=my-model")
    assert "VALUES=2 4" in readme_commands.smaller("make keep-ablation")
    assert "VALUES=2 4" in readme_commands.smaller("make ablate")
    assert "PRESET=paper-7b" in readme_commands.smaller("make iteration N=2 PRESET=paper-7b DRY=1")
    assert "PRESET=paper-7b" in readme_commands.smaller("make plan PRESET=paper-7b")
    page = "`make status`, `make clean-stage STAGE=03 N=2`, `make test`"
    assert readme_commands.due(page, ["STAGE"]) == [
        "make clean-stage STAGE=03 N=2",
        "make reproduce",
    ]
    assert readme_commands.due(page, [])[0] == "make status"


def test_a_command_that_fails_or_does_not_end_is_told(tmp_path, monkeypatch):
    (tmp_path / "Makefile").write_text(
        "good:\n\t@true\nbad:\n\t@echo why; false\nslow:\n\t@sleep 60\n"
    )
    assert readme_commands.run("make good", cwd=tmp_path) == ""
    assert "why" in readme_commands.run("make bad", cwd=tmp_path)
    monkeypatch.setattr(readme_commands, "PATIENCE", 0.5)
    assert readme_commands.run("make slow", cwd=tmp_path) == "not done after 0.5 s"


def test_ci_runs_them():
    assert "tests/readme_commands.py" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [one for one in FOUND if one.startswith("make ")])
def test_make_and_the_runner_know_every_word(command):
    target, *words = shlex.split(command)[1:]
    assert target in TARGETS
    assert [
        word.partition("=")[0] for word in words if word.partition("=")[0] not in VARIABLES
    ] == []
    done = dry([target, *words])
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"-m psr_lib\.runs (.*)", done.stdout):
        args = commands.make_parser().parse_args(shlex.split(line.rstrip(":; fi")))
        if "[path/" not in args.overrides:  # a file of the reader's, which another test writes
            presets.load(args.preset, args.overrides)


def test_a_word_that_is_not_known_is_found():
    with pytest.raises(AssertionError):
        test_make_and_the_runner_know_every_word("make reproduced")
    with pytest.raises(AssertionError):
        test_make_and_the_runner_know_every_word("make plan M=2")
    with pytest.raises(Exception, match=r"search\.width"):
        test_make_and_the_runner_know_every_word("make iteration N=2 SET=search.wdth=4")
