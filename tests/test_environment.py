"""One set of versions: environment.yml repeats pyproject.toml, both resolve, make lists itself.

Resolving asks the package index and installs nothing; a machine without one skips it.
"""

import os
import re
import subprocess
import sys
import threading
import tomllib

import pytest
import yaml
from conftest import ROOT
from rattler import MatchSpec

from psr_lib import setup_env

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
NAMED_BY_THE_OWNER = "jupyterlab papermill torch transformers trl peft vllm pandas matplotlib sympy"
OFFLINE = ("error sending request", "failed to fetch", "client error", "dns error", "timed out")


def conda_specs():
    return [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]


def pip_section():
    return next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))


def full():
    return [line for line in pip_section() if not line.startswith("-e")]


def laptop():
    return [*PROJECT["dependencies"], *EXTRAS["dev"]]


def test_conda_specs_are_valid_and_bring_only_the_interpreter_and_tools():
    names = {MatchSpec(spec).name.normalized for spec in conda_specs()}
    assert names == {"python", "pip", "make", "git"}
    assert CONDA["channels"] == ["conda-forge"]
    with pytest.raises(Exception, match=r"."):
        MatchSpec("python==>3")


def test_condas_python_is_one_that_the_package_supports():
    spec = MatchSpec(next(s for s in conda_specs() if s.startswith("python")))
    low = PROJECT["requires-python"].removeprefix(">=")
    found = str(spec.version).strip("=*.")
    assert [int(part) for part in found.split(".")] >= [int(part) for part in low.split(".")]


def test_the_full_environment_repeats_pyprojects_versions():
    assert sorted(full()) == sorted([*laptop(), *EXTRAS["vllm"]])
    assert "-e ." in pip_section()
    assert {name for name in NAMED_BY_THE_OWNER.split()} <= {re.split("[=;]", x)[0] for x in full()}


def test_every_version_is_pinned():
    for line in [*full(), *EXTRAS["ray"], *EXTRAS["gym"], *EXTRAS["smol"]]:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+(; sys_platform == 'linux')?", line), line


def test_vllm_is_asked_for_on_linux_alone():
    assert next(line for line in full() if line.startswith("vllm")).endswith("== 'linux'")


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("name", ["laptop", "full"])
def test_the_pip_sections_resolve(name, python, tmp_path):
    """With all extras: what resolves with them resolves without."""
    wanted = [*(laptop() if name == "laptop" else full())]
    wanted += [line for extra in ("ray", "gym", "smol") for line in EXTRAS[extra]]
    resolved = resolve(wanted, python, tmp_path)
    for line in wanted:
        assert line.split(";")[0] in resolved, line
    assert any(line.startswith("vllm==") for line in resolved) == (name == "full")


def resolve(wanted, python, folder):
    """Pins of a whole solution for Linux, made by uv without installing anything."""
    source = folder / "wanted.in"
    source.write_text("\n".join(wanted))
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", str(source)]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_34"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index did not answer in two minutes")
    if done.returncode and any(word in done.stderr.lower() for word in OFFLINE):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return {line.split(" ")[0] for line in done.stdout.splitlines()}


# --- make setup


class FakePip:
    """Answers for pip, by the first word that its arguments hold."""

    def __init__(self, **plans):
        self.plans, self.calls = plans, []

    def __call__(self, *arguments):
        self.calls.append(arguments)
        if "--dry-run" not in arguments:
            return "[]"
        cpu = any("--index-url" in call for call in self.calls)
        names = self.plans["after" if cpu else "before"]
        items = ", ".join(f'{{"metadata": {{"name": "{name}"}}}}' for name in names)
        return f'{{"install": [{items}]}}'


def test_setup_takes_the_cpu_build_where_the_usual_one_would_bring_cuda(monkeypatch):
    monkeypatch.setattr(setup_env, "cpu_only", lambda: True)
    pip = FakePip(before=["torch", "nvidia-cublas-cu12", "triton"], after=[])
    monkeypatch.setattr(setup_env, "pip", pip)
    setup_env.install_torch()
    pin = next(line for line in PROJECT["dependencies"] if line.startswith("torch=="))
    installs = [call for call in pip.calls if "--dry-run" not in call]
    assert installs[0][-3:] == ("--index-url", setup_env.CPU_INDEX, pin)


def test_setup_asks_no_other_index_where_the_usual_build_is_fine(monkeypatch):
    for cpu, before in ((True, ["torch", "numpy"]), (False, ["torch", "nvidia-cublas-cu12"])):
        monkeypatch.setattr(setup_env, "cpu_only", lambda cpu=cpu: cpu)
        pip = FakePip(before=before, after=[])
        monkeypatch.setattr(setup_env, "pip", pip)
        setup_env.install_torch()
        assert not any("--index-url" in call for call in pip.calls)


def test_setup_refuses_cuda_loudly_before_installing_it(monkeypatch):
    monkeypatch.setattr(setup_env, "cpu_only", lambda: True)
    pip = FakePip(before=["torch", "nvidia-nccl"], after=["nvidia-nccl"])
    monkeypatch.setattr(setup_env, "pip", pip)
    with pytest.raises(setup_env.SetupFailed, match="nvidia-nccl"):
        setup_env.install_torch()
    assert ("install", setup_env.torch_pin()) not in pip.calls


def test_setup_does_nothing_where_the_stamp_is_current(monkeypatch, tmp_path):
    monkeypatch.setattr(setup_env, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup_env, "PYTHON", tmp_path)
    monkeypatch.setattr(setup_env, "has_pip", lambda: True)
    monkeypatch.setattr(setup_env, "pip", lambda *_: pytest.fail("pip was called"))
    (tmp_path / "stamp").write_text(setup_env.pins_hash())
    setup_env.set_up()
    (tmp_path / "stamp").write_text("other pins")
    with pytest.raises(pytest.fail.Exception):
        setup_env.set_up()


def test_what_a_killed_setup_left_is_completed_or_made_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(setup_env, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup_env, "PYTHON", tmp_path / ".venv/bin/python")
    assert not setup_env.has_pip()
    setup_env.venv.create(tmp_path / ".venv", with_pip=False)  # killed before pip came
    assert setup_env.PYTHON.exists() and not setup_env.has_pip()
    works, calls = [False], []

    def create(folder, with_pip, clear=False):
        calls.append(clear)
        works[0] = clear or not broken
        if not works[0]:
            raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(setup_env.venv, "create", create)
    monkeypatch.setattr(setup_env, "has_pip", lambda: works[0])
    for broken, wanted in ((False, [False]), (True, [False, True])):  # noqa: B007
        calls.clear()
        setup_env.make_venv()
        assert calls == wanted


def test_two_setups_at_once_wait_for_each_other(monkeypatch, tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    done = []

    def second():
        with setup_env.alone():
            done.append("second")

    other = threading.Thread(target=second)
    with setup_env.alone():
        other.start()
        other.join(0.3)
        done.append("first")
    other.join()
    assert done == ["first", "second"] and "waiting for another" in capsys.readouterr().out


def test_setup_needs_nothing_but_the_standard_library():
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import runpy; runpy.run_path('psr_lib/setup_env.py')",
    ]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


# --- make


def make(*arguments):
    """`make` with the environment's own choices of preset and round left out."""
    outer = ("N", "SET", "PRESET", "MAKEFLAGS", "MAKELEVEL")  # of the `make test` around this
    kept = {k: v for k, v in os.environ.items() if k not in outer}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=60)


def test_help_is_the_default_goal_and_lists_every_target_and_variable():
    targets = re.search(r"\.PHONY: (.*)", MAKEFILE).group(1).split()
    variables = re.findall(r"^([A-Z0-9]+) *\?=", MAKEFILE, re.MULTILINE)
    listed = make().stdout
    assert listed == make("help").stdout
    for target in targets:
        assert re.search(rf"^  {target} +\S", listed, re.MULTILINE), target
    for variable in variables:
        assert re.search(rf"^  {variable}=\S* +\S", listed, re.MULTILINE), variable
    wanted = "setup reproduce iteration base evaluate status test lab lint format clean help"
    assert set(wanted.split()) <= set(targets)


def test_confirm_measures_the_judges_that_were_trained_to_judge():
    all_methods = "METHODS=psrlm srlm random-judge ift-more"
    asked = make("-n", "confirm", f"CONDA={sys.executable}", "SEEDS=0 1", all_methods).stdout
    order = re.findall(r"psr_lib\.runs (\w+) ", asked)
    assert order == ["reproduce", "judge", "paper", "keep"]
    assert re.search(r'runs judge .*--methods "psrlm srlm" --seeds "0 1"', asked)
    assert " judge " not in make("-n", "confirm", "METHOD=ift-more").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["N=0"], "N=0: preset tiny has rounds 1 to 4"),
        (["N=9"], "N=9: preset tiny has rounds 1 to 4"),
        (["N=2", "PRESET=nope"], "preset 'nope' is unknown"),
        (["N=2", "SET=search.wdth=3"], "did you mean 'search.width'"),
        (["N=2", "METHOD=psrl"], "did you mean 'psrlm'"),
        ([], "N is missing"),
    ],
)
def test_a_bad_iteration_is_one_line_and_writes_nothing(arguments, words):
    before = sorted((ROOT / "runs").rglob("*"))
    done = make("iteration", f"CONDA={sys.executable}", *arguments)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode != 0 and len(errors) == 1 and words in errors[0]
    assert done.stdout == "" and sorted((ROOT / "runs").rglob("*")) == before
