"""What the tests share: notebooks made on the spot, and a small repository with toy stages.

The toy repository holds the real runner and the real presets, but stages that write a few lines
each, so that skipping, staleness and errors are tested through the command line in seconds.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from psr_lib import manifest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
RUNNER = ("__init__", "records", "steps", "runs", "commands", "stages", "manifest")
RUNNER += ("notebook_runner", "progress", "budgets", "methods", "run_dirs", "locks", "request")
RUNNER += ("integrity", "leftovers", "lineage", "overview", "upkeep", "cards", "architectures")
RUNNER += ("base_weights", "registry", "building", "targets", "making", "telling")

# The files that take longest: one of them that began last would be waited for alone.
LONGEST = ("test_smoke", "test_runs", "test_reports", "test_upkeep")
LONGEST += ("test_smoke_methods", "test_smoke_notebooks", "test_engine_search", "test_smoke_again")

ODD = "päth with späces, 空"  # a folder
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PARAMETERS = """preset: str = "smoke"  # which preset
method: str = "psrlm"  # which method
iteration: int = {n}  # which round
seed: int = 0  # which seed
runs_dir: str = "runs"  # where runs lie
overrides: str = ""  # such as search.width=4"""

OPEN = """from psr_lib import runs, toy
stage = runs.open_stage("{name}", preset=preset, method=method, iteration=iteration, seed=seed,
                        runs_dir=runs_dir, overrides=overrides)"""

BODIES = {
    "00_base_model": "toy.write(stage.output('base.json'), stage.model(0).name)",
    "01_data_prep": """if method == "srlm":
    toy.write(stage.output("eft_scores.jsonl"), stage.input("data/questions_2.jsonl").name)
for n in range(2, 5 if method != "srlm" else 2):
    toy.write(stage.output(f"questions_{n}.jsonl"), stage.preset.data.questions[n - 2])""",
    "02_init": """stage.model(0)
if method == "srlm":
    stage.input("srlm/data/eft_scores.jsonl")
toy.model(stage.folder, stage.preset.sft.epochs)""",
    "03_search_judge": """toy.progress()
stage.input(f"data/questions_{iteration}.jsonl"), stage.model(iteration - 1)
if method == "srlm":
    stage.input(f"psrlm/M{iteration}/ppd/ppd.jsonl")
judge = stage.preset.srlm.scores if method == "srlm" else stage.preset.judge.kind
toy.write(stage.output("ppd.jsonl"), stage.preset.search.width, judge)
stage.count(pairs=1)
stage.tokens(generated=3, judged=2)
stage.tokens(judged=5)""",
    "04_step_dpo": """stage.pairs(), stage.model(iteration - 1)
toy.model(stage.folder, stage.preset.dpo.beta)""",
    "05_evaluate": """stage.model(iteration)
toy.write(stage.output("accuracy.csv"), "benchmark,n,correct,accuracy,low,high")""",
}

TOY = '''"""Toy stages."""
from psr_lib import toy_deep


def write(path, *values):
    path.write_text(f"{values}\\n")


def model(folder, value):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(f"{value} {toy_deep.SALT}")


def progress():
    from psr_lib.progress import Progress
    with Progress(2, "toy search", every=0) as count:
        count.update(2, pairs=7)
    print("a table that stays in the notebook")
'''


def make_notebook(path: Path, *cells: str, parameters: str = "") -> Path:
    """Write a notebook of code cells, the first tagged `parameters` where there is one."""
    made = [nbformat.v4.new_code_cell(text) for text in cells]
    if parameters:
        made.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": spec})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path


class Repo:
    """A toy repository and its command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "runs" / "smoke" / "seed0"

    def call(self, *args: str, **environment: str) -> subprocess.CompletedProcess:
        """`python -m psr_lib.runs` with these arguments and, unless given, preset smoke."""
        return subprocess.run(
            self.command(*args),
            cwd=self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=180,
        )

    def command(self, *args: str) -> list[str]:
        """The command line of `call`."""
        preset = [] if "--preset" in args or "help-notebook" in args else ["--preset", "smoke"]
        return [sys.executable, "-m", "psr_lib.runs", *args, *preset]

    def environment(self, **more: str) -> dict[str, str]:
        """This process's environment without what would silence or redirect the runner.

        Toy notebooks import nothing large, so their kernels start from nothing.
        """
        kept = {k: v for k, v in os.environ.items() if k not in ("CI", "PSR_QUIET", "PYTHONPATH")}
        return {**kept, "PSR_WARM_KERNELS": "0", **more}

    def states(self, *args: str) -> dict[str, str]:
        """What `status` says of each stage: its state and reason."""
        done = self.call("status", "--each", *args)
        assert done.returncode == 0, done.stderr
        lines = (line for line in done.stdout.splitlines() if line)
        return {line[:38].strip(): line[38:].strip() for line in lines}

    def write(self, name: str, text: str) -> Path:
        """Write a file of the repository."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def files(self) -> dict[str, int]:
        """Every file of the runs, with its time stamp."""
        runs = (path for path in (self.root / "runs").rglob("*") if path.is_file())
        return {str(path): path.stat().st_mtime_ns for path in runs}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of its own, so that the real data/results stays as it is."""
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    return tmp_path


def make_repo(root: Path) -> Repo:
    """A toy repository in an empty folder."""
    for name in RUNNER:
        (root / "psr_lib").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "psr_lib" / f"{name}.py", root / "psr_lib")
    shutil.copy(ROOT / "psr_lib" / "architectures.yaml", root / "psr_lib")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("presets", "prompts"):
        shutil.copytree(ROOT / "psr_lib" / name, root / "psr_lib" / name, ignore=ignore)
    repo = Repo(root)
    repo.write("pyproject.toml", "")
    repo.write("psr_lib/toy.py", TOY)
    repo.write("psr_lib/toy_deep.py", "SALT = 1\n")
    repo.write("psr_lib/unused.py", "")
    repo.write(
        "psr_lib/evaluation.py", 'def accuracy_table(run, method):\n    return f"toy {method}"\n'
    )
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        repo.write(f"data/tiny/base/{name}", "base")
    for name, body in BODIES.items():
        n = {"02": 1, "03": 2, "04": 2, "05": 1}.get(name[:2], 0)
        cells = (OPEN.format(name=name), body, "stage.finish()")
        parameters = PARAMETERS.format(n=n)
        parameters += "\nretrain: bool = False  # train again" if name[:2] == "00" else ""
        make_notebook(root / "notebooks" / f"{name}.ipynb", *cells, parameters=parameters)
    return repo


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A finished data stage whose EFT is of the chain."""
    import chain_runs

    return chain_runs.finished(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def copied(made, tmp_path):
    """The runs of that stage, to be opened again."""
    return shutil.copytree(made.root, tmp_path / "copied")


@pytest.fixture
def empty_repo(tmp_path: Path) -> Repo:
    """A toy repository without any run."""
    return make_repo(tmp_path / "repo")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, str]:
    """A toy repository in which round 2 was made, and what the runner printed."""
    repo = make_repo(tmp_path_factory.mktemp("toy") / "repo")
    done = repo.call("iteration", "--n", "2")
    assert done.returncode == 0, done.stderr
    return repo, done.stdout


@pytest.fixture
def repo(finished: tuple[Repo, str], tmp_path: Path) -> Repo:
    """A copy of the toy repository in which round 2 was made."""
    shutil.copytree(finished[0].root, tmp_path / "repo")
    return Repo(tmp_path / "repo")


def pytest_collection_modifyitems(items):
    """The longest files first: where several processes share the tests, the others do the rest."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_xdist_auto_num_workers():
    """One process more than there are cores: much of a test is waiting for what it started."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or (os.cpu_count() or 1) + 1)
