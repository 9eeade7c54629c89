"""Load and save language models and their tokenizers, from local folders only.

A model folder holds config.json, safetensors weights and a tokenizer. A LoRA folder (written by
peft) is loaded on the base model that its adapter_config.json names. Only safetensors are read:
other weight files can run code when they are opened.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from psr_lib import manifest
from psr_lib.records import PSRError, read_json, write_json, writing

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
ADAPTER = "adapter_config.json"
BASE = "base.json"  # beside an adapter of ours: the hash of the base that it was trained on


def load_tokenizer(folder: Path | str, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder; padding falls back on the end-of-text token.

    Raises PSRError naming the folder where it is missing, holds no tokenizer, or holds one without
    an end-of-text token.
    """
    folder = _existing(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise PSRError(f"{folder}: no tokenizer; copy the tokenizer files of its base model there")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # a damaged file fails in many ways; each is the same to the user
        raise PSRError(f"{folder}: unreadable tokenizer ({_line(error)}); copy it again") from None
    return check_tokenizer(tokenizer, folder)


def check_tokenizer(tokenizer: Any, where: Path | str = "tokenizer") -> Any:
    """Refuse tokenizers that cannot end a text or that change a text's beginning."""
    if tokenizer.eos_token_id is None:
        raise PSRError(f"{where}: the tokenizer has no end-of-text token; set eos_token")
    # A space mark before every text would stand between a prefix and the step scored after it.
    first = tokenizer.convert_ids_to_tokens(text_ids(tokenizer, "Step"))[0]
    joined = text_ids(tokenizer, "a\nStep") == text_ids(tokenizer, "a\n") + text_ids(
        tokenizer, "Step"
    )
    if first.startswith("\u2581") and not joined:
        raise PSRError(
            f"{where}: the tokenizer puts a space before every text; use a byte-level one"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text by itself, without special tokens before or after it."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def texts_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """`text_ids` of many texts, in one call of the tokenizer."""
    return tokenizer(texts, add_special_tokens=False).input_ids if texts else []


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered prompt: a beginning-of-text token where the model has one, once."""
    ids, bos = text_ids(tokenizer, text), tokenizer.bos_token_id
    adds_bos = bos is not None and bos in tokenizer("").input_ids
    return [bos, *ids] if adds_bos and ids[:1] != [bos] else ids


def device_of(name: str = "auto") -> torch.device:
    """`auto` is the first of cuda, mps and cpu that this machine has.

    Raises PSRError where a named device is missing.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in has.items() if found))
    if not has.get(name.split(":")[0], False):
        raise PSRError(f"device {name!r}: not on this machine; use model.device=auto")
    return torch.device(name)


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raise PSRError where a device does not compute in a number format."""
    if dtype == "float16" and device.type == "cpu":
        raise PSRError("model.dtype: a CPU has no fast float16; take bfloat16 or float32")
    plain = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if dtype == "bfloat16" and plain:
        raise PSRError(
            f"bfloat16: {torch.cuda.get_device_name(device)} has none; set model.dtype to float16 "
            "or float32, and sft.bf16, dpo.bf16 and prm.bf16 to false"
        )


def slow_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is many times slower than float32 there: on x86 without AVX-512."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    basic = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    return device.type == "cpu" and x86 and basic


def load_model(
    folder: Path | str,
    dtype: str,
    device: str | torch.device | None,
    trust_remote_code: bool = False,
) -> Any:
    """The causal language model of a folder, in evaluation mode, as `dtype` on `device`.

    With device None it stays where transformers puts it, for what shards the weights itself.
    A LoRA folder gives its base model with the adapter merged in. Raises PSRError naming the
    folder and what is missing or damaged, and where the device has no such number format.
    """
    folder = _existing(folder)
    check_dtype(dtype, torch.device(device or "cpu"))
    if (folder / ADAPTER).is_file():
        return _load_adapter(folder, dtype, device, trust_remote_code)
    check_weights(folder)
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
            model = model if device is None else model.to(device)
    except Exception as error:  # as above: config or weights, one line either way
        if out_of_memory(error):
            raise PSRError(f"{folder}: no memory left for this model ({_line(error)}); free some, "
                           "or take a smaller dtype or a larger machine") from None  # fmt: skip
        raise PSRError(
            f"{folder}: unreadable model ({_line(error)}); make or copy it again"
        ) from None
    return model.eval()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, the processor's or a device's."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and "tried to allocate" in str(error))


def empty_model(folder: Path | str, trust_remote_code: bool = False) -> Any:
    """The model of a folder without its weights, so that 72 billion parameters need no memory.

    Raises PSRError where its configuration can't be read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            _existing(folder), local_files_only=True, trust_remote_code=trust_remote_code
        )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except PSRError:
        raise
    except Exception as error:
        raise PSRError(f"{folder}: unreadable model ({_line(error)}); copy it again") from None


def _load_adapter(folder: Path, dtype: str, device: Any, trust_remote_code: bool) -> Any:
    check_weights(folder, ADAPTER)
    base = adapter_base(folder)
    model = load_model(base, dtype, device, trust_remote_code)
    from peft import PeftModel

    try:
        model = PeftModel.from_pretrained(model, str(folder))
        fits = _is_complete(model, folder)
    except Exception as error:  # a missing or damaged adapter_model.safetensors, or other layers
        fits = not any(words in str(error) for words in ("size mismatch", "not found in the base"))
        if fits:
            line = _line(error)
            raise PSRError(f"{folder}: unreadable adapter ({line}); train it again") from None
    if not fits:
        raise PSRError(f"{folder}: this adapter is for another base than {base}, whose layers are "
                       f"others; name its own in {ADAPTER}, or train it again")  # fmt: skip
    return model.merge_and_unload().eval()


def _is_complete(model: Any, folder: Path) -> bool:
    """Whether every weight of an adapter file has its place in the model, and none is lacking."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return set(file.keys()) == set(get_peft_model_state_dict(model))


def adapter_base(folder: Path | str) -> Path:
    """The base model that an adapter folder records; a relative path starts at that folder.

    Raises PSRError where the record or the base is missing, or other weights lie there now.
    """
    folder = Path(folder)
    name = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not name:
        raise PSRError(f"{folder / ADAPTER}: base_model_name_or_path is empty; name its base")
    for base in (folder / name, Path(name)):
        if (base / "config.json").is_file():
            _check_base(folder, base)
            return base.resolve()
    raise PSRError(f"{folder}: its base model {name!r} is not there; restore it or edit {ADAPTER}")


def _check_base(folder: Path, base: Path) -> None:
    if not (folder / BASE).is_file():  # an adapter that others have trained
        return
    if read_json(folder / BASE) != manifest.identity(base):
        raise PSRError(f"{folder}: this adapter is for another base than what lies in {base} now; "
                       "restore that one, or train the adapter again")  # fmt: skip


def save_model(model: Any, tokenizer: Any, folder: Path | str) -> Path:
    """Write weights (safetensors), config and tokenizer; the folder appears only when complete."""
    with whole_folder(folder) as part, quiet():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return Path(folder)


def save_adapter(model: Any, base: Path | str, folder: Path | str) -> Path:
    """Write a LoRA adapter that finds its base by a relative path, so that a run can be moved."""
    with whole_folder(folder) as part, quiet():
        model.save_pretrained(part)
        config = read_json(part / ADAPTER)
        start = Path(folder).resolve()
        config["base_model_name_or_path"] = os.path.relpath(Path(base).resolve(), start)
        write_json(part / ADAPTER, config)
        write_json(part / BASE, manifest.identity(base))
        (part / "README.md").unlink(missing_ok=True)  # peft's card repeats the absolute path
    return Path(folder)


@contextmanager
def whole_folder(folder: Path | str) -> Iterator[Path]:
    """A folder to fill; it replaces `folder` by renaming if the block ends without an error.

    Raises PSRError where the disk is full or may not be written to; `folder` is then as it was.
    """
    folder = Path(folder)
    part, old = (
        folder.with_name(f"{folder.name}.{kind}{os.getpid()}") for kind in ("part", "part-old")
    )
    try:
        with writing(folder):
            part.mkdir(parents=True)
            yield part
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars from transformers and datasets inside the block; ours are shown."""
    import datasets
    from transformers.utils import logging

    bars = datasets.are_progress_bars_disabled(), logging.is_progress_bar_enabled()
    before = os.environ.get("TQDM_DISABLE")
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        _restore_bars(*bars, before)


def _restore_bars(datasets_off: bool, transformers_on: bool, before: str | None) -> None:
    import datasets
    from transformers.utils import logging

    if not datasets_off:
        datasets.enable_progress_bars()
    if transformers_on:
        logging.enable_progress_bar()
    os.environ.pop("TQDM_DISABLE", None)
    if before is not None:
        os.environ["TQDM_DISABLE"] = before


def _existing(folder: Path | str) -> Path:
    if not Path(folder).is_dir():
        raise PSRError(f"{folder}: no such model folder; make it, or download the model there")
    return Path(folder)


def check_weights(folder: Path, config: str = "config.json") -> None:
    """Refuse a folder without its config or without safetensors: a library that finds none may
    fall back on weight files that run code when they are opened."""
    if not (folder / config).is_file():
        raise PSRError(f"{folder}: no {config}; this is not a model folder, name another")
    if not any(folder.glob("*.safetensors")):
        raise PSRError(f"{folder}: no .safetensors weights; save the model again as safetensors")


def _line(error: Exception) -> str:
    """The first line of an error, short enough for one line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
