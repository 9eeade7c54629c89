"""Bring stages up to date: skip what is current, run the rest in order and say why."""

import time
from collections.abc import Sequence
from typing import Any

from psr_lib import cards, integrity, leftovers, manifest, notebook_runner, requirements, stages
from psr_lib.locks import locked
from psr_lib.methods import DATA
from psr_lib.notebook_runner import NotebookFailed
from psr_lib.records import PSRError
from psr_lib.request import Request
from psr_lib.run_dirs import Key
from psr_lib.stages import stage_state


def build(request: Request, targets: Sequence[Key], extra: dict[str, Any] | None = None) -> int:
    """Run the targets and what they need, in order, skipping what is current; how many ran."""
    due = stages.in_order(targets)
    for key in due:  # every notebook is checked before the first one runs
        notebook_runner.check(stages.notebook_of(key), {**request.values(key), **(extra or {})})
    with locked(request.run, f"{request.preset.name} {targets[-1]}"):
        leftovers.sweep(request.run)
        ran = sum(
            _step(request, due[place:], key in targets, extra or {})
            for place, key in enumerate(due)
        )
        cards.refresh(request.run, request.method, request.preset.rounds)
    if not ran:
        print("nothing to do: everything is up to date")
    return ran


def _step(request: Request, due: Sequence[Key], target: bool, extra: dict[str, Any]) -> bool:
    """Bring the next stage up to date; whether it had to run.

    Before it runs it is seen whether this machine has what it and those after it need.
    """
    key = due[0]
    state = stage_state(request.run, key, request.preset)
    if state.word == "damaged" and not request.force:
        way_out = integrity.remedy(request.run, key)
        more = "" if "FORCE=1" in way_out else ", or with FORCE=1"
        raise PSRError(f"{key}: {state.reason}; {way_out}{more}")
    forced = request.force and target
    if state.word == "current" and not forced:
        notebook_runner.settle(request.run.notebook(key))
        print(f"{key}: up to date", flush=True)
        return False
    requirements.check(request.preset, request.run, due)
    if forced and key == Key(DATA):
        stages.make_anew(request.run)
    reason = state.reason or "forced"
    print(f"{key}: running ({reason})", flush=True)
    started = time.monotonic()
    _execute(request, key, extra)
    print(f"{key}: done in {time.monotonic() - started:.0f} s", flush=True)
    return True


def _execute(request: Request, key: Key, extra: dict[str, Any]) -> None:
    notebook, output = stages.notebook_of(key), request.run.notebook(key)
    notebook_runner.execute(notebook, output, {**request.values(key), **extra})
    if not (request.run.folder(key) / manifest.NAME).is_file():
        raise NotebookFailed(f"{notebook.name}: ended without stage.finish(), so it made nothing")
