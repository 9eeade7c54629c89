"""Make .venv with the pinned packages, the CPU build of torch where there is no NVIDIA GPU.

Run by `make setup` with the system's Python, so it uses the standard library alone. It does nothing
where .venv already holds these pins.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "psr-stamp"
PYTHON = VENV / "bin" / "python"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own index of CPU builds
CUDA = ("nvidia-", "cuda-", "triton", "pytorch-triton")
MODERN_PIP = "pip>=25.1"  # earlier ones download every wheel of a dry run


class SetupFailed(RuntimeError):
    """One line that says what to do."""


def main() -> int:
    """Set up, or say in one line why it cannot be done."""
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 (the system's Python may be older)
            found = sys.version.split()[0]
            raise SetupFailed(f"Python {found} is too old; make setup PYTHON3=python3.12")
        with alone():
            set_up()
    except SetupFailed as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def alone() -> Iterator[None]:
    """Wait for another make that sets up: two of them would write into one .venv."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another make setup", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_up() -> None:
    """Create or update .venv unless its stamp is current."""
    stamp = pins_hash()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == stamp and PYTHON.exists():
        return
    print("setup: making .venv (some minutes, about 2 GB)", flush=True)
    if not has_pip():
        make_venv()
    pip("install", "--upgrade", MODERN_PIP)
    print("setup: 1 of 2, PyTorch", flush=True)
    install_torch()
    print("setup: 2 of 2, the other packages", flush=True)
    pip("install", "--editable", f"{ROOT}[dev]")
    refuse_cuda(installed())
    STAMP.write_text(stamp, encoding="utf-8")
    print("setup: .venv is ready", flush=True)


def pins_hash() -> str:
    """Hash of what decides the environment: the pins, this file, the interpreter, a GPU or none."""
    files = (ROOT / "pyproject.toml", Path(__file__))
    parts = [file.read_bytes() for file in files]
    return hashlib.sha256(
        b"".join([*parts, sys.version.encode(), str(cpu_only()).encode()])
    ).hexdigest()


def make_venv() -> None:
    """A virtual environment with pip; what a kill left of one is completed, or made anew."""
    try:
        with suppress(subprocess.CalledProcessError):  # half a pip stands in the way
            venv.create(VENV, with_pip=True)
        if not has_pip():
            venv.create(VENV, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError):
        shutil.rmtree(VENV, ignore_errors=True)
        message = "cannot make .venv; install this Python's venv package (apt: python3-venv)"
        raise SetupFailed(message) from None


def has_pip() -> bool:
    """Whether .venv is there and its pip works, which it lacks where its making was cut short."""
    command = [str(PYTHON), "-m", "pip", "--version"]
    return PYTHON.exists() and subprocess.run(command, capture_output=True).returncode == 0


def cpu_only() -> bool:
    """Whether this is Linux without an NVIDIA driver; elsewhere torch's usual build is right."""
    driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()
    return sys.platform == "linux" and not driver


def install_torch() -> None:
    """Install torch first: from the usual place, or its CPU build where that would bring CUDA."""
    pin = torch_pin()
    if cpu_only() and cuda_in(planned(pin)):
        print("setup: no NVIDIA GPU here, taking the CPU build of torch", flush=True)
        install_cpu_build(pin)
        refuse_cuda(planned(pin))
    pip("install", pin)


def install_cpu_build(pin: str) -> None:
    """Install torch alone from PyTorch's index of CPU builds; what it needs follows from pip's."""
    try:
        pip("install", "--no-deps", "--index-url", CPU_INDEX, pin)
    except SetupFailed:
        message = f"{CPU_INDEX} gave no {pin}, and the usual build would pull gigabytes of CUDA"
        raise SetupFailed(f"{message}; check that index, then make setup again") from None


def torch_pin() -> str:
    """torch's requirement as pyproject.toml states it."""
    import tomllib  # new in Python 3.11, which is checked first

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(line for line in project["dependencies"] if line.startswith("torch=="))


def planned(*requirements: str) -> list[str]:
    """Names of the packages that an installation would bring; nothing is installed."""
    report = pip("install", "--dry-run", "--report", "-", *requirements)
    return [item["metadata"]["name"] for item in json.loads(report)["install"]]


def installed() -> list[str]:
    """Names of the packages in .venv."""
    folders = [str(path) for path in VENV.glob("lib/python*/site-packages")]
    return [found.metadata["Name"] for found in distributions(path=folders)]


def cuda_in(names: list[str]) -> list[str]:
    """Those of the packages that belong to CUDA."""
    return [name for name in names if name.lower().startswith(CUDA)]


def refuse_cuda(names: list[str]) -> None:
    """Raise SetupFailed if CUDA's packages came (or would come) to a machine without a GPU."""
    found = cuda_in(names)
    if cpu_only() and found:
        message = "these CUDA packages are useless without a GPU and were refused"
        raise SetupFailed(f"{message}: {', '.join(found[:3])} ...; is {CPU_INDEX} reachable?")


def pip(*arguments: str) -> str:
    """pip's output; raises SetupFailed with its last error line."""
    command = [str(PYTHON), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else done.stderr.strip().split("\n")[-1]
        raise SetupFailed(f"pip {arguments[0]} failed: {reason}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
