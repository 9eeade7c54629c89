"""JSON over HTTP to one server, with time-outs and retries.

The client is httpx2, the maintained line of httpx: transformers' own hub client brings it, so
nothing new is installed, and what is sent stays in sight. The key comes from the environment alone;
no message repeats it.
"""

import os
import random
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2

from psr_lib.engines.base import EngineError
from psr_lib.engines.calls import one_line
from psr_lib.records import PSRError

KEY = "OPENAI_API_KEY"
AGAIN = {408, 409, 425, 429, *range(500, 600)}  # answers worth another try
LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for


class Refused(EngineError):
    """The server answered that it will not; `status` is its HTTP status, `reason` its words."""

    def __init__(self, message: str, status: int = 0, reason: str = ""):
        """As the attributes say."""
        super().__init__(message)
        self.status, self.reason = status, reason


class Http:
    """Requests to the paths below one address; safe for several threads."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        retries: int,
        connections: int,
        backoff: float = 0.5,
        section: str = "engine",
    ):
        """`timeout` and `backoff` in seconds; the first wait is `backoff`, each next one double.

        `section` of the preset holds the settings that messages name.
        """
        self.url, self.section = checked_url(url, section), section
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self.key = _key()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self.client = httpx2.Client(
            headers=headers,
            limits=limits,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10)),
        )

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON answer to a POST of `body`, or to a GET without one.

        Raises Refused where the server will not, EngineError after the last try in vain.
        """
        last = ""
        for attempt in range(self.retries + 1):
            wait = min(LONGEST_WAIT, self.backoff * 2**attempt) * random.uniform(0.75, 1.25)
            try:
                answer = self.client.request(
                    "GET" if body is None else "POST", f"{self.url}/{path}", json=body
                )
            except httpx2.TimeoutException:
                last = f"no answer in {self.timeout:g} s"
            except httpx2.HTTPError as error:
                last = self.clean(error)
            else:
                if answer.status_code not in AGAIN:
                    return self._read(answer)
                last = f"status {answer.status_code}: {self._reason(answer)}"
                wait = max(wait, _retry_after(answer))
            if attempt < self.retries:
                time.sleep(wait)
        tries = f"{self.retries + 1} tries" if self.retries else "one try"
        raise EngineError(
            f"{self.section} server: {self.url} failed after {tries} ({last}); start or repair the "
            f"server (vllm serve ...) or set {self.section}.url, then run again"
        )

    def _read(self, answer: Any) -> Any:
        status = answer.status_code
        if status in (401, 403):
            raise Refused(
                f"{self.section} server: {self.url} refused the key ({status}); set {KEY} in the "
                "environment", status,
            )  # fmt: skip
        reason = self._reason(answer)
        if status >= 300:
            said = f"{self.section} server: {self.url} says {status}: {reason}"
            raise Refused(said, status, reason)
        try:
            return answer.json()
        except ValueError:
            raise Refused(
                f"{self.section} server: {self.url} gave no JSON ({reason}); {self.section}.url "
                "should end in /v1"
            ) from None

    def _reason(self, answer: Any) -> str:
        """The server's own words, one line."""
        try:
            found = answer.json()
            found = found.get("error", found)
            text = str(found.get("message", found) if isinstance(found, dict) else found)
        except (ValueError, AttributeError):
            text = answer.text
        return self.clean(text)

    def clean(self, text: Any) -> str:
        """One line without the key."""
        text = str(text).replace(self.key, "***") if self.key else str(text)
        return one_line(text)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def checked_url(url: str, section: str = "engine") -> str:
    """An http(s) address without a trailing slash; raises PSRError, never repeating a secret."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PSRError(f"{section}.url: no user, password or query there; put the key into {KEY}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PSRError(f"{section}.url: {url!r} is no address such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def check_key(url: str, name: str) -> None:
    """Raise PSRError where a server will ask for a key that is not there, before work comes first.

    Over http the key would be read on its way: such a server is one's own and may do without.
    `name`: the setting by which the server is asked.
    """
    if url.startswith("https://") and not _key():
        raise PSRError(f"{name}: {KEY} is not set, and {url} will ask for a key; set it in the "
                       "environment (to any word where that server takes none)")  # fmt: skip


def readable(text: str) -> str:
    """The text without halves of surrogate pairs: JSON can spell them, no file can hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise PSRError(f"{KEY}: the key in the environment holds odd characters; set it again")
    return key


def _retry_after(answer: Any) -> float:
    """Seconds that the server asks to wait, 0 where it does not say."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(answer.headers.get("retry-after", 0))))
    except ValueError:  # a date
        return 0.0
