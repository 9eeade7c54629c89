"""Small data sets on the disk and a stage that makes pools from them."""

import gzip
import json
from types import SimpleNamespace

from conftest import ROOT

from psr_lib import presets, sources


def write(path, rows):
    """Rows as a JSONL file, packed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


class FakeStage:
    """What `make_pools` needs of a stage."""

    seed = 0

    def __init__(self, folder, overrides):
        self.folder, self.preset = folder / "data", presets.load("smoke", overrides)
        self.counts, self.inputs = {}, []
        self.run = SimpleNamespace(paid=folder / "paid")

    def source(self, name):
        self.inputs.append(name)
        return ROOT / name

    def hub(self, data_set, split, setting):
        self.inputs.append(data_set.repo)
        return sources.read_hub(data_set, split, setting)

    def output(self, name):
        return self.folder / name

    def count(self, **numbers):
        self.counts |= numbers


def many(size, start=0):
    """GSM8K's layout: worked problems that all differ."""
    return [{"question": f"Ann{k} has {k} pens and buys {k + 1} more in shop {k}. How many pens?",
             "answer": f"Ann{k} had {k} pens at first.\nNow {k} + {k + 1} = <<{k}+{k + 1}="
                       f"{2 * k + 1}>>{2 * k + 1} pens.\n#### {2 * k + 1}"}
            for k in range(start, start + size)]  # fmt: skip


SMALL = ["teacher.ift=rule", "data.ift=12", "data.ift_more=4", "data.questions=[5,6,7]",
         "data.eft_from=none", "prompts=paper"]  # fmt: skip


def stage_of(tmp_path, rows, *overrides):
    write(tmp_path / "mine/train.jsonl", rows)
    tests = [{"problem": "Ann99 has 99 pens and buys 100 more in shop 99. How many pens?",
              "answer": "199"}]  # fmt: skip
    write(tmp_path / "sets/math500/test.jsonl", tests)
    here = [f"data.source={tmp_path}/mine", f"data.benchmark_folder={tmp_path}/sets",
            "data.benchmarks=[math500]"]  # fmt: skip
    return FakeStage(tmp_path, [*SMALL, *here, *overrides])
