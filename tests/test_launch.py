"""Training in several processes: the same updates as in one, the shipped configurations, errors."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import eft, ift, make_tiny_model, settings, step_pair

from psr_lib import (
    checkpoints,
    dpo,
    launch,
    leftovers,
    presets,
    prompts,
    registry,
    sft,
    sharded,
    stages,
)
from psr_lib.checkpoints import MARK, Checkpoints, updates_kept
from psr_lib.launch import command, job, worker
from psr_lib.models import load_tokenizer
from psr_lib.presets.sections import Train
from psr_lib.records import PSRError, read_json, write_json
from psr_lib.run_dirs import Key, RunDir

FAMILY = prompts.load("compact")
PAIRS = [
    replace(pair, chosen=pair.chosen + " so" * k) for k, pair in enumerate(map(step_pair, range(8)))
]
ROWS = [make(k) for k in range(4) for make in (ift, eft)]
LOCAL = "compute_environment: LOCAL_MACHINE\n"
TWO = Train(launch="ddp", processes=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")[0]


def given(kind, model, out, **changes):
    """A training call of either kind with its arguments by name, as a job holds them."""
    tuned = settings(epochs=2, nll_weight=2.0, **changes)  # the anchor is of pairs' tokens
    common = {"settings": tuned, "out_dir": out, "seed": 0, "family": FAMILY, "device": "cpu"}
    if kind == "sft":
        return sft.train_sft, common | {
            "model_dir": model,
            "tokenizer": load_tokenizer(model),
            "rows": ROWS,
        }
    return dpo.train_dpo, common | {"model_dir": model, "reference_dir": model, "pairs": PAIRS}


# --- the same loss curve ------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_make_the_updates_of_one(folder, tmp_path):
    """Losses within 1e-4 and weights within 1e-5: sums are added in another order, no more."""
    kinds, seen = ("sft", "dpo"), []
    for kind in kinds:
        function, arguments = given(kind, folder, tmp_path / kind)
        (tmp_path / f"{kind}.job").mkdir()
        job.write(tmp_path / f"{kind}.job", function.__name__, arguments, 2, 0)
    plan = command.plan(TWO, "cpu", bf16=False)
    launch.run(plan, [tmp_path / f"{kind}.job" for kind in kinds], lambda *row: seen.append(row))
    assert [row[:2] for row in seen] == [(k, 4) for k in range(1, 5)] * 2
    for kind in kinds:
        function, arguments = given(kind, folder, tmp_path / f"{kind} alone")
        one, two = function(**arguments), read_json(tmp_path / f"{kind}.job" / job.RESULT)
        assert (one["batch"]["devices"], two["batch"]["devices"]) == (1, 2)
        assert two["batch"]["micro"] * two["batch"]["accumulation"] * 2 == one["batch"]["batch"]
        for name in ("loss", "grad_norm", "learning_rate"):
            curves = [[row[name] for row in result["history"]] for result in (one, two)]
            assert curves[1] == pytest.approx(curves[0], abs=1e-4), name
        assert len(one["history"]) == one["updates"] == two["updates"] == 4
        assert (one["tokens"], two["counts"]["twice"]) == (two["tokens"], 0)
        weights = [load_file(Path(result["model"]) / "model.safetensors") for result in (one, two)]
        assert all(torch.allclose(weights[0][k], weights[1][k], atol=1e-5) for k in weights[0])


def test_on_a_cpu_large_pages_are_asked_for_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv(command.LARGE_PAGES, raising=False)
    asked = command.plan(Train(), "cpu", bf16=False).environment
    assert asked[command.LARGE_PAGES] == "1"
    monkeypatch.setenv(command.LARGE_PAGES, "0")
    assert command.plan(Train(), "cpu", bf16=False).environment[command.LARGE_PAGES] == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux preloads so")
def test_on_a_cpu_an_allocator_is_taken_that_is_there_and_no_other(monkeypatch, tmp_path):
    def asked():
        return command.plan(Train(), "cpu", bf16=False).environment.get(command.PRELOAD)

    monkeypatch.delenv(command.PRELOAD, raising=False)
    monkeypatch.setattr(command, "ALLOCATOR", "libnothing.so.4")
    assert asked() is None
    monkeypatch.setattr(command, "ALLOCATOR", "libm.so.6")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libm.so.6").write_text("no library")
    assert asked() == "libm.so.6"
    monkeypatch.setenv(command.PRELOAD, "libmine.so")
    assert asked() is None  # the launcher inherits the user's own
    monkeypatch.delenv(command.PRELOAD)
    there = command.Plan(Path("ddp.yaml"), 2, False, ("", "node2"), {command.PRELOAD: "here.so"})
    assert "here.so" not in " ".join(there.commands(tmp_path)[1])


# --- checkpoints --------------------------------------------------------------------------------


def killed_at(update, done, total, last):
    if done == update:
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_killed_training_goes_on_from_its_last_checkpoint(kind, folder, tmp_path):
    function, arguments = given(kind, folder, tmp_path / "whole")
    whole = function(**arguments)
    arguments["out_dir"], kept = tmp_path / "cut", Checkpoints(tmp_path / "kept", 2)
    with pytest.raises(KeyboardInterrupt):
        function(**arguments, checkpoints=kept, on_progress=partial(killed_at, 3))
    assert updates_kept(kept.folder) == 2 and not (tmp_path / "cut/model").exists()
    half = kept.folder / "checkpoint-3"
    half.mkdir()  # a kill while one was written
    seen = []
    again = function(**arguments, checkpoints=kept, on_progress=lambda *row: seen.append(row[0]))
    assert seen == [3, 4] and not half.exists()
    assert [(row["step"], row["loss"]) for row in again["history"]] == [
        (row["step"], row["loss"]) for row in whole["history"]
    ]
    assert (again["tokens"], again["updates"]) == (whole["tokens"], whole["updates"])
    one, two = (load_file(Path(r["model"]) / "model.safetensors") for r in (whole, again))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_damaged_checkpoint_is_left_out_for_the_one_before(folder, tmp_path, capsys):
    function, arguments = given("sft", folder, tmp_path / "cut")
    kept, seen = Checkpoints(tmp_path / "kept", 1), []
    with pytest.raises(KeyboardInterrupt):
        function(**arguments, checkpoints=kept, on_progress=partial(killed_at, 3))
    assert updates_kept(kept.folder) == 2
    optimizer = kept.folder / "checkpoint-2/optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    function(**arguments, checkpoints=kept, on_progress=lambda *row: seen.append(row[0]))
    assert seen == [2, 3, 4]
    assert (
        "checkpoint 2 is left out: optimizer.pt is not what was written" in capsys.readouterr().out
    )


@pytest.mark.parametrize("fault", ["added", "gone", "mark"])
def test_a_checkpoint_of_other_files_than_were_written_is_of_no_use(tmp_path, fault):
    here = tmp_path / "checkpoint-7"
    (here / "shards").mkdir(parents=True)
    (here / "shards/0.distcp").write_bytes(b"weights")
    write_json(here / MARK, {"tokens": 1, "seconds": 1.0, "files": checkpoints._files(here)})
    assert checkpoints._fault(here) == ""
    name = {"added": "shards/more.pkl", "gone": "shards/0.distcp", "mark": MARK}[fault]
    (here / name).unlink() if fault == "gone" else (here / name).write_text("{")
    wanted = "not complete" if fault == "mark" else f"{name} is not what was written"
    assert checkpoints._fault(here) == wanted
    checkpoints._clear(tmp_path)
    assert not here.exists()


def test_a_job_is_kept_for_the_same_call_alone(folder, tmp_path):
    function, arguments = given("dpo", folder, tmp_path / "out")
    here = tmp_path / "job"
    (here / job.CHECKPOINTS / "checkpoint-2").mkdir(parents=True)
    kept = here / job.CHECKPOINTS / "checkpoint-2" / MARK
    job.write(here, function.__name__, arguments, 2, 5)
    assert not kept.parent.exists()
    kept.parent.mkdir(parents=True)
    job.write(here, function.__name__, arguments, 2, 5)
    assert kept.parent.exists()
    _, call = job.read(here)
    assert call["pairs"] == PAIRS and call["family"] == FAMILY
    assert vars(call["settings"]) == json.loads(json.dumps(vars(arguments["settings"])))
    for changed in ({"seed": 1}, {"settings": settings(lr=1e-4)}, {"pairs": PAIRS[:4]}):
        kept.parent.mkdir(parents=True, exist_ok=True)
        job.write(here, function.__name__, arguments | changed, 2, 5)
        assert not kept.parent.exists(), changed


def test_a_job_carries_replayed_rows_soft_labels_and_extensions(folder, tmp_path, monkeypatch):
    mine = tmp_path / "mine.py"
    mine.write_text("from psr_lib.registry import register\nregister('loss', 'mine')(abs)\n")
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(registry, "_imported", {})
    registry.use(str(mine))
    more = {"replay": [eft(1)], "labels": {PAIRS[0].id: 0.75}}
    function, arguments = given("dpo", folder, tmp_path / "out")
    (tmp_path / "job").mkdir()
    job.write(tmp_path / "job", function.__name__, arguments | more, 2, 0)
    registry._imported.clear(), registry._entries.pop(("loss", "mine"))  # as in another process
    _, call = job.read(tmp_path / "job")
    assert {name: call[name] for name in more} == more
    assert registry.find("loss", "mine") is abs


# --- the shipped configurations -----------------------------------------------------------------


def launched_environment(name, prepare):
    """What accelerate gives the processes of a shipped configuration, by its own parser."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config, _ = command.read_config(name)
    line = command.Plan(config, 8, bf16=True).commands(Path("job"))[0]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(line[3:]))
    assert (args.num_processes, args.num_machines, args.mixed_precision) == (8, 1, "bf16")
    args.deepspeed_fields_from_accelerate_config = ""  # as the launcher has it, for DeepSpeed alone
    found = prepare(args)
    return args, found[1] if isinstance(found, tuple) else found


def test_the_fsdp_configuration_shards_each_layer(monkeypatch):
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env
    from transformers import Qwen2Config, Qwen2ForCausalLM

    args, found = launched_environment("fsdp", prepare_multi_gpu_env)
    assert args.use_fsdp and not args.use_deepspeed
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward
    assert "SHARDED" in str(plugin.state_dict_type) and plugin.cpu_ram_efficient_loading
    assert not plugin.activation_checkpointing  # the trainer does it
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=2, hidden_size=64, vocab_size=99))
    plugin.set_auto_wrap_policy(model)
    policy = plugin.auto_wrap_policy
    assert {cls.__name__ for cls in policy.keywords["transformer_layer_cls"]} == {
        "Qwen2DecoderLayer"
    }


def test_the_deepspeed_configuration_is_zero_3(monkeypatch):
    """As far as accelerate reads it: DeepSpeed itself is no part of the set-up."""
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    args, found = launched_environment("deepspeed", prepare_deepspeed_cmd_env)
    assert args.use_deepspeed and args.deepspeed_multinode_launcher == "standard"
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    zero = plugin.deepspeed_config["zero_optimization"]
    assert zero["stage"] == 3 and plugin.zero3_init_flag
    assert zero["stage3_gather_16bit_weights_on_model_save"]
    assert plugin.gradient_accumulation_steps == "auto"  # the trainer's, from the preset's batch


@pytest.mark.parametrize("name", sorted(command.SHIPPED))
def test_shipped_configurations_are_package_data_and_leave_the_size_to_the_preset(name):
    path, values = command.read_config(name)
    assert path.parent == Path(launch.__file__).parent and path.suffix == ".yaml"
    assert values["num_processes"] == values["num_machines"] == 1
    assert values["mixed_precision"] == "no"


# --- bad input ----------------------------------------------------------------------------------


def test_a_batch_that_does_not_divide_stops_before_anything_starts(folder, tmp_path):
    function, arguments = given("dpo", folder, tmp_path / "out")
    with pytest.raises(PSRError, match="the batch of 4 rows does not divide over 3 processes; set"):
        launch.call(Train(launch="ddp", processes=3), function, **arguments)
    assert not (tmp_path / "out").exists()


def test_single_is_the_function_itself_for_a_small_model(folder):
    calls = []

    def train(model_dir, b):
        calls.append((model_dir, b))
        return {"updates": 1}

    assert launch.call(Train(), train, folder, b=2) == {"updates": 1} and calls == [(folder, 2)]


@pytest.mark.slow
def test_a_larger_model_has_a_process_of_its_own_and_goes_on_from_its_checkpoint(
    folder, tmp_path, monkeypatch
):
    """The same weights as in this process, also where the first call was killed on its way."""
    function, arguments = given("dpo", folder, tmp_path / "here")
    here = launch.call(Train(), function, **arguments)
    monkeypatch.setattr(launch, "SMALL", 0)
    arguments["out_dir"], seen = tmp_path / "apart", []

    def killed(done, total, last):
        seen.append((done, total))
        if len(seen) == 3:
            raise KeyboardInterrupt

    arguments["on_progress"] = killed
    with pytest.raises(KeyboardInterrupt):
        launch.call(Train(save_every=1), function, **arguments)
    assert updates_kept(tmp_path / "apart" / launch.FOLDER / job.CHECKPOINTS) >= 2
    arguments["on_progress"] = lambda done, total, last: seen.append((done, total))
    apart = launch.call(Train(save_every=1), function, **arguments)
    assert seen[3][0] > 2, "it goes on, and does not begin anew"
    assert apart["updates"] == here["updates"] and apart["batch"] == here["batch"]
    one, two = (load_file(Path(found["model"]) / "model.safetensors") for found in (here, apart))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"launch": "fdsp"}, "train.launch=fdsp: .*did you mean 'fsdp'"),
        ({"launch": "fsdp", "processes": 2}, "divides a model over GPUs, and there is none here"),
        ({"launch": "ddp"}, "no GPU here to count; say how many processes"),
        ({"launch": "ddp", "machines": "nowhere.txt"}, "train.machines=nowhere.txt: no such file"),
    ],
)
def test_what_does_not_fit_this_machine_is_one_line(how, words):
    with pytest.raises(PSRError, match=words) as caught:
        command.plan(Train(**how), "cpu", bf16=False)
    assert "\n" not in str(caught.value)


def test_a_missing_deepspeed_is_named(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(PSRError, match="pip install deepspeed, or take fsdp"):
        command._check_device("deepspeed", "DEEPSPEED", "cuda")


@pytest.mark.parametrize(
    ("text", "words"),
    [("distributed_type: [", "accelerate does not take it"),
     (f"{LOCAL}distributed_type: FSDP\nfsdb_config: {{}}\n", "unknown keys"),
     (f"{LOCAL}distributed_type: MULTI_GPU\nnum_machines: 2\n", "num_machines is 2; name the")],
)  # fmt: skip
def test_a_configuration_of_the_users_is_checked(text, words, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(PSRError, match=words) as caught:
        command.plan(Train(launch=str(tmp_path / "mine.yaml"), processes=2), "cpu", bf16=False)
    assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_machine_file_starts_a_launcher_on_each_host(tmp_path):
    (tmp_path / "hosts").write_text("# ours\nnode1 slots=8\nnode2 slots=8\n")
    plan = command.plan(Train(launch="ddp", machines=str(tmp_path / "hosts")), "cpu", bf16=True)
    here, there = plan.commands(tmp_path / "job")
    assert plan.processes == 16 and here[0] == sys.executable
    assert there[:4] == ["ssh", "-o", "BatchMode=yes", "node2"] and len(there) == 5
    for rank, line in enumerate((" ".join(here), there[-1])):
        assert f"--num_machines 2 --machine_rank {rank} --main_process_ip node1" in line
    assert "PYTHONPATH=" in there[-1] and worker.CALLER not in there[-1]
    for text, words in (("node1 slots=8\nnode2 slots=4", "slots differ"), ("", "no host in it"),
                        ("node1 slots=8\nnode2: 8", "row 2: 'node2: 8' is no host")):  # fmt: skip
        (tmp_path / "hosts").write_text(text)
        with pytest.raises(PSRError, match=words):
            command.read_machines(str(tmp_path / "hosts"))


def other_host(monkeypatch, tmp_path, script):
    """Have this script be what `ssh` does; its arguments are the host and the line."""
    ssh = tmp_path / "ssh.sh"
    ssh.write_text(f'while [ "$1" = -o ]; do shift 2; done\n{script}\n')
    monkeypatch.setattr(command, "SSH", ("sh", str(ssh)))


def two_hosts(folder, tmp_path):
    """A job that is there, and its plan for two hosts."""
    function, arguments = given("dpo", folder, tmp_path / "out")
    here = tmp_path / "job"
    here.mkdir()
    job.write(here, function.__name__, arguments, 2, 0)
    return command.Plan(Path("none.yaml"), 2, False, ("node1", "node2")), here


def test_what_another_host_lacks_is_one_line_before_anything_starts(folder, tmp_path, monkeypatch):
    plan, here = two_hosts(folder, tmp_path)
    started = []
    monkeypatch.setattr(launch, "_start", lambda *args: started.append(args))
    other_host(monkeypatch, tmp_path, f'sh -c "$(echo "$2" | sed s,{folder},{folder}.gone,)"')
    with pytest.raises(PSRError, match=rf"node2 has no {folder}\.gone; .*\(HF_HOME\)") as caught:
        launch.run(plan, [here])
    assert "\n" not in str(caught.value) and started == []
    other_host(monkeypatch, tmp_path, 'echo "ssh: no route to $1" >&2; exit 255')
    with pytest.raises(PSRError, match=r"node2 cannot be reached \(ssh: no route to node2\); ssh"):
        launch.run(plan, [here])
    other_host(monkeypatch, tmp_path, 'sh -c "$2"')
    command.check_hosts(plan.hosts, [here])
    command.check_hosts(("",), [tmp_path / "no job"])


def test_a_host_that_fails_ends_the_launch_at_once(folder, tmp_path, monkeypatch):
    plan, here = two_hosts(folder, tmp_path)
    monkeypatch.setattr(command, "check_hosts", lambda *_: None)
    monkeypatch.setattr(launch, "LOOK_AGAIN", 0.05)
    waits = [sys.executable, "-c", "import time; time.sleep(600)"]
    fails = ["sh", "-c", "echo 'ssh: connect to host node2: refused' >&2; exit 255"]
    monkeypatch.setattr(command.Plan, "commands", lambda *_: [waits, fails])
    start = time.monotonic()
    words = r"launch on node2 ended with code 255 \(ssh: connect to host node2: refused\); see"
    with pytest.raises(PSRError, match=words):
        launch.run(plan, [here])
    assert time.monotonic() - start < 60


def test_a_process_that_is_done_leaves_no_thread_that_waits_for_messages(tmp_path):
    """A launch ended in `terminate called without an active exception` now and then."""
    sharded.leave()  # nobody there
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    assert sharded.launched()
    sharded.leave()
    assert not torch.distributed.is_initialized()


def test_a_launcher_that_starts_too_few_is_found_out():
    with pytest.raises(PSRError, match="2 processes were asked for and 1 came together"):
        worker.check_size(2, 1)


def test_processes_end_when_nobody_waits_for_them(capsys):
    worker.tell(1, 2, {"loss": 0.5})
    assert capsys.readouterr().out == f'{worker.MARK}[1, 2, {{"loss": 0.5}}]\n'
    busy = "from psr_lib.launch import worker; import sys, time; worker.end_with(int(sys.argv[1]));"
    caller = subprocess.Popen(["sleep", "600"])
    line = [sys.executable, "-c", f"{busy} print(1, flush=True); time.sleep(600)", str(caller.pid)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout.readline() == b"1\n" and orphan.poll() is None
        caller.kill()
        caller.wait()
        assert orphan.wait(30) == 1
    code = f"{busy} time.sleep(2 * worker.LOOK_AGAIN); print(2)"
    there = subprocess.run([sys.executable, "-c", code, "0"], capture_output=True)
    assert there.stdout == b"2\n", "on another host there is nobody to look after"


def test_a_launch_that_fails_is_one_line_with_its_log(tmp_path):
    line = [sys.executable, "-c", "raise RuntimeError('no such node')"]
    plan = SimpleNamespace(commands=lambda *folders: [line], environment={}, hosts=("",))
    with pytest.raises(
        PSRError, match=r"ended with code 1 \(RuntimeError: no such node\); see"
    ) as e:
        launch.run(plan, [tmp_path])
    assert "\n" not in str(e.value) and "RuntimeError" in (tmp_path / launch.LOG).read_text()
    line[2] = "print('Signal 9 (SIGKILL) received'); raise SystemExit(1)"
    with pytest.raises(PSRError, match="was killed, most often for want of memory; lower max_"):
        launch.run(plan, [tmp_path])
    line[2] = "raise RuntimeError('no such node')"
    with pytest.raises(PSRError, match="no such node"):  # and not what an earlier launch said
        launch.run(plan, [tmp_path])
    line[2] = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(PSRError, match="was killed, most often for want of memory; lower max_"):
        launch.run(plan, [tmp_path])
    said = tmp_path / f"{job.ERROR}00001"
    line[2] = f"open({str(said)!r}, 'w').write('no memory; lower it'); raise SystemExit(1)"
    with pytest.raises(PSRError, match=r"^no memory; lower it$"):
        launch.run(plan, [tmp_path])


def test_where_training_runs_makes_no_result_stale():
    here, there = (presets.load("tiny", how) for how in ("", "train.launch=fsdp train.processes=8"))
    assert there.train == Train(launch="fsdp", processes=8) and here.train == Train()
    for stage, n in (("02_init", 1), ("04_step_dpo", 2)):
        one, two = (stages.parameters(p, Key(stage, "psrlm", n), 0) for p in (here, there))
        assert one == two


def test_what_a_killed_training_left_is_named_and_can_be_removed(tmp_path):
    run, key = RunDir("smoke", 0, tmp_path), Key("04_step_dpo", "psrlm", 2)
    mark = run.folder(key).parent / launch.FOLDER / job.CHECKPOINTS / "checkpoint-40" / MARK
    mark.parent.mkdir(parents=True)
    assert leftovers.work_kept(run, key) == ""  # half-written
    mark.write_text("{}")
    words = "a checkpoint at update 40 is kept, the same command goes on there"
    assert leftovers.work_kept(run, key) == words
    assert leftovers.remove(run, key) == [mark] and not mark.exists()


# --- the caller's side --------------------------------------------------------------------------


def stubbed(monkeypatch, script):
    """Launches run this script, with the job's folder as its argument, in the place of training."""
    plan = command.Plan(Path("none.yaml"), 2, False)
    monkeypatch.setattr(command, "plan", lambda *_: plan)
    line = [sys.executable, "-c", script]
    monkeypatch.setattr(command.Plan, "commands", lambda _, folder: [[*line, str(folder)]])


def test_a_call_passes_progress_on_and_leaves_nothing_but_the_result(folder, tmp_path, monkeypatch):
    function, arguments = given("dpo", folder, tmp_path / "out")
    stubbed(monkeypatch, f"""import sys; print('a warning'); print('{worker.MARK}[1, 4, {{}}]')
open(sys.argv[1] + '/{job.RESULT}', 'w').write('{{"updates": 4}}')""")  # fmt: skip
    seen = []
    arguments["on_progress"] = lambda *row: seen.append(row)
    assert launch.call(TWO, function, **arguments) == {"updates": 4}
    assert seen == [(1, 4, {})] and list((tmp_path / "out").iterdir()) == []


def test_a_call_that_failed_keeps_its_checkpoints_for_the_next(folder, tmp_path, monkeypatch):
    function, arguments = given("dpo", folder, tmp_path / "out")
    stubbed(monkeypatch, f"""import os, sys; home = sys.argv[1] + '/{job.CHECKPOINTS}/checkpoint-2'
if os.path.isdir(home): open(sys.argv[1] + '/{job.RESULT}', 'w').write('"went on"')
else: os.makedirs(home); raise SystemExit(1)""")  # fmt: skip
    with pytest.raises(PSRError, match=r"code 1; see .*goes on from the last checkpoint"):
        launch.call(TWO, function, **arguments)
    assert launch.call(TWO, function, **arguments) == "went on"


def test_processes_of_a_killed_call_are_waited_for(folder, tmp_path, monkeypatch):
    function, arguments = given("dpo", folder, tmp_path / "out")
    stubbed(monkeypatch, "")
    monkeypatch.setattr(launch, "PATIENCE", 0.0)
    with (
        launch._held(tmp_path / "out" / launch.FOLDER),
        pytest.raises(PSRError, match="another training is at work here; wait for it"),
    ):
        launch.call(TWO, function, **arguments)
