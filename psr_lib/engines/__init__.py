"""Engines: whatever turns prompts into completions and options into log-probabilities."""

from psr_lib.engines.base import Completion, Engine, Usage

__all__ = ["Completion", "Engine", "Usage"]
