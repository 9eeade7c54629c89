"""Asking a teacher behind an API in a stage: what it will cost, what is kept, what is counted."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psr_lib import prices
from psr_lib.engines.base import EngineError
from psr_lib.engines.chat import Chat, Messages
from psr_lib.methods import DATA, SRLM
from psr_lib.paid import Paid
from psr_lib.presets import PROCEDURAL, Preset
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key

# What a teacher is asked for, and the setting that asks an API for it.
SETTINGS = {"segment": "teacher.ift", "judge": "teacher.judge", "score": "teacher.judge"}


def uses(preset: Preset, keys: Iterable[Key]) -> list[str]:
    """The uses for which these stages ask a teacher behind an API."""
    data, teacher, due = preset.data, preset.teacher, set(keys)
    judged = teacher.judge == "api" and data.eft_from == "chain"
    asked = {
        "segment": Key(DATA) in due and teacher.ift == "api" and data.source != PROCEDURAL,
        "judge": Key(DATA) in due and judged,
        "score": Key(DATA, SRLM) in due and judged,
    }
    return [use for use, is_asked in asked.items() if is_asked]


@contextmanager
def opened(stage: Any, use: str) -> Iterator[Chat]:
    """The preset's teacher for one `use`; its answers are kept beside the runs, by model and use.

    Counted are the answers that were used and what they cost, whenever they were paid for.
    Raises PSRError that says how many are kept where the teacher's server fails for good.
    """
    settings = stage.preset.teacher
    chat = Chat(settings, Paid(kept_answers(stage.run, settings.model, use)))
    try:
        yield chat
    except EngineError as error:
        kept = f"{len(chat.paid)} answers are kept and the next call goes on from there"
        raise PSRError(f"{error}; {kept}") from error
    finally:
        chat.close()
        stage.count(**{f"{use}_calls": len(chat.used), f"{use}_calls_now": chat.asked,
                       f"{use}_prompt_tokens": chat.prompt_tokens, f"{use}_tokens": chat.tokens,
                       f"{use}_answers_kept": len(chat.paid),
                       f"{use}_unreadable_lines": chat.paid.unreadable})  # fmt: skip


def kept_answers(run: Any, model: str, use: str) -> Path:
    """The file that keeps a teacher's answers of one use."""
    return run.paid / f"{model.replace('/', '--')}-{use}.jsonl"


def announce(chat: Chat, conversations: Iterable[Messages]) -> None:
    """Print what is still to be asked and what it is likely to cost.

    Raises PSRError with the estimate where the preset wants a dry run and something is to be asked.
    """
    left = [turns for turns in conversations if chat.known(turns) is None]
    texts = ["".join(turn["content"] for turn in turns) for turns in left]
    settings = chat.settings
    found = prices.estimate(settings.model, texts, chat.paid.values(), settings.answer_tokens)
    print(found)
    if settings.dry_run and left:
        raise PSRError(f"dry run: {found}; set teacher.dry_run=false to ask")
