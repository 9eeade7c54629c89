"""A two-layer Llama with random weights and a small tokenizer, made in a test's own folder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from psr_lib.models import save_model
from psr_lib.records import IFTExample, JudgeExample, StepPair

SPECIAL = ["<pad>", "<eos>", "<unk>"]
PIECES = Regex(r"\\boxed\{|\[\[[AB]\]\]|[A-Za-z]+|[0-9]| |\n|[^\sA-Za-z0-9]")
TEXTS = [
    "Problem: Tom has 14 pens. Tom buys 25 pens. How many pens does Tom have?\nSolution:\n",
    "Step 1: 14 + 25 = 39.\nStep 2: The answer is \\boxed{39}.\n",
    "Problem: x\nSteps so far:\nA: Step 1\nB: Step 2\nReview: 67890 is right, so [[A]] [[B]]",
]


def word_tokenizer(texts: list[str] = TEXTS) -> PreTrainedTokenizerFast:
    """Words, single digits, spaces and newlines as tokens; decoding gives the text back."""
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(PIECES, "isolated")
    inner.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    inner.train_from_iterator(texts, trainer)
    return _wrap(inner)


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE without word boundaries, so newline and `Step` become one token."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["\nStep 1"] * 9 + ["\nStep 2"] * 9 + TEXTS, trainer)
    return _wrap(inner)


def _wrap(inner: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def random_model(vocabulary: int, seed: int = 0, **sizes: int) -> LlamaForCausalLM:
    """A Llama with random weights (two layers of width 32 unless told)."""
    torch.manual_seed(seed)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
    }
    config = LlamaConfig(
        vocab_size=vocabulary,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        initializer_range=0.2,  # far from uniform, so log-probabilities differ between tokens
        tie_word_embeddings=True,
        **(shape | sizes),
    )
    return LlamaForCausalLM(config)


def make_tiny_model(
    folder: Path | str, seed: int = 0, tokenizer: Any = None, **sizes: int
) -> tuple[Path, PreTrainedTokenizerFast]:
    """Save a random model with its tokenizer; returns its folder and the tokenizer."""
    tokenizer = tokenizer or word_tokenizer()
    return save_model(random_model(len(tokenizer), seed, **sizes), tokenizer, folder), tokenizer


def settings(**changes: Any) -> SimpleNamespace:
    """Training settings as a preset's `dpo` section holds them, small."""
    values = {
        "epochs": 1,
        "lr": 1e-3,
        "batch": 4,
        "scheduler": "constant",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "max_length": 256,
        "lora_r": 0,
        "lora_alpha": 16,
        "bf16": False,
        "beta": 0.1,
        "nll_weight": 0.0,
        "loss": "sigmoid",
        "reference": "previous",
        "start_from": "previous",
        "filters": ("margin", "length"),
        "min_margin": 0.0,
        "length_ratio": 0.0,
        "soft_labels": "none",
        "replay": 0.0,
    }
    return SimpleNamespace(**(values | changes))


def question(k: int) -> str:
    """A question that differs by k."""
    return f"Tom has {10 + k} pens. Tom buys {20 + k} pens. How many pens does Tom have?"


def step_pair(k: int, **changes: Any) -> StepPair:
    """A pair of siblings: first steps for even k, final steps for odd k."""
    values: dict[str, Any] = {"id": f"pair/{k}", "problem_id": f"p/{k}", "question": question(k)}
    if k % 2:
        right, wrong = (f"Step 2: The answer is \\boxed{{{n}}}." for n in (30 + 2 * k, 31 + 2 * k))
        values |= {"prefix": [f"Step 1: {10 + k} + {20 + k} = {30 + 2 * k}."]}
    else:
        right, wrong = (f"Step 1: {10 + k} + {20 + k} = {n}." for n in (30 + 2 * k, 29 + 2 * k))
        values |= {"prefix": []}
    values |= {"chosen": right, "rejected": wrong}
    values |= {"chosen_final": bool(k % 2), "rejected_final": bool(k % 2)}
    return StepPair(**(values | changes))


def ift(k: int) -> IFTExample:
    """A two-step solution."""
    steps = [f"Step 1: {10 + k} + {20 + k} = {30 + 2 * k}."]
    steps += [f"Step 2: The answer is \\boxed{{{30 + 2 * k}}}."]
    return IFTExample(id=f"ift/{k}", problem_id=f"p/{k}", question=question(k), steps=steps)


def eft(k: int) -> JudgeExample:
    """A judge example on the first step; the better one alternates."""
    right, wrong = (f"Step 1: {10 + k} + {20 + k} = {n}." for n in (30 + 2 * k, 29 + 2 * k))
    first, second = (right, wrong) if k % 2 else (wrong, right)
    better = "A" if k % 2 else "B"
    return JudgeExample(
        id=f"eft/{k}",
        problem_id=f"p/{k}",
        question=question(k),
        prefix=[],
        step_a=first,
        step_b=second,
        better=better,
        explanation=f"{30 + 2 * k} is right, so [[{better}]]",
    )


def whole_pair(k: int) -> StepPair:
    """A right and a wrong whole solution, as the baseline `srlm` pairs them."""
    right = "\n".join(ift(k).steps)
    wrong = right.replace(f"{{{30 + 2 * k}}}", f"{{{31 + 2 * k}}}")
    shared = {"id": f"p/{k}#whole", "problem_id": f"p/{k}", "question": question(k), "prefix": []}
    ends = {"chosen_final": True, "rejected_final": True}
    return StepPair(**shared, chosen=right, rejected=wrong, **ends)
