"""A full disk, no memory, no permission, odd clocks, locales and names: one line, nothing lost."""

import ast
import gc
import os
import resource
import shutil
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from chain_runs import SMALL, by_the_runner, opened
from conftest import C_LOCALE, ODD, OPEN, PARAMETERS, ROOT, make_notebook, make_repo
from scripted import questions
from tiny_model import eft, ift, make_tiny_model, random_model, settings, step_pair, word_tokenizer

from psr_lib import data_prep, dpo, models, presets, prompts, sft, stages
from psr_lib.engines.hf import HFEngine
from psr_lib.journal import Journal, search_into
from psr_lib.locks import lock, unlock
from psr_lib.models import load_model, save_model
from psr_lib.paid import Paid
from psr_lib.records import (
    PSRError,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
    writing,
)
from psr_lib.run_dirs import RunDir

FAMILY = prompts.load("compact")
ROWS = [{"k": k, "text": "x" * 5000} for k in range(80)]


def mounted(kind, folder, *options):
    """Whether a mount was permitted; to be taken down by `umount`."""
    command = ["mount", *kind, *options, str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


class SmallDisk:
    """A folder of a megabyte that can be filled and freed, on a disk of its own."""

    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()
        if not mounted(["-t", "tmpfs"], folder, "-o", "size=1m", "tmpfs"):
            pytest.skip("mounts are not permitted here; the other disk does without")

    def fill(self):
        """Leave no room."""
        with suppress(OSError), open(self.filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def free(self):
        """Give the room back."""
        self.filler.unlink(missing_ok=True)

    def end(self):
        """Take the disk away."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


class LimitedFiles(SmallDisk):
    """A folder whose files may not grow while it is full: the same, without a mount."""

    def __init__(self, folder):
        self.folder = folder
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        folder.mkdir()

    def fill(self):
        """No file may be longer than this."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, self.before[1]))

    def free(self):
        """As before."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    end = free


@pytest.fixture(params=[SmallDisk, LimitedFiles])
def disk(request, tmp_path):
    """A disk that runs full."""
    made = request.param(tmp_path / "disk")
    yield made
    made.end()


NO_ROOM = r"cannot be written \((No space left on device|File too large)\); free some space and run"


def read_text(path):
    """The text of a file."""
    return path.read_text(encoding="utf-8")


def parts(folder):
    """What half-written files leave behind."""
    return [path for path in folder.rglob("*") if ".part" in path.name or ".old" in path.name]


# --- a full disk


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "new.jsonl"])
def test_a_file_that_does_not_fit_leaves_the_old_one(disk, name):
    path = disk.folder / name
    if not name.startswith("new"):
        write_jsonl(path, ROWS[:1])
    disk.fill()
    with pytest.raises(PSRError, match=NO_ROOM) as caught:
        write_jsonl(path, ({**row, "text": os.urandom(3000).hex()} for row in ROWS))
    disk.free()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert parts(disk.folder) == [] and path.exists() == (not name.startswith("new"))
    assert not path.exists() or read_jsonl(path) == ROWS[:1]
    write_jsonl(path, ROWS)
    assert read_jsonl(path) == ROWS


class Found:
    """A finished search."""

    def __init__(self, text):
        self.text = text

    def to_row(self):
        """As a journal takes it."""
        return {"text": self.text * 200}


def test_searches_that_were_finished_are_kept_and_the_rest_is_searched_later(disk):
    asked = questions(8)

    def search(left):
        for place, question in left:
            if place == 3:
                disk.fill()
            yield place, Found(question.text)

    with pytest.raises(PSRError, match=rf"{NO_ROOM}.*; 3 of 8 searches are kept"):
        search_into(Journal(disk.folder / "traces.part", "same"), asked, search)
    disk.free()
    again = Journal(disk.folder / "traces.part", "same")
    assert again.count == 3 and [place for place, _ in again.left(asked)] == [3, 4, 5, 6, 7]
    search_into(again, asked, lambda left: ((place, Found(q.text)) for place, q in left))
    gc.collect()  # nothing of the first journal is written now
    assert list(again.rows()) == [Found(q.text).to_row() for q in asked]
    again.close()


def test_answers_that_were_paid_for_are_kept(disk):
    path = disk.folder / "paid.jsonl"
    paid = Paid(path)
    for k in range(3):
        paid.add(f"key {k}", {"text": "x" * 2000})
    disk.fill()
    with pytest.raises(PSRError, match=NO_ROOM):
        for k in range(3, 9):
            paid.add(f"key {k}", {"text": "y" * 3000})
    kept = len(paid)
    disk.free()
    again = Paid(path)
    assert len(again) == kept >= 3 and again.unreadable <= 1
    again.add("key 9", "z")
    assert len(Paid(path)) == kept + 1 and Paid(path).get("key 9") == "z"


def test_a_model_that_does_not_fit_leaves_the_old_one(disk):
    tokenizer = word_tokenizer()
    old, new = (random_model(len(tokenizer), seed) for seed in (0, 1))
    folder = save_model(old, tokenizer, disk.folder / "model")
    disk.fill()
    with pytest.raises(PSRError, match=NO_ROOM):
        save_model(new, tokenizer, folder)
    disk.free()
    assert parts(disk.folder) == []
    found = load_model(folder, "float32", "cpu")
    assert torch.equal(found.lm_head.weight, old.lm_head.weight)
    save_model(new, tokenizer, folder)
    found = load_model(folder, "float32", "cpu")
    assert torch.equal(found.lm_head.weight, new.lm_head.weight)


def test_training_on_a_full_disk_keeps_the_model_before(disk, tmp_path):
    folder, _ = make_tiny_model(tmp_path / "model")
    write_text(disk.folder / "out/model/config.json", "the model before")
    how = ([step_pair(k) for k in range(4)], settings(), disk.folder / "out", 0, FAMILY)
    disk.fill()
    with pytest.raises(PSRError, match=NO_ROOM):
        dpo.train_dpo(folder, folder, *how, device="cpu")
    disk.free()
    assert read_text(disk.folder / "out/model/config.json") == "the model before"
    assert not (disk.folder / "out/tmp").exists() and parts(disk.folder) == []


def test_the_runner_ends_in_one_line_and_calls_nothing_done(empty_repo, tmp_path):
    made = SmallDisk(tmp_path / "disk")
    try:
        made.fill()
        done = empty_repo.call("base", "--runs-dir", str(made.folder))
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "No space left on device); free some space" in done.stderr.splitlines()[-1]
        made.free()
        states = empty_repo.states("--runs-dir", str(made.folder))
        assert states["00_base_model"].startswith("partial")
    finally:
        made.end()


# --- no memory


def device_full(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore lines")


def host_full(*_, **__):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to "
                       "allocate 1 bytes.")  # fmt: skip


def python_full(*_, **__):
    raise MemoryError


@pytest.mark.parametrize("fails", [device_full, host_full, python_full])
def test_memory_that_runs_out_is_one_line_and_keeps_the_model_before(fails, tmp_path, monkeypatch):
    folder, tokenizer = make_tiny_model(tmp_path / "model")
    write_text(tmp_path / "out/model/config.json", "the model before")
    engine = HFEngine.load(folder, device="cpu", workers=1)
    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaModel.forward", fails)
    rows = [make(k) for k in range(4) for make in (ift, eft)]
    with pytest.raises(PSRError, match=r"training: memory ran out \(.*\); lower") as caught:
        sft.train_sft(folder, tokenizer, rows, settings(), tmp_path / "out", 0, FAMILY,
                      device="cpu")  # fmt: skip
    assert "\n" not in str(caught.value)
    assert read_text(tmp_path / "out/model/config.json") == "the model before"
    assert not (tmp_path / "out/tmp").exists() and parts(tmp_path) == []
    with pytest.raises(PSRError, match=r"stopped in the middle of a call .*engine\.batch_tokens"):
        engine.sample(["Tom has"], max_tokens=3)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fails)
    with pytest.raises(PSRError, match="model: no memory left for this model"):
        load_model(folder, "float32", "cpu")


@pytest.mark.parametrize("place", ["the reference's pass", "saving"])
def test_memory_that_runs_out_beside_the_updates_is_one_line_too(place, tmp_path, monkeypatch):
    folder, _ = make_tiny_model(tmp_path / "model")
    write_text(tmp_path / "out/model/config.json", "the model before")
    where = {"the reference's pass": "trl.DPOTrainer.compute_ref_log_probs",
             "saving": "psr_lib.training.save_model"}  # fmt: skip
    monkeypatch.setattr(where[place], device_full)
    with pytest.raises(PSRError, match=r"training: memory ran out \(CUDA .*\); lower") as caught:
        dpo.train_dpo(folder, folder, [step_pair(k) for k in range(4)], settings(),
                      tmp_path / "out", 0, FAMILY, device="cpu")  # fmt: skip
    assert "\n" not in str(caught.value)
    assert read_text(tmp_path / "out/model/config.json") == "the model before"
    assert not (tmp_path / "out/tmp").exists() and parts(tmp_path) == []


def test_the_reference_is_gone_while_the_policy_trains(tmp_path, monkeypatch):
    folder, _ = make_tiny_model(tmp_path / "model")
    other, _ = make_tiny_model(tmp_path / "other", seed=1)
    held, seen, policy, run = [], [], dpo.policy, dpo.run

    def loading(*args):
        model = policy(*args)
        held.append(weakref.ref(model))
        return model

    def running(*args):
        seen.append([model() is not None for model in held])
        return run(*args)

    monkeypatch.setattr(dpo, "policy", loading)
    monkeypatch.setattr(dpo, "run", running)
    dpo.train_dpo(folder, other, [step_pair(k) for k in range(4)], settings(), tmp_path / "out", 0,
                  FAMILY, device="cpu")  # fmt: skip
    assert seen == [[True, False]], "the policy is there, the reference is not"


def test_other_errors_of_training_are_not_called_memory(tmp_path, monkeypatch):
    folder, tokenizer = make_tiny_model(tmp_path / "model")

    def odd(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaModel.forward", odd)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        sft.train_sft(folder, tokenizer, [ift(0)] * 4, settings(), tmp_path / "out", 0, FAMILY,
                      device="cpu")  # fmt: skip


def test_a_kernel_that_was_killed_is_one_line(empty_repo):
    notebook = empty_repo.root / "notebooks/00_base_model.ipynb"
    parameters = PARAMETERS.format(n=0) + "\nretrain: bool = False"
    make_notebook(notebook, "import os\nos.kill(os.getpid(), 9)", parameters=parameters)
    done = empty_repo.call("base")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "its kernel died, most often for want of memory" in done.stderr.splitlines()[-1]
    assert empty_repo.states()["00_base_model"].startswith("partial")


# --- no permission


class ReadOnlyMount:
    """A folder that cannot be written to, whoever asks."""

    def __init__(self, folder):
        self.folder = folder
        if not mounted(["--bind", str(folder)], folder):
            pytest.skip("mounts are not permitted here; the injected refusal does without")
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)

    def end(self):
        """Writable again."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


class Refusal:
    """The same, without a mount: opening and making below the folder is refused."""

    def __init__(self, folder):
        self.patch = pytest.MonkeyPatch()
        for name in ("io.open", "builtins.open", "os.open", "os.mkdir", "os.rename", "os.replace"):
            self.patch.setattr(name, self.refusing(name, str(folder)))

    @staticmethod
    def refusing(name, folder):
        """The function as before, but for this folder."""
        module, _, own = name.partition(".")
        before = getattr(sys.modules[module], own)

        def call(path, *args, **named):
            reading = own == "open" and module != "os" and not set(str(args[:1])) & set("wax+")
            if str(path).startswith(folder) and not reading:
                raise PermissionError(13, "Permission denied", str(path))
            return before(path, *args, **named)

        return call

    def end(self):
        """As before."""
        self.patch.undo()


@pytest.mark.parametrize("kind", [ReadOnlyMount, Refusal])
def test_a_folder_that_may_not_be_written_to_is_one_line(kind, tmp_path):
    tokenizer = word_tokenizer()
    model = random_model(len(tokenizer))
    home = tmp_path / "home"
    folder = save_model(model, tokenizer, home / "model")
    write_json(home / "a.json", [1])
    tries = {
        "a.json": lambda: write_json(home / "a.json", [2]),
        "new/b.json": lambda: write_json(home / "new/b.json", [2]),
        "model": lambda: save_model(model, tokenizer, folder),
        "paid.jsonl": lambda: Paid(home / "paid.jsonl").add("key", 1),
        ".lock": lambda: lock(RunDir("smoke", 0, home), "a test"),
    }
    made = kind(home)
    try:
        for name, attempt in tries.items():
            said = r"\((Read-only file system|Permission denied)\); allow this user to write there"
            with pytest.raises(PSRError, match=rf"{name}: cannot be written {said}") as caught:
                attempt()
            assert "\n" not in str(caught.value)
    finally:
        made.end()
    assert read_json(home / "a.json") == [1] and parts(home) == []
    assert load_model(folder, "float32", "cpu").num_parameters() == model.num_parameters()
    write_json(home / "a.json", [2])
    lock(RunDir("smoke", 0, home), "a test")
    unlock(RunDir("smoke", 0, home))


def test_a_model_comes_back_where_the_last_move_is_refused(tmp_path, monkeypatch):
    write_text(tmp_path / "model/config.json", "old")
    rename = Path.rename

    def refuse(path, target):
        if path.name.endswith(f".part{os.getpid()}"):
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(PSRError, match="model: cannot be written"),
        models.whole_folder(tmp_path / "model") as part,
    ):
        write_text(part / "config.json", "new")
    assert read_text(tmp_path / "model/config.json") == "old"
    assert parts(tmp_path) == []


def test_only_errors_of_the_disk_are_said_to_be_of_the_disk(tmp_path):
    for error in (FileNotFoundError(2, "No such file"), ValueError("x (os error 28)\nand more")):
        with pytest.raises(type(error)), writing(tmp_path):
            raise error
    with pytest.raises(PSRError, match="No space left on device"), writing(tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


# --- a clock that goes backwards


def test_a_clock_that_is_set_back_changes_no_result(tmp_path, monkeypatch):
    by_the_runner(monkeypatch)
    direct = "data.eft_from=direct"
    now = [2_000_000_000.0]

    def back():
        now[0] -= 3600
        return now[0]

    def made():
        stage = opened(tmp_path / "runs", direct)
        data_prep.make_pools(stage)
        return stage, stage.finish()

    with monkeypatch.context() as clock:
        clock.setattr(time, "time", back)
        stage, first = made()
    assert first["wall_seconds"] >= 0 and first["started"].startswith("2033-")
    for path in stage.folder.iterdir():  # and files that seem to be of the future
        os.utime(path, (4e9, 4e9))
    key, preset = stages.Key(stages.DATA), presets.load("smoke", f"{SMALL} {direct}")
    assert stages.stage_state(stage.run, key, preset).word == "current"
    _, again = made()
    assert again["outputs"] == first["outputs"] and again["started"] < first["started"]
    assert stages.stage_state(stage.run, key, preset).word == "current"


# --- a locale that knows no letters but ours


def test_every_text_file_is_opened_with_its_encoding():
    """`open` without one takes the locale's, which may be ASCII."""
    for path in sorted((ROOT / "psr_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name, named = ast.unparse(node.func), {word.arg for word in node.keywords}
            where = f"{path.name}:{node.lineno}: {name}"
            modes = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            binary = any("b" in str(mode) for mode in modes) or "mode" in modes
            if name == "open" or name.endswith((".read_text", ".write_text", "fdopen")):
                known = ast.unparse(node.args[1]) == "mode" if len(node.args) > 1 else False
                assert "encoding" in named or binary or known, where
            if name.startswith("subprocess."):
                assert not named & {"text", "universal_newlines"}, where


LETTERS = """
import sys
from pathlib import Path
from psr_lib import facts, fuzz, presets, prompts
from psr_lib.grading import Grader
from psr_lib.records import read_jsonl, write_jsonl
assert sys.flags.utf8_mode == 0 and sys.getfilesystemencoding() != "utf-8", sys.flags
path, rows = Path(sys.argv[1]), [{"text": "M0 \\u2192 M1, \\u7a7a"}]
write_jsonl(path, rows)
assert path.read_bytes() == '{"text": "M0 \\u2192 M1, \\u7a7a"}\\n'.encode("utf-8")
assert read_jsonl(path) == rows
for name in presets.names():
    presets.load(name)
for name in ("paper", "compact", "qwen"):
    prompts.load(name)
assert facts.table(1)
with Grader() as grader:
    assert grader.equal("\\u03c0", "\\u03c0") and not grader.equal("\\\\pi", "\\u7a7a")
assert fuzz.main(["--count", "150", "--graded", "50"]) == 0
"""


def test_the_library_works_in_an_ascii_locale(tmp_path):
    environment = {**os.environ, **C_LOCALE, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LETTERS, str(tmp_path / "rows.jsonl")],
                          env=environment, capture_output=True, encoding="utf-8")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_stage_runs_in_an_ascii_locale_and_writes_what_it_always_writes(empty_repo):
    body = (
        "from psr_lib.records import write_jsonl\n"
        "print('M0 → M1, 空')\nfrom psr_lib.progress import Progress\n"
        "with Progress(2, 'über', every=0) as count:\n    count.update(2)\n"
        "write_jsonl(stage.output('rows.jsonl'), [{'text': 'M0 → M1, 空'}])"
    )
    cells = (OPEN.format(name="00_base_model"), body, "stage.finish()")
    make_notebook(empty_repo.root / "notebooks/00_base_model.ipynb", *cells,
                  parameters=PARAMETERS.format(n=0) + "\nretrain: bool = False")  # fmt: skip
    done = empty_repo.call("base", **C_LOCALE)
    assert done.returncode == 0, done.stderr
    assert "\\xfcber 2/2" in done.stdout
    text = read_text(empty_repo.run / "base/rows.jsonl")
    assert text == '{"text": "M0 → M1, 空"}\n'
    executed = empty_repo.run / "base/notebooks/00_base_model.ipynb"
    assert "M0 → M1, 空" in executed.read_text(encoding="utf-8")
    assert empty_repo.states()["00_base_model"].startswith("done")


def test_a_name_that_the_locale_cannot_read_is_one_line(tmp_path):
    repo = make_repo(tmp_path / ODD)
    done = repo.call("status", **C_LOCALE)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "set PYTHONUTF8=1" in done.stderr
    assert repo.call("status", **{**C_LOCALE, "PYTHONUTF8": "1"}).returncode == 0


# --- a path with spaces and letters of other languages


def test_a_repository_in_an_odd_folder_runs(tmp_path):
    repo = make_repo(tmp_path / ODD)
    done = repo.call("base", "--runs-dir", "my runs")
    assert done.returncode == 0, done.stderr
    assert repo.states("--runs-dir", "my runs")["00_base_model"].startswith("done")
    for path in (repo.root / "my runs").rglob("*.ipynb"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_make_runs_in_an_odd_folder_with_an_interpreter_in_another(tmp_path):
    repo, python = make_repo(tmp_path / ODD), tmp_path / "my env" / "python"
    shutil.copy(ROOT / "Makefile", repo.root)
    write_text(python, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    command = ["make", "--no-print-directory", "status", "PRESET=smoke", f"CONDA={python}"]
    kept = {k: v for k, v in repo.environment().items() if not k.startswith("MAKE")}
    done = subprocess.run(command, cwd=repo.root, env=kept, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "0 of 14 done" in done.stdout


def test_training_and_sampling_in_an_odd_folder(tmp_path):
    folder, _ = make_tiny_model(tmp_path / ODD / "model")
    pairs = [step_pair(k) for k in range(4)]
    made = dpo.train_dpo(folder, folder, pairs, settings(), tmp_path / ODD / "out", 0, FAMILY,
                         device="cpu")  # fmt: skip
    engine = HFEngine.load(made["model"], device="cpu", workers=1)
    ((found,),) = engine.sample(["Problem: Tom has"], max_tokens=4)
    assert found.tokens and parts(tmp_path) == []
