"""A strict front for Papermill: unknown or wrong-typed parameters stop before anything is written.

Papermill alone injects a misspelt parameter and goes on. Here the notebook's own `parameters` cell
is the contract, and a failing cell ends in one line that names it.
"""

import ast
import io
import json
import logging
import os
import sys
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psr_lib import manifest, progress
from psr_lib.environ import variables
from psr_lib.presets import suggest
from psr_lib.records import PSRError, fits, write_json, write_text, writing

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list}
RUNNING = progress.RUNNING
INLINE = "module://matplotlib_inline.backend_inline"
PROGRESS_OFF = {"TQDM_DISABLE": "1"}  # bars of other libraries flood a log; psr_lib.progress stays


class NotebookFailed(RuntimeError):
    """A cell failed; the message is one line that names the executed notebook."""


@dataclass(frozen=True)
class Parameter:
    """A line of the `parameters` cell."""

    name: str
    type: str
    default: str
    help: str


def parameters(notebook: Path) -> dict[str, Parameter]:
    """The notebook's parameters as its `parameters` cell declares them; raises PSRError if none.

    Read from the syntax tree: Papermill's own inspection loses a line whose comment holds a `=`.
    """
    source = manifest.parameters_source(notebook)
    if not source:
        raise PSRError(f"{manifest.shown(notebook)}: no cell tagged 'parameters'; add one")
    lines = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in lines if t.type == tokenize.COMMENT}
    found = (_parameter(node, comments) for node in ast.parse(source).body)
    return {parameter.name: parameter for parameter in found if parameter}


def _parameter(node: ast.stmt, comments: Mapping[int, str]) -> Parameter | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        name, kind, value = node.target.id, ast.unparse(node.annotation), node.value
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name, value = node.targets[0].id, node.value
        kind = type(ast.literal_eval(value)).__name__
    else:
        return None
    if kind not in TYPES:
        raise PSRError(f"parameter {name}: type {kind} is not one of {', '.join(TYPES)}")
    return Parameter(name, kind, ast.unparse(value), comments.get(node.end_lineno or 0, ""))


def check(notebook: Path, values: Mapping[str, Any]) -> None:
    """Raise PSRError unless every value has a parameter of that name and type."""
    known = parameters(notebook)
    for name, value in values.items():
        if name not in known:
            raise PSRError(f"{notebook.name}: unknown parameter {name!r}; {suggest(name, known)}")
        kind = known[name].type
        if not fits(value, TYPES[kind] if kind != "list" else list[Any]):
            raise PSRError(f"{notebook.name}: {name} should be {kind}, found {value!r}")


def help_text(notebook: Path) -> str:
    """The notebook's parameters with types, defaults and comments, one a line."""
    rows = [(f"{p.name}: {p.type} = {p.default}", p.help) for p in parameters(notebook).values()]
    width = max(len(left) for left, _ in rows)
    return "\n".join([notebook.name, *(f"  {left:<{width}}  {right}" for left, right in rows)])


def execute(notebook: Path, output: Path, values: Mapping[str, Any]) -> None:
    """Run a notebook with these parameters on this interpreter's kernel and keep it as `output`.

    Its progress lines go to the terminal. It is written beside `output` and moved there when the
    run has ended, so a notebook that stands there is whole, or failed. Raises PSRError before the
    run (parameters), and NotebookFailed with one line after it (a failing cell, a dead kernel).
    """
    import papermill  # takes a second, and only a run needs it
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    check(notebook, values)
    logging.getLogger("papermill").setLevel(logging.ERROR)  # the check above is the stricter one
    try:
        with writing(output), kernel_environment(notebook):
            output.parent.mkdir(parents=True, exist_ok=True)
            papermill.execute_notebook(
                str(notebook),
                str(part_of(output)),
                parameters=dict(values),
                kernel_name="python3",
                cwd=str(notebook.parent),
                progress_bar=False,
                stdout_file=ProgressLines(),
                skip_cells_with_tag=manifest.PLAY,  # nobody is there to play
                extra_arguments=["--log-level=50"],  # the kernel's own warnings help nobody
                **_kernels(),
            )
    except PapermillExecutionError as error:
        keep(output)
        last = str(error.evalue).strip().split("\n")[-1]
        where = f"executed notebook: {manifest.shown(output)}"
        raise NotebookFailed(f"{notebook.name}: {error.ename}: {last} ({where})") from None
    except BaseException as error:  # Ctrl-C and a signal too
        _mark_cut_short(part_of(output))
        if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):
            raise
        message = "its kernel died, most often for want of memory; see SET= for smaller batches"
        raise NotebookFailed(f"{notebook.name}: {message}") from None
    keep(output)


def _kernels() -> dict[str, Any]:
    from psr_lib import warm_kernels

    return (
        {"kernel_manager_class": warm_kernels.WarmKernelManager} if warm_kernels.possible() else {}
    )


@contextmanager
def kernel_environment(notebook: Path) -> Iterator[None]:
    """What the kernel inherits: this repository's library, calm threads, the runner's mark."""
    paths = [str(manifest.root()), os.environ.get("PYTHONPATH", "")]
    wanted = {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "JUPYTER_PREFER_ENV_PATH": "1",  # python3 is this interpreter, not a kernel of the user's
        # Spinning threads starve each other as soon as a second process wants the cores, and
        # sleeping ones are woken for every operation: a short spin, then sleep.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "30000"),
        "MPLBACKEND": os.environ.get(
            "MPLBACKEND", INLINE
        ),  # a kernel's own, here before the import
        RUNNING: notebook.stem,
        **PROGRESS_OFF,
    }
    with variables(wanted):
        yield


class ProgressLines:
    """A stream that passes on the progress lines of a notebook and leaves the rest in it."""

    def __init__(self) -> None:
        self.rest = ""

    def write(self, text: str) -> None:
        """Print the whole lines that are progress."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.startswith(progress.MARK):
                print(line, flush=True)

    def flush(self) -> None:
        """Show what was printed."""
        sys.stdout.flush()


def part_of(output: Path) -> Path:
    """Where a notebook is written while it runs."""
    return output.with_name(f"{output.stem}.part.ipynb")


def cut_short(output: Path) -> bool:
    """Whether the last run of this notebook ended before its last cell was recorded."""
    return part_of(output).is_file() and not _whole(part_of(output))


def settle(output: Path) -> None:
    """Keep the notebook of a runner that was killed after its last cell."""
    if not cut_short(output):
        keep(output)


def keep(output: Path) -> None:
    """Move the notebook that has run to its place, if it is not there already.

    Where Papermill recorded this machine's paths only file names stay, and of each cell's progress
    lines the last one: the rest was for the terminal.
    """
    part = part_of(output)
    if not part.is_file():
        return
    import nbformat  # a second, which a make with nothing to do need not wait

    try:
        notebook = nbformat.read(part, as_version=4)
    except ValueError:  # cut off by a full disk
        return
    recorded = notebook.metadata.get("papermill", {})
    recorded["input_path"] = Path(recorded.get("input_path") or "").name
    recorded["output_path"] = output.name
    recorded.pop("environment_variables", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _without_progress(cell.outputs)
    write_text(output, nbformat.writes(notebook) + "\n")
    part.unlink()


def _whole(part: Path) -> bool:
    """Whether every cell was run and recorded, as Papermill and `_mark_cut_short` note it."""
    try:
        notebook = json.loads(part.read_text(encoding="utf-8"))
        noted = [node["metadata"]["papermill"] for node in (notebook, *notebook["cells"])]
    except (ValueError, KeyError, TypeError):
        return False
    cells = [one["status"] for one in noted[1:]]
    return not noted[0].get("exception") and set(cells) == {"completed"}


def _mark_cut_short(part: Path) -> None:
    """Papermill calls every cell complete, whatever ended the run."""
    with suppress(OSError, ValueError, KeyError):
        notebook = json.loads(part.read_text(encoding="utf-8"))
        notebook["metadata"]["papermill"]["exception"] = True
        write_json(part, notebook)


def _without_progress(outputs: list[Any]) -> list[Any]:
    """A cell's outputs without progress lines that a later one replaces."""
    kept: list[Any] = []
    for output in reversed(outputs):
        if output.output_type == "stream":
            lines = output.text.split("\n")
            seen = any(o.output_type == "stream" and progress.MARK in o.text for o in kept)
            output.text = "\n".join(_last_progress(lines, seen))
            if not output.text.strip():
                continue
        kept.append(output)
    return kept[::-1]


def _last_progress(lines: list[str], seen: bool) -> list[str]:
    """The lines, and of those that are progress the last one, unless a later one was `seen`."""
    places = [i for i, line in enumerate(lines) if line.startswith(progress.MARK)]
    drop = set(places if seen else places[:-1])
    return [line for i, line in enumerate(lines) if i not in drop]
