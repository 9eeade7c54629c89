"""Per-row seeds for vLLM: the next token is drawn here, with the noise of `sampling.py`.

vLLM's own seeds make a generator a request; on its CPU build a seeded request that is prefilled in
parts stops the engine ("CPU Generator does not use offset"). A logits processor needs neither: it
draws the token from (seed, position, token) as the transformers engine does and leaves vLLM, which
then decodes greedily, only that one. vLLM loads this file by name in its own process.
"""

from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from psr_lib.engines.sampling import next_tokens

NAME = f"{__name__}:SeededNoise"


def extra_args(seed: int, temperature: float, top_p: float) -> dict[str, Any]:
    """What a request carries for `SeededNoise`."""
    return {"psr_noise": [seed, temperature, top_p]}


class SeededNoise(LogitsProcessor):
    """Draws the next token of every row that carries `psr_noise`; other rows stay as they are."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool):
        """The signature is vLLM's."""
        self.device = device
        self.rows: dict[int, tuple[int, float, float, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """It changes which token is the likeliest."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow vLLM's rows as they come, move and go."""
        process_dict_updates(self.rows, batch_update, _state)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Leave one possible token in every seeded row of the logits [rows, vocabulary]."""
        for temperature, top_p in {row[1:3] for row in self.rows.values()}:
            here = [i for i, row in self.rows.items() if row[1:3] == (temperature, top_p)]
            index = torch.tensor(here, device=logits.device)
            seeds = torch.tensor([self.rows[i][0] for i in here], device=logits.device)
            # vLLM extends this list in place, so its length is the number of the next token.
            steps = torch.tensor([len(self.rows[i][3]) for i in here], device=logits.device)
            tokens = next_tokens(logits[index], temperature, top_p, seeds, steps)
            logits[index] = float("-inf")
            logits[index, tokens] = 0.0
        return logits


def _state(params: Any, prompt: list[int] | None, output: list[int]) -> tuple | None:
    found = (params.extra_args or {}).get("psr_noise")
    return (int(found[0]), float(found[1]), float(found[2]), output) if found else None
