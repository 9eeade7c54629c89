"""The chain at a size of seconds: what several test files open, and a finished one."""

from types import SimpleNamespace

import pytest

from psr_lib import data_prep, runs
from psr_lib.notebook_runner import RUNNING
from psr_lib.records import read_jsonl

SMALL = (
    "data.eft_from=chain data.ift=16 data.eft=40 data.eft_heldout=8 data.questions=[2,2,2] "
    "prm.solutions=32 prm.heldout=24 tree.questions=14 tree.iterations=3 tree.width=4 "
    "tree.temperature=1.3 tree.top_p=1.0 tree.live=5 annotate.min_gap=0.0001"
)


def opened(root, changes="", method="psrlm"):
    """The data stage of a run in this folder."""
    return runs.open_stage("01_data_prep", preset="smoke", seed=0, runs_dir=str(root),
                           method=method, overrides=f"{SMALL} {changes}")  # fmt: skip


def finished(root):
    """A finished data stage in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        by_the_runner(patch)
        stage = opened(root)
        rows = data_prep.make_pools(stage)
        stage.count(**rows)
        manifest = stage.finish()
    return SimpleNamespace(root=root, stage=stage, rows=rows, manifest=manifest)


def by_the_runner(patch):
    """No stage builds what is before it, and nothing is printed."""
    patch.setenv(RUNNING, "01_data_prep")
    patch.setenv("PSR_QUIET", "1")


def rows_of(made, name, cls):
    """The rows of one of the stage's files."""
    return read_jsonl(made.stage.folder / f"{name}.jsonl", cls)


def making(root):
    """Where the chain keeps what takes long."""
    return root / "smoke/seed0/making"
