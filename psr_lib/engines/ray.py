"""Several engines as Ray actors, each over its share of a search's questions or a call's prompts.

A search goes to the workers as a whole (`spread`), so that none waits for another; what is one call
is cut up and put together again. On one machine Ray is started here; with RAY_ADDRESS set, the same
code works on that cluster. A row's result does not depend on its worker, because noise belongs to
the row's seed; so the others, and one that is started in its place, take over what a worker that
died had not done.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from psr_lib import registry
from psr_lib.engines.base import Completion, EngineError, Told, Usage
from psr_lib.engines.calls import checked_seeds, one_line, option_lists
from psr_lib.engines.shards import shards
from psr_lib.progress import say
from psr_lib.records import PSRError

MISSING = "engine ray: ray is not installed; pip install -e '.[ray]', or take engine.kind=hf"
TRIES = 2  # how often a row is asked for whose worker dies: some prompts are the death of any
# What Ray raises where a worker is no more: the last is a result that was lost with its machine.
GONE = ("RayActorError", "OutOfMemoryError", "NodeDiedError", "WorkerCrashedError",
        "ObjectLostError")  # fmt: skip
LOOK_AGAIN = 5.0  # seconds between two looks at what holds up workers that start
PATIENCE = 60.0  # seconds that devices are waited for which others hold


HERE: dict[str, Any] = {}  # in a worker's process: its engine
Stream = Callable[[list[Any]], Iterator[Any]]


def engine_here() -> Any:
    """The engine of the worker whose process this is."""
    if not HERE:
        raise PSRError("engine ray: an engine of workers cannot be copied; open another")
    return HERE["engine"]


class WorkerDied(EngineError):
    """A worker's process, or its whole machine, went away in the middle of its work."""


@dataclass(eq=False)
class Share:
    """Items of a search that one worker is at, by name; `fruitless`: deaths since the last find."""

    worker: int
    actor: Any
    left: dict[Any, Any]
    fruitless: int = 0


class Worker:
    """What runs in an actor's process: one engine."""

    def __init__(self, make: Callable[[], Any], threads: int):
        """`make` opens the engine; `threads` for torch where it counts them."""
        if threads:
            import torch

            torch.set_num_threads(threads)
        affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
        self.free = sorted(affinity(0)) if affinity else []
        self.engine = HERE["engine"] = make()

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

    def search(self, work: Stream, items: list[Any]) -> Iterator[Any]:
        """What the work finds for the items, as it comes, with what was spent since the last."""
        before = self.engine.usage.copy()
        for found in work(items):
            now = self.engine.usage.copy()
            yield found, now.since(before)
            before = now

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
        self._check_room()
        self._await_room()
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

        Raises EngineError where a worker dies twice over; it holds what the others finished.
        """
        settings = {"n": n, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens,
                    "stop": stop or []}  # fmt: skip
        return self._share("sample", prompts, {"seeds": checked_seeds(prompts, seeds)}, settings)

    def choose(self, prompts: list[str], options: list) -> list[list[float]]:
        """Summed log-probability of each option after each prompt, as `Engine.choose`."""
        return self._share("choose", prompts, {"options": option_lists(prompts, options)}, {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Work that travels to a worker asks the engine there instead of all of them."""
        return engine_here, ()

    @property
    def shards(self) -> int:
        """Among how many workers `spread` divides its items."""
        return max(1, min(len(self.actors), self._room()))

    @property
    def spreads(self) -> bool:
        """Whether a search goes to the workers as a whole; not to those behind a `ray://` address.

        Ray's client cannot listen to what comes bit by bit.
        """
        from ray.util.client import ray as client

        return not client.is_connected()

    def spread(self, work: Stream, items: Sequence[Any]) -> Iterator[Any]:
        """What `work` finds for shares of the items, each with a worker of its own, as it comes.

        For work that asks this engine again and again: the shares never wait for each other. An
        item and what is found for it begin with the same name, so that what a worker that died had
        not found goes to the one in its place, or to the others where none can be started. Raises
        EngineError, after what the others find, where an engine fails, or a share is the death of
        one worker after the other; PSRError where the work cannot be sent.
        """
        self._revive()
        sent, failures = self._sent(work), list[EngineError]()
        running: dict[Any, Share] = {}
        self._deal(running, sent, {item[0]: item for item in items}, self._alive(), 0)
        try:
            while running:
                (ready,), _ = self.ray.wait(list(running), num_returns=1)
                share = running[ready]
                try:
                    found, usage = self.ray.get(next(ready))
                except StopIteration:
                    del running[ready]
                    if share.left:
                        failures.append(_left_out(share))
                except Exception as error:  # the actor died, or its engine raised
                    del running[ready]
                    failure = self._failed(share.worker, error, share.actor)
                    share.fruitless += 1
                    if not isinstance(failure, WorkerDied) or share.fruitless == TRIES:
                        failures.append(failure)
                        continue
                    self._revive()
                    heirs = [share.worker] if self.actors[share.worker] else self._alive()
                    self._deal(running, sent, share.left, heirs, share.fruitless)
                else:
                    del share.left[found[0]]
                    share.fruitless = 0
                    self.usage.add(usage)
                    yield found
        finally:
            for share in running.values():  # nobody waits for what they would find
                self._end(share.worker, share.actor)
        if failures:
            raise min(failures, key=lambda one: isinstance(one, WorkerDied))

    def _deal(
        self, running: dict[Any, Share], sent: Any, left: dict[Any, Any], heirs: list[int],
        fruitless: int,
    ) -> None:  # fmt: skip
        """Have these workers begin with an equal share each of what is left."""
        names = list(left)
        for place, k in enumerate(heirs):
            part = {name: left[name] for name in names[place :: len(heirs)]}
            if part:
                stream = self.actors[k].search.options(num_returns="streaming")
                running[stream.remote(sent, list(part.values()))] = Share(
                    k, self.actors[k], part, fruitless
                )

    def _sent(self, work: Stream) -> Any:
        """The work where every worker can fetch it, with extensions, whose files may not be there.

        Modules that an extension imports have to be there. Raises PSRError where it cannot travel.
        """
        pickle, extensions = self.ray.cloudpickle, registry.modules()
        for extension in extensions:
            pickle.register_pickle_by_value(extension)
        try:
            return self.ray.put(work)
        except Exception as error:  # it holds a lock, an open file or the like
            raise PSRError(
                "engine ray: the search cannot be sent to the workers "
                f"({one_line(error.__cause__ or error)}); take engine.kind=hf or vllm, or let the "
                "judge or extension hold only what can be pickled"
            ) from error
        finally:
            for extension in extensions:
                pickle.unregister_pickle_by_value(extension)

    def _share(self, name: str, prompts: list[str], rows: dict[str, list], settings: dict) -> list:
        """Have the workers do a call; their results in the prompts' order.

        What a worker that died has not done is shared out again, among those that are there then.
        """
        done: dict[int, list] = {}
        for _ in range(TRIES):
            self._revive()
            left = [i for i in range(len(prompts)) if i not in done]
            failure = self._ask(left, name, {"prompts": prompts, **rows}, settings, done)
            if not isinstance(failure, WorkerDied):
                break
        if failure:
            raise EngineError(str(failure), done)
        return [done[i] for i in range(len(prompts))]

    def _ask(
        self, left: list[int], name: str, rows: dict[str, list], settings: dict, done: dict
    ) -> EngineError | None:  # fmt: skip
        """Put these rows of a call into `done`; the failure, if one of them lacks there."""
        calls, failures = self._begin(left, name, rows, settings), []
        waiting = list(calls)
        while waiting:  # every worker may finish its share, whatever happens to another
            (ready,), waiting = self.ray.wait(waiting, num_returns=1)
            k, share = calls[ready]
            try:
                found, usage = self.ray.get(ready)
                done |= dict(zip(share, found, strict=True))
                if self.progress:  # a worker tells when it has done its whole share
                    self.progress(len(done), len(rows["prompts"]), _texts(done, share))
                self.usage.add(usage)
            except Exception as error:  # the actor died, or its engine raised
                cause = getattr(error, "cause", error)
                if isinstance(cause, EngineError):
                    done |= {share[i]: found for i, found in cause.finished.items()}
                failures.append(self._failed(k, error))
        return min(failures, key=lambda one: isinstance(one, WorkerDied), default=None)

    def _begin(
        self, left: list[int], name: str, rows: dict[str, list], settings: dict
    ) -> dict[Any, tuple[int, list[int]]]:
        """Give each living worker its share of the rows: what will be its result -> (it, share)."""
        alive, calls = self._alive(), {}
        parts = shards([rows["prompts"][i] for i in left], len(alive))
        for k, places in zip(alive, parts, strict=True):
            share = [left[place] for place in places]
            own = {key: [values[i] for i in share] for key, values in rows.items()}
            if share:
                calls[self.actors[k].call.remote(name, own | settings)] = k, share
        return calls

    def _failed(self, k: int, error: Exception, actor: Any = None) -> EngineError:
        """Say what happened to worker k; one that is dead is left for `_revive`."""
        cause, kinds = getattr(error, "cause", None), self.ray.exceptions
        if isinstance(cause, PSRError):  # the engine's own words; its process lives on
            return EngineError(f"engine ray: worker {k}: {cause}")
        if not isinstance(error, kinds.RayTaskError):
            self._end(k, actor)  # what only cannot be reached must not go on holding a device
        if isinstance(error, tuple(getattr(kinds, name) for name in GONE)):
            say(f"engine ray: worker {k} died; others take what it had not done")
            return WorkerDied(
                f"engine ray: worker {k} died in the middle of its work, and so did one that took "
                "it over; run again, with fewer engine.workers or engine.batch_tokens if memory "
                "ran out"
            )
        return EngineError(f"engine ray: worker {k} failed ({one_line(cause or error)})")

    def _revive(self) -> list[dict[str, Any]]:
        """Start the workers that are not there; what each of them says about itself.

        Where a machine has left, those that have no room are left out.
        """
        alive = len(self._alive())
        missing = [k for k, actor in enumerate(self.actors) if actor is None]
        missing = missing[: max(0, self._room() - alive)] if missing else []
        try:
            about = self._start(missing)
            if missing and self.cores:
                self._pin()
        except Exception as error:
            self.close()
            cause = getattr(error, "cause", error)
            why = str(cause) if isinstance(cause, PSRError) else one_line(cause)
            raise PSRError(f"engine ray: a worker cannot start: {why}") from None
        if not self._alive():
            raise PSRError("engine ray: no machine is left for a worker; start one and run again")
        return about

    def _start(self, missing: list[int]) -> list[dict[str, Any]]:
        """Start these workers; one that waits for a machine which turns out to be gone is ended."""
        actor = self.ray.remote(Worker).options(
            num_cpus=max(1, self.cores), num_gpus=self.gpus, max_restarts=0
        )
        for k in missing:
            self.actors[k] = actor.remote(self.make, self.cores)
        waiting = {self.actors[k].about.remote(): k for k in missing}
        about = []
        while waiting:
            every = {"num_returns": len(waiting), "timeout": LOOK_AGAIN}
            for one in self.ray.wait(list(waiting), **every)[0]:
                about.append(self.ray.get(one))
                del waiting[one]
            beyond = max(0, len(self._alive()) - self._room())
            for one in list(waiting)[:beyond]:
                self._end(waiting.pop(one))
        return about

    def _alive(self) -> list[int]:
        return [k for k, actor in enumerate(self.actors) if actor is not None]

    def _room(self) -> int:
        """How many workers the machines hold; more would wait for ever."""
        return self._have(self.ray.cluster_resources())

    def _each(self) -> dict[str, int]:
        """What a worker takes."""
        gpus = {"GPU": self.gpus} if self.gpus else {}
        return {"CPU": max(1, self.cores), **gpus}

    def _check_room(self) -> None:
        """Raise PSRError where the machines have no room for all workers."""
        have = self.ray.cluster_resources()
        for kind, each in self._each().items():
            if have.get(kind, 0) < each * len(self.actors):
                raise PSRError(
                    f"engine ray: {len(self.actors)} workers need {each * len(self.actors)} {kind} "
                    f"but there are {have.get(kind, 0):g}; lower engine.workers or engine.cores"
                )

    def _await_room(self) -> None:
        """Wait for what others hold; PSRError where they do not give it back."""
        last, waiting = time.monotonic() + PATIENCE, False
        while self._have(self.ray.available_resources()) < len(self.actors):
            if time.monotonic() > last:
                raise PSRError(
                    f"engine ray: others hold what {len(self.actors)} workers need (`ray status` "
                    "says who); close the notebook or end the job that does, or lower "
                    "engine.workers"
                )
            if not waiting:
                say("engine ray: waiting for devices that others hold")
            waiting = True
            time.sleep(1.0)

    def _have(self, resources: Mapping[str, float]) -> int:
        """How many workers these resources hold."""
        return int(min(resources.get(kind, 0) // each for kind, each in self._each().items()))

    def _pin(self) -> None:
        """The workers of each machine get cores beside one another."""
        actors = [self.actors[k] for k in self._alive()]
        nodes = [one["node"] for one in self.ray.get([a.about.remote() for a in actors])]
        places = [nodes[:k].count(node) for k, node in enumerate(nodes)]
        pairs = zip(actors, places, strict=True)
        self.ray.get([actor.pin.remote(place, self.cores) for actor, place in pairs])

    def _end(self, k: int, actor: Any = None) -> None:
        """End worker k; where `actor` is given, only if it is that one still."""
        mine = self.actors[k]
        if mine is not None and (actor is None or actor is mine):
            self.actors[k] = None
            with suppress(Exception):  # Ray itself may be gone
                self.ray.kill(mine)

    def close(self) -> None:
        """End the workers; Ray itself goes on for whoever else uses it."""
        for k in self._alive():
            self._end(k)


def _left_out(share: Share) -> EngineError:
    return EngineError(
        f"engine ray: worker {share.worker} ended without a word on {len(share.left)} of its "
        "questions; run again"
    )


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
