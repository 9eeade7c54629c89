"""A search on two Ray nodes of this machine goes on where a worker, or a whole node, dies.

`tests/two_nodes.py` is the same for a whole round, by hand.
"""

import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from processes import alive
from two_nodes import Killer, nodes

from psr_lib import presets, rounds
from psr_lib.benchmarks import load
from psr_lib.engines.opening import open_engine

pytest.importorskip("ray", reason="ray is not installed (extra ray)")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
pytestmark = [pytest.mark.slow, on_linux]
# The shipped base model never learned to judge, so that the oracle does, and there are pairs.
CHANGED = ("search.live=2", "judge.kind=oracle", "model.device=cpu", "engine.workers=2")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes."""
    with nodes() as found:
        yield found


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """What engine hf finds."""
    return searched(tmp_path_factory.mktemp("hf"), "hf")[0]


def searched(folder, kind):
    """Rows of the base model's searches and of their pairs, and the engine."""
    preset = presets.load("smoke", [*CHANGED, f"engine.kind={kind}"])
    engine = open_engine(preset.engine, preset.model, ROOT / preset.model.base)
    problems = load(ROOT / preset.data.benchmark_folder, ("words",), 6, "dev")["words"]
    stage = SimpleNamespace(
        preset=preset, seed=0, folder=folder, made_from={}, tokens=lambda **n: None,
        scratch=lambda name: folder / f"{name}.part", output=lambda name: folder / name,
        count=lambda **n: None,
    )  # fmt: skip
    traces = rounds.search_round(stage, [one.ask() for one in problems], engine)
    rows = [trace.to_row() for trace in traces]
    return (rows, (folder / "ppd.jsonl").read_text(encoding="utf-8")), engine


def test_a_worker_that_dies_in_a_search_is_replaced_and_no_row_is_another(cluster, hf, tmp_path):
    with Killer(tmp_path) as killer:
        found, engine = searched(tmp_path, "ray")
    assert killer.hit and alive([killer.hit]) == {}
    assert found == hf and len(found[0]) == 6 and found[1].count("\n") > 3
    assert None not in engine.actors
    engine.close()


def test_when_a_whole_node_goes_the_others_worker_does_the_rest(cluster, hf, tmp_path):
    (node,) = cluster.worker_nodes
    with Killer(tmp_path, lambda pid: cluster.remove_node(node, allow_graceful=False)) as killer:
        found, engine = searched(tmp_path, "ray")
    assert killer.hit and found == hf
    assert engine.actors.count(None) == 1
    engine.close()
