"""Memory that training and generation take on one device, and what a run leaves on the disk.

Weights, gradients, Adam's two moments and the key-value cache follow from the architecture and the
settings. Activations are estimates: for a layer of width h, 34 h bytes a token in 16 bits (with an
attention that stores no score matrix), or 2 h for its input alone where the rest is computed again
(Korthikanti et al., arXiv 2205.05198).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from psr_lib import launch, manifest
from psr_lib.architectures import Architecture
from psr_lib.base_weights import PACKAGE
from psr_lib.launch import command
from psr_lib.machines import GIB, Machine
from psr_lib.presets import Preset
from psr_lib.prices import LETTERS
from psr_lib.spread import Together
from psr_lib.work import Work

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes
STORED, RECOMPUTED = 34, 2  # bytes of activations a token, layer and unit of width, in 16 bits
# Of each GPU, for CUDA's context, NCCL's buffers and what the allocator cannot use: an assumption.
RESERVE = GIB
Parts = dict[str, float]
ALONE = Together()


def training(
    model: Architecture, settings: Any, machine: Machine, rows: int = 1, together: Together = ALONE
) -> Parts:
    """Bytes on each device while a section of the preset (`sft`, `dpo`, `prm`) trains, by part.

    `rows` pass together for each row of a batch (two in DPO). Processes that train together share
    weights, gradients and moments only where these are divided (FSDP, ZeRO-3). The trainer holds
    32-bit weights.
    """
    trained = model.trained(settings.lora_r)
    whole = {"weights": 4 * model.parameters, "gradients": 4 * trained, "Adam": 8 * trained}
    share = together.processes if together.divided else 1
    parts = {name: size / share for name, size in whole.items()}
    if settings.bf16 and not together.divided:
        parts["16-bit copies of the weights"] = 2 * model.parameters
    tokens = micro_tokens(model, settings, machine, rows, together)
    parts |= {
        "activations (estimate)": activations(model, settings, machine, tokens),
        "logits and their gradient (estimate)": tokens * model.vocabulary * 4 * 2,
    }
    return {name: size * together.on_each(machine.count) for name, size in parts.items()}


def micro_tokens(
    model: Architecture, settings: Any, machine: Machine, rows: int, together: Together = ALONE
) -> int:
    """Tokens of the largest micro-batch, if the rows are as long as they may be."""
    from psr_lib.training import MICRO_TOKENS, capped, plan_batch

    row, devices = rows * settings.max_length, together.processes
    devices = 1 if settings.batch % devices else devices
    most = capped(MICRO_TOKENS[machine.device], machine.device, machine.memory, model.vocabulary)
    return plan_batch(settings.batch, devices, row, most).micro * row


def activations(model: Architecture, settings: Any, machine: Machine, tokens: int) -> float:
    """Bytes of activations of so many tokens; large models on GPUs compute them again."""
    from psr_lib.training import LARGE

    layer = STORED * tokens * model.hidden * (1 if settings.bf16 else 2)
    if machine.device == "cuda" and model.parameters > LARGE:
        return layer + model.layers * layer * RECOMPUTED / STORED
    return model.layers * layer


def generation(model: Architecture, preset: Preset) -> Parts:
    """Bytes on each device while the preset's engine generates, by part; none for a server.

    transformers fills `engine.batch_tokens` columns of cache; vLLM takes what is left of its share
    of the memory, and needs one sequence of the whole context at least.
    """
    engine, width = preset.engine, WIDTHS[preset.engine.dtype or preset.model.dtype]
    kind = engine_kind(preset)
    if kind == "server":
        return {}
    split = engine.tensor_parallel if kind == "vllm" else 1
    tokens = (engine.context or model.context) if kind == "vllm" else engine.batch_tokens
    label = f"key-value cache of {tokens:,} tokens"
    label += " (one sequence, the least)" if kind == "vllm" else ""
    return {"weights": model.parameters * width / split,
            label: tokens * model.cache_bytes(width) / split}  # fmt: skip


def beside(policy: Architecture, preset: Preset) -> Parts:
    """What the policy of a tree search takes beside its step PRM; vLLM gives each its own share."""
    parts = generation(policy, preset)
    return {} if engine_kind(preset) == "vllm" else {"its policy": sum(parts.values())}


def room(machine: Machine, share: float = 1.0) -> float:
    """Bytes of a share of a device that training or generation may use."""
    reserve = RESERVE if machine.device == "cuda" else 0
    return max(0.0, machine.memory * share - reserve)


def generation_room(preset: Preset, machine: Machine) -> float:
    """Bytes of a device that generation may use; vLLM keeps to its share of it."""
    return room(machine, preset.engine.gpu_memory if engine_kind(preset) == "vllm" else 1.0)


def host(model: Architecture, section: str) -> Parts:
    """Bytes of a node's own memory that a divided training takes at most, by part.

    The first process of each node reads the 32-bit weights there before they are divided, in DPO
    those of the reference too; at the end the whole is gathered there again to be saved.
    """
    reference = {"reference": 4.0 * model.parameters} if section == "dpo" else {}
    return {"weights": 4.0 * model.parameters} | reference


def engine_kind(preset: Preset) -> str:
    """What generates on a device: the preset's engine, or the workers of `ray`."""
    return preset.engine.worker if preset.engine.kind == "ray" else preset.engine.kind


def _fetched(model: Architecture) -> tuple[str, int]:
    """What a base that is no folder here takes; a package's weights are written out as 32 bits."""
    if model.name == PACKAGE:
        return f"{PACKAGE} written out from its package (32 bits)", 4 * model.parameters
    return f"{model.name} from the hub (16 bits)", 2 * model.parameters


def _folder(base: str) -> Path:
    return manifest.root() / Path(base).expanduser()


def disk(parts: Iterable[tuple[Work, Architecture]], preset: Preset) -> Parts:
    """Bytes that the stages leave on the disk, by part; models are saved whole, in 32 bits.

    Checkpoints lie there while a training outside the notebook's process lasts, weights and
    moments: those that are kept, and the next one, since an old one goes when that is written.
    """
    from psr_lib.checkpoints import KEPT

    how = preset.train
    found: Counter[str] = Counter()
    tokens, models, kept = 0.0, {}, 0
    for work, model in parts:
        tokens, models[model.name] = tokens + work.written, model
        if work.section:
            adapter = model.adapter(getattr(preset, work.section).lora_r)
            found[f"trained by {work.section} (32 bits)"] += 4 * (model.parameters + adapter)
            trained = model.trained(getattr(preset, work.section).lora_r)
            apart = how.launch != command.SINGLE or 2 * model.parameters > launch.SMALL
            kept = max(kept, (KEPT + 1) * 12 * trained if apart and how.save_every else 0)
    away = [model for name, model in models.items() if not _folder(name).is_dir()]
    base = dict(map(_fetched, away))
    texts = {f"texts and traces (at most, {LETTERS:.0f} bytes a token)": LETTERS * tokens}
    return base | found | ({"checkpoints meanwhile": kept} if kept else {}) | texts
