"""The two teachers of `annotate`: a model behind an API, and the oracle of the small laboratory."""

from typing import Any

from psr_lib import problems, prompts, reviews
from psr_lib.annotate import Answer, Call, judge_prompt
from psr_lib.engines.chat_client import ChatClient


class ApiTeacher:
    """Any OpenAI-compatible chat model, asked with the judge's prompt; the paper's is OpenAI o1.

    `settings` is the preset's `annotate` block; the key is OPENAI_API_KEY of the environment.
    """

    def __init__(self, settings: Any, backoff: float = 0.5):
        """Raises PSRError where the address or the key is of no use."""
        self.family, self.concurrency = prompts.load(settings.prompts), settings.concurrency
        options = {settings.limit: settings.max_tokens}
        if settings.temperature != 1:  # the protocol's own default, and all that some models take
            options["temperature"] = settings.temperature
        self.identity = {"url": settings.url, "model": settings.model, "options": options,
                         "template": self.family.hashes["judge"]}  # fmt: skip
        self.client = ChatClient(
            settings.url, settings.model, options=options, timeout=settings.timeout,
            retries=settings.retries, concurrency=settings.concurrency, backoff=backoff,
        )  # fmt: skip

    def prompt(self, call: Call) -> str:
        """The judge's prompt of the family that the preset names for the teacher."""
        return judge_prompt(self.family, call)

    def answer(self, call: Call) -> Answer:
        """One request, and further ones where its answer is of no use."""
        prompt = self.prompt(call)
        reply = self.client.ask(prompt)
        return Answer(reply.text, reply.fault, reply.prompt_tokens, reply.tokens, len(prompt))

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class OracleTeacher:
    """Recomputes the step and compares, as `reviews` writes it; laboratory problems only."""

    concurrency = 1

    def __init__(self) -> None:
        """It depends on nothing."""
        self.identity = {"teacher": "oracle"}

    def prompt(self, call: Call) -> str:
        """It reads the call itself."""
        return ""

    def answer(self, call: Call) -> Answer:
        """The explanation; no answer where not just one of the two steps is right."""
        verdict = problems.oracle_verdict(call.question, call.prefix, call.a, call.b)
        if verdict is None:
            return Answer("", "undecided")
        right = problems.next_step(problems.parse(call.question), call.prefix)
        return Answer(reviews.explain(right, call.a, call.b, verdict))

    def close(self) -> None:
        """Nothing is open."""


def make_teacher(settings: Any) -> ApiTeacher | OracleTeacher:
    """The teacher that the preset's `annotate` block names."""
    return ApiTeacher(settings) if settings.teacher == "api" else OracleTeacher()
