"""Typed records of the loop, and how they reach the disk and come back.

Every artifact is JSON or JSON Lines. A file is written beside its final place and moved there when
complete, so a half-written file is never read. A row that does not fit its record type is an error
that names the file, the line and the field.

>>> row = Question(id="tiny/easy/0", text="Tom has 4 pens. How many pens does Tom have?")
>>> from_dict(Question, to_dict(row)) == row
True
"""

import errno
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import IO, Any, TypeVar, cast, get_args, get_origin, overload

T = TypeVar("T")
FULL, CLOSED = "free some space", "allow this user to write there"
WAYS = {errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EFBIG: FULL,
        errno.EACCES: CLOSED, errno.EPERM: CLOSED, errno.EROFS: CLOSED}  # fmt: skip
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers tell the code

SUM = re.compile(rb', "sum": "([0-9a-f]{16})"\}\n?$')  # the end of a line with its hash


class PSRError(ValueError):
    """An error that a user can act on: one line that names the thing and the way out."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the line, and not where in psr_lib it was found."""
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """All that the self-rewarding loop may see of a problem: no gold answer (paper section 3.3)."""

    id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question with its gold answer; gold is for evaluation and for named controls only."""

    id: str
    source: str
    question: str
    answer: str
    solution: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def ask(self) -> Question:
        """The question without its answer."""
        return Question(id=self.id, text=self.question)


@dataclass(frozen=True, kw_only=True)
class IFTExample:
    """Problem -> step-segmented solution (paper section 3.2, "IFT")."""

    id: str
    problem_id: str
    question: str
    steps: list[str]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JudgeExample:
    """Problem, steps so far and two next steps -> explanation and verdict (section 3.2, "EFT")."""

    id: str
    problem_id: str
    question: str
    prefix: list[str]
    step_a: str
    step_b: str
    better: str
    explanation: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepLabels:
    """A solution whose steps are labelled `+` or `-`; `` where a step has no label.

    What a step PRM is trained on (paper section 3.2; PRM800K, arXiv 2305.20050). A step is labelled
    as the next one after those before it. Where something knows, `sound` says of each step how many
    characters it begins with are right.
    """

    id: str
    problem_id: str
    question: str
    steps: list[str]
    labels: list[str]
    sound: list[int] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoreExample:
    """Problem and whole solution -> justification and points, 0 to 5 (EFT of the baseline `srlm`).

    `right` says whether the final answer is the gold one: the teacher's scores were filtered by it,
    and held-out rows are measured by it (Yuan et al., arXiv 2401.10020; paper section 4).
    """

    id: str
    problem_id: str
    question: str
    solution: str
    points: int
    explanation: str
    right: bool
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepPair:
    """One row of PPD: best and worst sibling after the same prefix (section 3.3, Eq. 3-5).

    A whole solution is the only step after an empty prefix (baseline `srlm`).
    `chosen_final` and `rejected_final` say whether that step ends the solution, and so whether an
    end-of-text token may follow it in training.
    """

    id: str
    problem_id: str
    question: str
    prefix: list[str]
    chosen: str
    rejected: str
    chosen_final: bool
    rejected_final: bool
    meta: dict[str, Any] = field(default_factory=dict)


def to_dict(record: Any) -> dict[str, Any]:
    """A record as a plain dictionary, fields in their declared order."""
    return asdict(record)


def from_dict(cls: type[T], row: Any, where: str = "row") -> T:
    """Build a record, checking that every field is there, known and of its type.

    Raises PSRError naming `where` and the field.
    """
    if not isinstance(row, dict):
        raise PSRError(f"{where}: expected a JSON object, found {type(row).__name__}")
    known = {f.name: f for f in fields(cast(Any, cls))}
    for name in row:
        if name not in known:
            raise PSRError(f"{where}: unknown field {name!r}; {cls.__name__} has {sorted(known)}")
    try:
        record = cls(**row)
    except TypeError as error:
        raise PSRError(f"{where}: {cls.__name__}: {error}") from None
    for name, spec in known.items():
        if not fits(getattr(record, name), spec.type):
            found = type(getattr(record, name)).__name__
            raise PSRError(f"{where}: field {name!r} should be {spec.type}, found {found}")
    return record


def fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value has the annotated type (int passes for float, bool never for int)."""
    if kind is Any:
        return True
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(fits(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """In the block, a disk that is full or may not be written to is a PSRError of one line."""
    try:
        yield
    except Exception as error:
        code = _os_code(error)
        if code not in WAYS:
            raise
        raise PSRError(
            f"{path}: cannot be written ({os.strerror(code)}); {WAYS[code]} and run the same "
            "command again: what was complete is kept"
        ) from error


def _os_code(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = OS_ERROR.search(str(error))
    return int(found[1]) if found and "\n" not in str(error) else None


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A path to write to; it replaces `path` in one move if the block ends without an error.

    Raises PSRError where the disk is full or may not be written to; `path` is then as it was.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON atomically; keys stay in their order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON; raises PSRError that names a missing or damaged file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PSRError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PSRError(f"{path}: not valid JSON ({error}); delete it and rerun its stage") from None


def write_jsonl(path: Path | str, rows: Iterable[Any]) -> int:
    """Write records (or dictionaries) one a line, atomically; returns the number of rows.

    Rows are taken one at a time, so they need not fit into memory together. A name that ends in
    `.gz` is compressed, without a time stamp, so equal rows give equal bytes.
    """
    count = 0
    with atomic(path) as part, open(part, "wb") as raw, _packed(raw, path) as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007 - the last number is the result
            file.write(json_line(row))
    return count


def json_line(row: Any) -> bytes:
    """A record or dictionary as one line of a JSONL file."""
    value = row if isinstance(row, dict) else to_dict(row)
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8")


def summed_line(row: dict[str, Any]) -> bytes:
    """A dictionary as one line of JSON that ends in a short hash of what stands before it."""
    text = json_line(row)[:-2]  # without its closing bracket
    return text + f', "sum": "{_short_hash(text)}"}}\n'.encode()


def read_summed(line: bytes, where: str) -> dict[str, Any] | None:
    """The row of a `summed_line`; None for half a line. A line without a hash is taken as it is.

    Raises PSRError that names `where` if the line is not as it was written.
    """
    found = SUM.search(line)
    try:
        row = json.loads(line)
        given = row.pop("sum", None)
    except (ValueError, AttributeError, TypeError):  # cut off, or no object at all
        row, given = None, None
    damaged = found and _short_hash(line[: found.start()]) != found[1].decode()
    if damaged or (given and not found):
        raise PSRError(f"{where}: changed after it was written; delete this line and run the same "
                       "command again: what it held is made again")  # fmt: skip
    return row


def _short_hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def _packed(raw: IO[bytes], path: Path | str) -> Any:
    if str(path).endswith(".gz"):
        return gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    return nullcontext(raw)


@overload
def read_jsonl(path: Path | str) -> list[dict[str, Any]]: ...
@overload
def read_jsonl(path: Path | str, cls: type[T]) -> list[T]: ...
def read_jsonl(path: Path | str, cls: type | None = None) -> list[Any]:
    """Read a JSONL file (`.gz` too) into records of `cls`, or into dictionaries without one.

    Raises PSRError naming file, line and field where a row is damaged or does not fit.
    """
    return list(iter_jsonl(path, cls))


def iter_jsonl(path: Path | str, cls: type | None = None) -> Iterator[Any]:
    """The rows of `read_jsonl` one at a time, for files that need not fit into memory."""
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        # Bytes are cut at b"\n" alone; a text's own line ends, such as U+2028, stay inside a row.
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse_row(line.decode("utf-8"), cls, f"{path}:{number}")
    except FileNotFoundError:
        raise PSRError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise PSRError(f"{path}: unreadable ({error}); delete it and rerun its stage") from None


class Rows:
    """The rows of a JSONL file, read one at a time each time they are looped over."""

    def __init__(self, path: Path | str, cls: type | None = None):
        self.path, self.cls = path, cls

    def __iter__(self) -> Iterator[Any]:
        return iter_jsonl(self.path, self.cls)

    def __len__(self) -> int:
        return sum(1 for _ in iter_jsonl(self.path))


def _parse_row(line: str, cls: type[T] | None, where: str) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PSRError(f"{where}: not valid JSON ({error.msg})") from None
    return row if cls is None else from_dict(cls, row, where)


def hash_text(text: str) -> str:
    """sha256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash_json(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    return hash_text(json.dumps(value, sort_keys=True, ensure_ascii=False))


def hash_file(path: Path | str) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seed_of(*parts: Any) -> int:
    """A 63-bit seed from any parts, the same on every machine and in every process.

    >>> seed_of(0, "tiny/easy/3", 2) == seed_of(0, "tiny/easy/3", 2)
    True
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
