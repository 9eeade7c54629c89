"""Kernels that have the large libraries loaded already when they start.

To import torch, transformers and TRL takes a kernel several seconds, and a run of the small
laboratory has fourteen notebooks, of half a minute each. Here one process imports the libraries
once (multiprocessing's fork server) and every kernel is a fork of it. None of psr_lib is loaded
before the fork, so a notebook always runs the code that lies in the repository when it starts.

Only on Linux (elsewhere the system's libraries do not allow forks) and only without accelerators
(their drivers do not survive one, and a run that needs them does not feel the seconds).
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LIBRARIES = (
    "pandas",
    "matplotlib.pyplot",
    "transformers.models.llama.modeling_llama",  # and with it what all of its models share
    "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer",
    "ipykernel.ipkernel",  # last: what is imported after it believes to be in a notebook
)
ACCELERATORS = ("nvidiactl", "kfd", "dxg", "accel", "davinci_manager")  # in /dev
LAUNCHER = "ipykernel_launcher"
SWITCH = "PSR_WARM_KERNELS"  # 0: every kernel is a process of its own from the start


def possible(devices: Path = Path("/dev")) -> bool:
    """Whether kernels can be forks of a process that has imported the libraries."""
    wanted = os.environ.get(SWITCH, "1") != "0"
    return (
        wanted and sys.platform == "linux" and not any((devices / d).exists() for d in ACCELERATORS)
    )


class WarmKernelManager(AsyncKernelManager):
    """A kernel manager whose kernels are forks of the process with the libraries."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.provisioner = WarmProvisioner(kernel_spec=self.kernel_spec, parent=self)


class WarmProvisioner(LocalProvisioner):
    """Starts a kernel as a fork; all else is as for any local kernel."""

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> KernelConnectionInfo:
        """Fork a kernel that does what the command would; returns how to connect to it."""
        if LAUNCHER not in cmd:
            return await super().launch_kernel(cmd, **settings)
        self.cwd = settings.get("cwd") or os.getcwd()
        arguments = cmd[cmd.index(LAUNCHER) :]
        handle = Handle(fork_kernel(arguments, settings.get("env") or os.environ, str(self.cwd)))
        self.process = cast(Any, handle)
        self.pid = self.pgid = handle.pid
        return self.connection_info


class Handle:
    """A process of multiprocessing with the names that subprocess.Popen has for its methods."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self.process = process
        self.pid = process.pid
        self.terminate, self.kill = process.terminate, process.kill

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.exitcode

    def wait(self) -> int | None:
        """Wait for its end and return its exit code."""
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self.pid and self.poll() is None:
            os.kill(self.pid, number)


def fork_kernel(
    arguments: Sequence[str], environment: Mapping[str, str], folder: str
) -> BaseProcess:
    """A new process that is the kernel of these arguments, in this environment and folder.

    The first one waits until the libraries are loaded. It ends with this process at the latest.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    given = (list(arguments), dict(environment), folder)
    process = context.Process(target=serve, args=given, daemon=True)
    process.start()
    return process


def serve(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Be the kernel, in a process group of its own, until it is shut down or the runner is gone."""
    multiprocessing.current_process().daemon = False  # a notebook may start processes
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, paths), *(path for path in sys.path if path not in ["", *paths])]
    sys.argv = arguments
    threading.Thread(target=_end_with_runner, daemon=True).start()

    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


def _end_with_runner() -> None:
    runner = multiprocessing.parent_process()
    assert runner is not None
    runner.join()
    os.killpg(0, signal.SIGKILL)
