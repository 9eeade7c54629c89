"""A small model that stands in for a large one in a dry run: its architecture, narrow, untrained.

The class, the position limit and the tying of embeddings are the real model's; layers, widths and
vocabulary are not. The tokenizer is a byte-level BPE made here of the laboratory's own texts, with
digits apart as Qwen has them: the real one would have to be downloaded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from psr_lib import architectures, teachers
from psr_lib.models import save_model
from psr_lib.prompts import Family
from psr_lib.records import hash_json

END, PAD, TURN = "<|end|>", "<|pad|>", "<|turn|>"
TEMPLATE = (
    "{% for message in messages %}" + TURN + "{{ message.role }}\n{{ message.content }}"
    "\n{% endfor %}{% if add_generation_prompt %}" + TURN + "assistant\n{% endif %}"
)
VOCABULARY, ROWS = 800, 64  # tokens; problems whose texts the tokenizer is made of
LAYERS, HEAD, HIDDEN = 2, 16, 96  # width of a head, and the least of all heads together
WIDE_HEAD = 64  # the smallest that vLLM's kernels have


def make(base: str, family: Family, home: Path, wide: bool = False) -> Path:
    """The folder of a model that stands in for `base`, made where it is not there yet.

    `wide` keeps the number of heads, so that they can be divided as the real model's. Raises
    PSRError where no configuration of `base` is at hand.
    """
    tokenizer = make_tokenizer(family)
    config = narrow(architectures.config(base)[0], tokenizer, wide)
    folder = home / f"{base.rstrip('/').replace('/', '--')}-{hash_json(config.to_dict())[:8]}"
    if not (folder / "config.json").is_file():
        save_model(untrained(config), tokenizer, folder)
    return folder


def narrow(config: Any, tokenizer: Any, wide: bool = False) -> Any:
    """The configuration with few layers and small widths, of the same class."""
    values = {k: v for k, v in config.to_dict().items() if k not in ("layer_types", "auto_map")}
    heads, kept = values["num_attention_heads"], values.get("num_key_value_heads") or 1
    share = max(1, heads // kept)  # query heads to each head of keys and values
    few = heads if wide else share * -(-HIDDEN // (share * HEAD))
    hidden = few * (WIDE_HEAD if wide else HEAD)
    values |= {
        "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": LAYERS,
        "num_attention_heads": few, "num_key_value_heads": few // share, "head_dim": hidden // few,
        "max_window_layers": LAYERS, "vocab_size": len(tokenizer), "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    return type(config)(**values)


def untrained(config: Any) -> Any:
    """A model of this configuration with random weights, the same at every call."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def make_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """The tokenizer of a stand-in for these prompts, the same at every call."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[PAD, END, TURN], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator(_texts(family), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, eos_token=END, chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False, padding_side="left",
    )  # fmt: skip


def _texts(family: Family) -> Iterator[str]:
    taken: set[str] = set()
    yield from (text for text in family.templates.values() for _ in range(ROWS))
    for row in teachers.ift_rows(ROWS, 0, taken, {"easy": 1.0}):
        yield "\n".join([row.question, *row.steps])
    for pair in teachers.eft_rows(ROWS, 0, taken):
        yield "\n".join([pair.question, *pair.prefix, pair.step_a, pair.explanation])
