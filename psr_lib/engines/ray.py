"""Several engines as Ray actors, each over its share of a call's prompts.

On one machine Ray is started here; with RAY_ADDRESS set, the same code works on that cluster. A
row's result does not depend on its worker, because noise belongs to the row's seed.
"""

import os
from collections.abc import Callable
from typing import Any

from psr_lib.engines.base import Completion, EngineError, Told, Usage
from psr_lib.engines.calls import checked_seeds, one_line, option_lists
from psr_lib.records import PSRError

MISSING = "engine ray: ray is not installed; pip install -e '.[ray]', or take engine.kind=hf"
ALIKE = 0.5  # share of a prompt that a neighbour must begin with to stay beside it


class Worker:
    """What runs in an actor's process: one engine."""

    def __init__(self, make: Callable[[], Any], threads: int):
        """`make` opens the engine; `threads` for torch where it counts them."""
        if threads:
            import torch

            torch.set_num_threads(threads)
        affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
        self.free = sorted(affinity(0)) if affinity else []
        self.engine = make()

    def about(self) -> dict[str, Any]:
        """What the driver has to know of the engine, and where it runs."""
        import ray

        known = {"honours_seeds": self.engine.honours_seeds, "context": self.engine.context}
        return {**known, "node": ray.get_runtime_context().get_node_id()}

    def pin(self, place: int, cores: int) -> list[int]:
        """Keep this process to `cores` cores of its machine, the `place`-th set of them."""
        mine = self.free[place * cores : (place + 1) * cores]
        if not self.free:
            raise PSRError("engine.cores: this system cannot pin a process; set engine.cores=0")
        if len(mine) < cores:
            raise PSRError(
                f"engine.cores: this machine has {len(self.free)} cores, too few for {place + 1} "
                f"workers with {cores} each; lower engine.cores or engine.workers"
            )
        for thread in os.listdir("/proc/self/task"):  # those that are there already, too
            os.sched_setaffinity(int(thread), mine)
        return mine

    def call(self, name: str, arguments: dict[str, Any]) -> tuple[list, Usage]:
        """The result of the engine's method, and what it cost."""
        before = self.engine.usage.copy()
        found = getattr(self.engine, name)(**arguments)
        return found, self.engine.usage.since(before)


class RayEngine:
    """`workers` engines behind the interface of one; results in the order of the prompts."""

    progress: Told | None = None

    def __init__(
        self,
        make: Callable[[], Any],
        tokenizer: Any,
        *,
        workers: int,
        cores: int = 0,
        gpus: int = 0,
    ):
        """`make` opens an engine in a worker's process and must be picklable.

        `cores`: each worker is pinned to that many cores of its machine (0: not pinned);
        `gpus`: GPUs for each. Raises PSRError where ray is missing or a worker cannot start.
        """
        self.ray, self.make, self.tokenizer = started_ray(), make, tokenizer
        self.cores, self.gpus, self.usage = cores, gpus, Usage()
        self.actors: list[Any] = [None] * workers
        about = self._revive()
        self.honours_seeds = all(one["honours_seeds"] for one in about)
        self.context = min(one["context"] for one in about)

    def sample(
        self,
        prompts: list[str],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 128,
        stop: list[str] | None = None,
        seeds: list[int] | None = None,
    ) -> list[list[Completion]]:
        """`n` completions of each prompt, in order; see `engines.base.Engine.sample`.

        Raises EngineError where a worker dies; it holds what the others finished.
        """
        settings = {"n": n, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens,
                    "stop": stop or []}  # fmt: skip
        return self._share("sample", prompts, {"seeds": checked_seeds(prompts, seeds)}, settings)

    def choose(self, prompts: list[str], options: list) -> list[list[float]]:
        """Summed log-probability of each option after each prompt, as `Engine.choose`."""
        return self._share("choose", prompts, {"options": option_lists(prompts, options)}, {})

    def _share(self, name: str, prompts: list[str], rows: dict[str, list], settings: dict) -> list:
        """Call the workers on their shares and put the results back into the prompts' order."""
        self._revive()
        shares = [share for share in shared(prompts, len(self.actors)) if share]
        calls = {}
        for k, share in enumerate(shares):
            own = {key: [values[i] for i in share] for key, values in rows.items()}
            arguments = {"prompts": [prompts[i] for i in share], **own, **settings}
            calls[self.actors[k].call.remote(name, arguments)] = k
        done: dict[int, list] = {}
        failure = None
        waiting = list(calls)
        while waiting:  # every worker may finish its share, whatever happens to another
            (ready,), waiting = self.ray.wait(waiting, num_returns=1)
            k = calls[ready]
            try:
                found, usage = self.ray.get(ready)
                done |= dict(zip(shares[k], found, strict=True))
                if self.progress:  # a worker tells when it has done its whole share
                    self.progress(len(done), len(prompts), _texts(done, shares[k]))
                self.usage.add(usage)
            except Exception as error:  # the actor died, or its engine raised
                cause = getattr(error, "cause", error)
                if isinstance(cause, EngineError):
                    done |= {shares[k][i]: found for i, found in cause.finished.items()}
                failure = failure or self._failed(k, error)
        if failure:
            raise EngineError(str(failure), done)
        return [done[i] for i in range(len(prompts))]

    def _failed(self, k: int, error: Exception) -> EngineError:
        """Say what happened to worker k; one that is dead is left for `_revive`."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, PSRError):  # the engine's own words; its process lives on
            return EngineError(f"engine ray: worker {k}: {cause}")
        if isinstance(error, self.ray.exceptions.RayActorError):
            self.actors[k] = None
            return EngineError(
                f"engine ray: worker {k} died in the middle of a call; run again, which starts it "
                "again, with fewer engine.workers or engine.batch_tokens if memory ran out"
            )
        return EngineError(f"engine ray: worker {k} failed ({one_line(cause or error)})")

    def _revive(self) -> list[dict[str, Any]]:
        """Start the workers that are not there; what each of them says about itself."""
        missing = [k for k, actor in enumerate(self.actors) if actor is None]
        if not missing:
            return []
        actor = self.ray.remote(Worker).options(
            num_cpus=max(1, self.cores), num_gpus=self.gpus, max_restarts=0
        )
        self._check_room(len(missing))
        for k in missing:
            self.actors[k] = actor.remote(self.make, self.cores)
        try:
            about = self.ray.get([self.actors[k].about.remote() for k in missing])
            if self.cores:
                self._pin()
        except Exception as error:
            self.close()
            cause = getattr(error, "cause", None)
            why = str(cause) if isinstance(cause, PSRError) else one_line(cause or error)
            raise PSRError(f"engine ray: a worker cannot start: {why}") from None
        return about

    def _check_room(self, count: int) -> None:
        """Workers beyond what the machines have would wait for ever."""
        have = self.ray.cluster_resources()
        for kind, each in (("CPU", max(1, self.cores)), ("GPU", self.gpus)):
            if each and have.get(kind, 0) < each * len(self.actors):
                raise PSRError(
                    f"engine ray: {len(self.actors)} workers need {each * len(self.actors)} {kind} "
                    f"but there are {have.get(kind, 0):g}; lower engine.workers or engine.cores"
                )

    def _pin(self) -> None:
        """The workers of each machine get cores beside one another."""
        nodes = [one["node"] for one in self.ray.get([a.about.remote() for a in self.actors])]
        places = [nodes[:k].count(node) for k, node in enumerate(nodes)]
        pairs = zip(self.actors, places, strict=True)
        self.ray.get([actor.pin.remote(place, self.cores) for actor, place in pairs])

    def close(self) -> None:
        """End the workers; Ray itself goes on for whoever else uses it."""
        for k, actor in enumerate(self.actors):
            if actor is not None:
                self.ray.kill(actor)
            self.actors[k] = None


def _texts(done: dict[int, list], share: list[int]) -> list[tuple[int, str]]:
    """What was written to the prompts of a share; nothing where options were scored."""
    return [(i, one.text) for i in share for one in done[i] if isinstance(one, Completion)]


def started_ray() -> Any:
    """The package, connected to RAY_ADDRESS or to a Ray of this machine.

    Raises PSRError in one line where it is missing or cannot start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody
    try:
        import ray
    except ImportError:
        raise PSRError(MISSING) from None
    if not ray.is_initialized():
        local = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        try:
            ray.init(log_to_driver=False, logging_level="error", **local)
        except Exception as error:  # no such cluster, no room for its files
            raise PSRError(f"engine ray: Ray cannot start ({one_line(error)})") from error
    return ray


def shared(prompts: list[str], workers: int) -> list[list[int]]:
    """Indices of the prompts of each worker: about equal lengths, alike neighbours together.

    Neighbours that begin alike share a prefill, so they stay with one worker; the blocks go, the
    longest first, to the worker with the least to do. The same prompts give the same shares.
    """
    most = max(1, -(-len(prompts) // (4 * workers)))  # four blocks a worker at least
    blocks: list[list[int]] = []
    for i, prompt in enumerate(prompts):
        alike = blocks and len(blocks[-1]) < most and _alike(prompts[blocks[-1][0]], prompt)
        if alike:
            blocks[-1].append(i)
        else:
            blocks.append([i])
    loads = [0] * workers
    shares: list[list[int]] = [[] for _ in range(workers)]
    size = {block[0]: sum(len(prompts[i]) for i in block) for block in blocks}
    for block in sorted(blocks, key=lambda block: (-size[block[0]], block[0])):
        least = loads.index(min(loads))
        shares[least] += block
        loads[least] += size[block[0]]
    return [sorted(share) for share in shares]


def _alike(one: str, two: str) -> bool:
    length = int(ALIKE * max(len(one), len(two)))
    return one[:length] == two[:length]
