"""The one place where a preset's `engine` section becomes an engine.

An engine is registered under its name (`engine.kind`): a function of the sections `engine` and
`model`, the model's folder and the n of M[n] (or None), which returns an `engines.base.Engine`.
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from psr_lib import registry
from psr_lib.engines.base import Engine
from psr_lib.records import PSRError
from psr_lib.registry import register


def open_engine(settings: Any, model: Any, folder: Path | str, n: int | None = None) -> Engine:
    """The engine that the preset's sections `engine` and `model` name, for the model of a folder.

    `n`: which M[n] it is, for the names under which a server serves them. Raises PSRError where the
    kind is unknown, its package is missing, or it cannot start.
    """
    return registry.find("engine", settings.kind)(settings, model, Path(folder), n)


def check_installed(settings: Any) -> None:
    """Raise PSRError where the package of an engine is missing, before work that comes first."""
    from psr_lib.engines import ray, vllm

    kinds = (settings.kind, settings.worker if settings.kind == "ray" else "")
    for name, missing in (("vllm", vllm.MISSING), ("ray", ray.MISSING)):
        if name in kinds and not find_spec(name):
            raise PSRError(missing)


def check_own(settings: Any) -> None:
    """Raise PSRError for a server: it has its own weights, and the chain has made some."""
    if settings.kind == "server":
        raise PSRError("data.eft_from=chain loads its own weights; set engine.kind to hf or vllm")


def check_beside(settings: Any) -> None:
    """Raise PSRError where an engine could not hold a tree search's step PRM and policy at once."""
    check_own(settings)
    if settings.kind == "ray" and settings.workers < 2:
        raise PSRError("engine.workers=1: the tree search needs a worker for its step PRM and one "
                       "for its policy; set engine.workers=2 or more")  # fmt: skip


@register("engine", "hf")
def _hf(settings: Any, model: Any, folder: Path, n: int | None) -> Engine:
    from psr_lib.engines.hf import HFEngine

    return HFEngine.load(
        folder,
        dtype=settings.dtype or model.dtype,
        device=model.device,
        batch_tokens=settings.batch_tokens,
        trust_remote_code=model.trust_remote_code,
    )


@register("engine", "vllm")
def _vllm(settings: Any, model: Any, folder: Path, n: int | None) -> Engine:
    from psr_lib.engines.vllm import VLLMEngine

    return VLLMEngine.load(
        folder,
        dtype=settings.dtype or model.dtype,
        tensor_parallel=settings.tensor_parallel,
        gpu_memory=settings.gpu_memory,
        context=settings.context,
        trust_remote_code=model.trust_remote_code,
    )


@register("engine", "server")
def _server(settings: Any, model: Any, folder: Path, n: int | None) -> Engine:
    from psr_lib.engines.server import ServerEngine

    if settings.protocol == "chat":
        return open_api(settings, served_name(settings.model, n))
    return ServerEngine.load(
        settings.url,
        served_name(settings.model, n),
        folder,
        trust_remote_code=model.trust_remote_code,
        **_request_settings(settings),
    )


def open_api(settings: Any, name: str) -> Engine:
    """A model that only a server has: no folder, so no tokenizer (prompts go as text)."""
    from psr_lib.engines.chat_server import ChatServerEngine
    from psr_lib.engines.server import ServerEngine

    kind = ChatServerEngine if settings.protocol == "chat" else ServerEngine
    return kind(settings.url, name, **_request_settings(settings))


def _request_settings(settings: Any) -> dict[str, Any]:
    names = ("context", "concurrency", "timeout", "retries", "seeds")
    return {name: getattr(settings, name) for name in names}


def served_name(name: str, n: int | None) -> str:
    """The name of M[n] on a server. A loop of several models needs one name for each.

    >>> served_name("M{n}", 3)
    'M3'
    """
    if n is None or "{n}" in name:
        return name.replace("{n}", str(n))
    raise PSRError(
        f"engine.model: {name!r} would be the same model in every round; write {{n}} where the "
        "number of the model stands, such as M{n}, and serve each M[n] under its own name"
    )


@register("engine", "ray")
def _ray(settings: Any, model: Any, folder: Path, n: int | None) -> Engine:
    from psr_lib.engines.ray import RayEngine, started_ray
    from psr_lib.models import load_tokenizer

    if settings.worker not in WORKERS:
        raise PSRError(f"engine.worker: {settings.worker!r} is unknown; choose one of hf, vllm")
    # With `auto` the cluster decides, which may have GPUs where this machine has none.
    has_gpus = started_ray().cluster_resources().get("GPU", 0) > 0
    on_gpus = model.device == "cuda" or (model.device == "auto" and has_gpus)
    return RayEngine(
        partial(WORKERS[settings.worker], settings, model, folder.resolve(), n),
        load_tokenizer(folder, model.trust_remote_code),
        workers=settings.workers,
        cores=settings.cores,
        gpus=settings.tensor_parallel if on_gpus else 0,
    )


WORKERS = {"hf": _hf, "vllm": _vllm}
