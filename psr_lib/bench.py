"""`make bench`: how near the search comes to its engine's speed, and how far it leaves the literal
loop behind. A table on the screen, and all numbers as JSON.

    python -m psr_lib.bench --model runs/tiny/seed0/psrlm/M1/model
    python -m psr_lib.bench --only rates,calls --problems 40 --repeats 3

Start-up of engines and workers, and one search before the first timing, are left out of every time.
A part whose model, package or engine is missing says so in one line.
"""

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from psr_lib import architectures, manifest, presets, prompts, rate_table
from psr_lib import bench_rates as rates
from psr_lib.engines.base import close
from psr_lib.records import IFTExample, PSRError, Question, read_json, read_jsonl, write_json

Part = Callable[[argparse.Namespace], list[dict[str, Any]]]

# SmolLM2 is slow on a laptop: a pass over 48 problems then takes about a minute with vLLM.
SHORT = "search.max_iterations=2 search.max_step_tokens=48 judge.max_tokens=48"
LIVE = 4  # memory is measured with so many times fewer searches open at once than problems


def questions_of(args: argparse.Namespace, count: int) -> list[Question]:
    """The first questions of the run that made the model (or of `--questions`)."""
    files = [Path(args.questions)] if args.questions else _run_files(Path(args.model))
    found = [row for path in files for row in read_jsonl(path, Question)][:count]
    if len(found) < count:
        raise PSRError(f"bench: {len(found)} questions, {count} wanted; give --problems or more")
    return found


def _run_files(model: Path) -> list[Path]:
    files = sorted((model.resolve().parents[2] / "data").glob("questions_*.jsonl"))
    if not files:
        raise PSRError(f"bench: no data/questions_*.jsonl in the run of {model}; give --questions")
    return files


def tiny(args: argparse.Namespace, **engine: Any) -> rates.Subject:
    """The tiny preset, nothing lowered, on its trained M1."""
    preset = presets.load("tiny")
    if not Path(args.model).is_dir():
        raise PSRError(f"bench: no model in {args.model}; make iteration N=1, or give --model")
    questions = questions_of(args, args.problems)
    return rates.Subject(preset, rates.opened(preset, args.model, **engine), questions)


def smol(args: argparse.Namespace, kind: str) -> rates.Subject:
    """SmolLM2 with the paper's prompts, w and T; few problems and short steps, as it is slow."""
    if not args.smol:
        raise Skipped("no --smol FOLDER")
    if not (Path(args.smol) / "config.json").is_file():
        raise Skipped(f"{args.smol}: no model there")
    changes = ["prompts=paper", "search.temperature=0.5", "search.top_p=0.95"]
    preset = presets.load("tiny", changes + args.smol_set.split())
    engine = rates.opened(preset, args.smol, kind=kind, dtype=args.smol_dtype)
    return rates.Subject(preset, engine, questions_of(args, args.smol_problems))


class Skipped(Exception):
    """A part that this machine cannot run; the text says why."""


def need(*modules: str) -> None:
    """Raise Skipped unless these can be imported."""
    for name in modules:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            raise Skipped(f"{name} is not installed")
        if importlib.util.find_spec(name) is None:
            raise Skipped(f"there is no {name}")


def rate_of(
    name: str, subject: rates.Subject, repeats: int, folder: str, dtype: str = ""
) -> list[dict[str, Any]]:
    """One row: search rate over raw rate, and what the table of rates says of its subject."""
    dtype = dtype or subject.preset.engine.dtype or subject.preset.model.dtype
    recorder = rates.Recorder(subject.engine)
    measured = rates.token_rates(subject, recorder, repeats)
    measured |= rates.read_rate(subject.engine, recorder.asked, repeats)
    row = {"engine": name, **_subject(name, folder, dtype), **measured}
    close(subject.engine)
    return [row]


def _subject(name: str, folder: str, dtype: str) -> dict[str, Any]:
    model, _, kind = name.partition("/")
    parameters = architectures.of(folder).parameters
    return {"model": model, "kind": kind, "parameters": parameters, "dtype": dtype}


def part_rates(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Generated tokens a second: raw engine on the prompts of a search, and the search."""
    args = _with(args, args.rate_problems)
    return rate_of("tiny/hf", tiny(args), args.repeats, args.model)


def part_smol(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The same for SmolLM2-135M on transformers."""
    name, subject = "SmolLM2-135M/hf", smol(args, "hf")
    return rate_of(name, subject, args.smol_repeats, args.smol, args.smol_dtype)


def part_vllm(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The same for SmolLM2-135M on vLLM."""
    need("vllm", "psr_lib.engines.vllm")
    name, subject = "SmolLM2-135M/vllm", smol(args, "vllm")
    return rate_of(name, subject, args.smol_repeats, args.smol, args.smol_dtype)


def part_train(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens a second of SFT with the preset tiny, on the IFT of the model's own run."""
    preset, model = presets.load("tiny"), Path(args.model)
    rows = read_jsonl(_run_files(model)[0].with_name("ift.jsonl"), IFTExample)
    family, kind = prompts.load(preset.prompts), rate_table.TRAINER[preset.sft.lora_r > 0]
    found = rates.train_rate(model, rows, preset.sft, family, args.updates, args.repeats)
    dtype = "bfloat16" if preset.sft.bf16 else "float32"
    return [{"engine": f"tiny/{kind}", **_subject(f"tiny/{kind}", args.model, dtype), **found}]


def part_literal(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Wall time of the literal loop over ours; its PPD must be the same."""
    args = _with(args, args.literal_problems)
    row = rates.against_literal(tiny(args), args.repeats, False, args.literal_slices)
    return [{"literal loop": "one call a judgement", **row}]


def part_batched(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The second comparator: per problem, its candidates and its judgements in one call each."""
    args = _with(args, args.literal_problems)
    row = rates.against_literal(tiny(args), args.repeats, True, False)
    return [{"literal loop": "one call a step's judgements", **row}]


def _with(args: argparse.Namespace, problems: int) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), "problems": problems})


def part_calls(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Judge calls of the literal loop and ours, with the distinct candidates of a step."""
    subject = tiny(_with(args, args.rate_problems))
    return [{"temperature": subject.preset.search.temperature,
             **rates.judge_calls(subject.search())}]  # fmt: skip


def part_lossy(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Lossy judging against the full procedure on the same candidates."""
    return rates.lossy_table(tiny(args))


def part_equal(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows that are equal in bf16, and on vLLM, given the same recorded candidates."""
    subject, found = tiny(args), []
    kinds = [("hf bfloat16", {"dtype": "bfloat16"})]
    if all(importlib.util.find_spec(name) for name in ("vllm", "psr_lib.engines.vllm")):
        kinds += [("vllm float32", {"kind": "vllm"})]
    for name, changes in kinds:
        other = rates.opened(subject.preset, args.model, **changes)
        found.append({"judged by": name, **rates.equal_rows(subject, other)})
        close(other)
    return found


def part_memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory and CPU time over problem counts: a scripted engine, then tiny/hf."""
    rows = _children("scripted", args.memory)
    model = [args.model, *map(str, [args.questions or _run_files(Path(args.model))[0]])]
    rows += _children("tiny/hf", args.memory_hf, *model)
    first: dict[str, dict] = {}
    for row in rows:
        base = first.setdefault(row["engine"], row)
        each = row["cpu_seconds"] / row["problems"]
        row["memory_ratio"] = row["peak_mib"] / base["peak_mib"]
        row["cpu_ratio"] = each / (base["cpu_seconds"] / base["problems"])
    return rows


def _children(engine: str, counts: list[int], *model: str) -> list[dict[str, Any]]:
    live = max(1, min(counts, default=0) // LIVE)
    return [{"engine": engine, "live": live, **_child(n, live, *model)} for n in counts]


def _child(problems: int, live: int, model: str = "", questions: str = "") -> dict[str, Any]:
    command = [sys.executable, "-m", "psr_lib.bench_memory", str(problems)]
    command += ["--model", model, "--questions", questions, "--set", f"search.live={live}"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise PSRError(f"bench: {problems} problems: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def part_ray(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One Ray worker against two, each pinned to one core; start-up left out of the times."""
    need("ray", "psr_lib.engines.ray")
    args = _with(args, args.rate_problems)  # a share of few problems leaves a worker small batches
    seconds: dict[int, list[float]] = {1: [], 2: []}
    pairs = {}
    for k in range(args.repeats):
        for workers in (1, 2) if k % 2 else (2, 1):
            subject = tiny(args, kind="ray", workers=workers, cores=1)
            small = replace(subject, questions=subject.questions[:2])
            small.search()  # the workers' first call is part of their start
            started = time.perf_counter()
            pairs[workers] = [pair for trace in subject.search() for pair in trace.pairs]
            seconds[workers].append(time.perf_counter() - started)
            close(subject.engine)
    return [{"problems": args.problems, "identical": pairs[1] == pairs[2],
             "ratio": rates.ratio(seconds[1], seconds[2]), "seconds": seconds}]  # fmt: skip


PARTS: dict[str, Part] = {
    "rates": part_rates, "train": part_train, "smol": part_smol, "vllm": part_vllm,
    "literal": part_literal,
    "batched": part_batched, "calls": part_calls, "lossy": part_lossy, "equal": part_equal,
    "memory": part_memory, "ray": part_ray,
}  # fmt: skip


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as aligned text; a ratio as its median with its range."""
    cells = [{k: _cell(v) for k, v in row.items() if k != "seconds" or not isinstance(v, dict)}
             for row in rows]  # fmt: skip
    return "\n".join(
        "  " + "  ".join(f"{name} {value}" for name, value in row.items()) for row in cells
    )


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "{median:.2f} [{low:.2f}, {high:.2f}] of {runs}".format_map(value)
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"
    return str(value)


def main(argv: list[str] | None = None) -> int:
    """Run the parts in turn; the JSON is written after each, so an end in between loses little.

    Parts that the file has and that are not run now stay in it.
    """
    args = make_parser().parse_args(argv)
    made, code = _made(args), 0
    result: dict[str, Any] = {"parts": _measured(Path(args.out))}
    for name in args.only.split(",") if args.only else PARTS:
        try:
            if name not in PARTS:
                raise PSRError(f"bench: no part {name!r}; {presets.suggest(name, PARTS)}")
            print(f"{name}: {(PARTS[name].__doc__ or '').splitlines()[0]}", flush=True)
            rows = PARTS[name](args)
            result["parts"][name] = {"made": made, "rows": rows}
            print(table(rows), flush=True)
            _keep_rates(made, rows, args.rates)
        except Skipped as reason:
            print(f"  skipped: {reason}", flush=True)
        except PSRError as error:
            print(f"  failed: {error}", file=sys.stderr, flush=True)
            code = 2
        write_json(args.out, result)
    return code


def _measured(file: Path) -> dict[str, Any]:
    return read_json(file)["parts"] if file.is_file() else {}


def _keep_rates(made: dict[str, Any], rows: list[dict[str, Any]], file: str) -> None:
    """Put what a part measured into the table of rates, which plans read."""
    found = rate_table.of_bench(rows, made["device"], made["git"]["commit"] or "")
    rate_table.add(found, Path(file) if file else None)


def _made(args: argparse.Namespace) -> dict[str, Any]:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    machine = {"device": manifest.device(), "python": platform.python_version()}
    places = ("model", "smol", "questions", "out", "rates")
    options = {k: v for k, v in vars(args).items() if k not in places}
    return {"started": started, **machine, "git": manifest.git_state(), "options": options}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m psr_lib.bench", description=__doc__)
    add = parser.add_argument
    add("--model", default="runs/tiny/seed0/psrlm/M1/model", help="folder of a trained tiny M1")
    add("--questions", default="", help="JSONL of questions; else those of the model's run")
    add("--smol", default="", help="folder of SmolLM2-135M; without it its parts are skipped")
    add("--smol-dtype", default="bfloat16")
    add("--smol-problems", type=int, default=96)
    add("--smol-repeats", type=int, default=5)
    add("--smol-set", default=SHORT, help="settings of its search, beside the paper's w and T")
    add("--problems", type=int, default=100)
    add("--rate-problems", type=int, default=450, help="as many as the preset's last round has")
    add("--literal-problems", type=int, default=100)
    add("--literal-slices", action="store_true", help="one literal pass in all, cut into turns")
    add("--repeats", type=int, default=5)
    add("--memory", type=int, nargs="*", default=[1000, 10000], help="scripted problem counts")
    add("--memory-hf", type=int, nargs="*", default=[100, 1000], help="tiny/hf problem counts")
    add("--only", default="", help=f"parts, with commas: {','.join(PARTS)}")
    add("--updates", type=int, default=40, help="training: updates of each repeat")
    add("--out", default="data/results/bench.json")
    add("--rates", default="", help=f"the table of rates; else {rate_table.FILE}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
