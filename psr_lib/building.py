"""What a notebook that is run by hand needs first, built by the runner in a process of its own."""

import os
import subprocess
import sys

from psr_lib import manifest
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir


def build(run: RunDir, key: Key, method: str, overrides: str) -> None:
    """Build what the stage needs in a process of its own: a kernel cannot run papermill inside."""
    command = [sys.executable, "-m", "psr_lib.runs", "build", "--stage", key.stage]
    command += ["--preset", run.preset, "--method", method, "--n", str(key.n)]
    command += ["--seed", str(run.seed), "--runs-dir", str(run.root), "--set", overrides]
    paths = [str(manifest.root()), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    line = ""
    with subprocess.Popen(
        command, env=environment, encoding="utf-8", errors="replace", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            print(line, end="", flush=True)
    if process.returncode:
        raise PSRError(f"what {key} needs could not be built: {line.strip()}")
