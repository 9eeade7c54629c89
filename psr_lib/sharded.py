"""Training by several processes: which of them this is, and the whole of a model that they share.

Under `accelerate launch` every process makes the same calls. Files are written by the main one
alone; with FSDP and DeepSpeed ZeRO-3 each holds a part of the weights, and the whole is gathered on
the main one, in 32 bits, only to be saved. In a process of its own nothing of this is in play.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def launched() -> bool:
    """Whether this process is one of several that train together (or the only one of a launch)."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def world_size() -> int:
    """Processes that train together under a launcher; 1 without one."""
    return torch.distributed.get_world_size() if launched() else 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not launched() or torch.distributed.get_rank() == 0


def wait() -> None:
    """Until every process has come here."""
    if launched():
        torch.distributed.barrier()


def leave() -> None:
    """Part from the other processes, which need nothing more of this one; on CPUs only.

    A process that just ends may be aborted by gloo's threads. NCCL has none, and would have all
    wait until the main process has saved the model.
    """
    if launched() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def shards() -> bool:
    """Whether each process holds a part of the weights only."""
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return launched() and any(map(_is_set, names))


def device(model: Any) -> str:
    """The kind of device that computes; sharded weights may wait elsewhere until they train."""
    if not launched():
        return model.device.type
    from accelerate import PartialState

    return PartialState().device.type


def parameters(model: Any, trained: bool = False) -> int:
    """Parameters of the whole model, or those that are trained; call it before it is divided.

    What DeepSpeed has divided while it was read says how many there are in all.
    """
    weights = (p for p in model.parameters() if p.requires_grad or not trained)
    return sum(getattr(p, "ds_numel", p.numel()) for p in weights)


def recomputes() -> bool:
    """Whether FSDP computes activations again itself; the trainer must not do so too."""
    names = ("ACCELERATE_USE_FSDP", "FSDP_ACTIVATION_CHECKPOINTING")
    return launched() and all(map(_is_set, names))


@contextmanager
def dividing_references() -> Iterator[None]:
    """Inside, TRL divides a reference with FSDP 2 as accelerate divides the policy.

    By itself it makes one unit of the whole model, gathered all at once, and where one process has
    read the weights for all (`fsdp_cpu_ram_efficient_loading`) the others keep zeros.
    """
    from trl.trainer import dpo_trainer

    before = dpo_trainer.prepare_fsdp

    def divided(model: Any, accelerator: Any) -> Any:
        if accelerator.state.fsdp_plugin.fsdp_version != 2:
            return before(model, accelerator)
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        return fsdp2_prepare_model(accelerator, model).eval()

    dpo_trainer.prepare_fsdp = divided
    try:
        yield
    finally:
        dpo_trainer.prepare_fsdp = before


def whole_model(trainer: Any) -> Any:
    """The trained model with all of its weights; None on every process but the main one.

    Where weights are sharded it is a copy in the processor's memory.
    """
    if not shards():
        return trainer.model if is_main() else None
    state = _gathered(trainer)
    if not is_main():
        return None
    trained = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    model = _frame(trained)
    model.load_state_dict(state, strict=False, assign=True)
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    inner.tie_weights()
    return model


def _frame(trained: Any) -> Any:
    """The model without weights, with the configuration and the adapter of the trained one."""
    source = trained.get_base_model() if hasattr(trained, "peft_config") else trained
    # FSDP gives a sharded model a class of its own, made from the model's.
    kind = next(cls for cls in type(source).__mro__ if not cls.__name__.startswith("FSDP"))
    with torch.device("meta"):
        model = kind(source.config)
    model.generation_config = source.generation_config
    if hasattr(trained, "peft_config"):
        from peft import get_peft_model

        model = get_peft_model(model, trained.peft_config["default"])
    return model


def _gathered(trainer: Any) -> dict[str, torch.Tensor]:
    """Every weight in full on the main process; all processes take part."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        return _of_deepspeed(trainer.accelerator.unwrap_model(trainer.model_wrapped))
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def _of_deepspeed(model: Any) -> dict[str, torch.Tensor]:
    """The optimiser's 32-bit weights: the model's own are in 16 bits, which lose small updates."""
    from deepspeed import zero
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    for name, weight in model.named_parameters():
        full = safe_get_full_fp32_param(weight) if weight.requires_grad else None
        with zero.GatheredParameters([weight], enabled=full is None):
            whole = weight.detach() if full is None else full
            if is_main():
                found[name] = whole.float().cpu().clone()
    return found


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1")
