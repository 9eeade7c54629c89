"""The chat client: settings, faults of a server, errors of one line, nothing paid for twice."""

import threading

import pytest
from teacher_server import SECRET, TeacherServer, answer, connect, scripted, settings

from psr_lib import asking
from psr_lib.engines import chat
from psr_lib.engines.base import EngineError
from psr_lib.engines.chat import Chat, Reply
from psr_lib.paid import Paid
from psr_lib.records import PSRError

TURN = [{"role": "user", "content": "What is it?"}]
PASSING = [429, 500, 503, "drop", "hang", "cut", "half", "page", "nonsense", "empty", "null"]


@pytest.fixture
def server(monkeypatch):
    """A server that says one thing, and a key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with TeacherServer(scripted("It is so.")).running() as running:
        yield running


@pytest.fixture
def path(tmp_path):
    """Where the answers are kept."""
    return tmp_path / "paid/answers.jsonl"


def test_an_answer_and_what_it_cost(server, path):
    asked = connect(server, path)
    assert asked.ask(TURN) == Reply("It is so.", "", 3, 3, len("What is it?"))
    assert (asked.asked, asked.prompt_tokens, asked.tokens) == (1, 3, 3)
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_settings_reach_the_request(server, path):
    connect(server, path, temperature=0.2, limit="max_completion_tokens", max_tokens=9).ask(TURN)
    connect(server, path, max_tokens=0).ask(TURN)
    assert server.seen[0]["temperature"] == 0.2 and server.seen[0]["max_completion_tokens"] == 9
    assert set(server.seen[1]) == {"model", "messages"}


@pytest.mark.parametrize("fault", PASSING)
def test_every_passing_fault_is_tried_again(server, path, fault):
    server.hang, server.faults = 0.6, [fault] * 2
    asked = connect(server, path, timeout=0.3)
    assert asked.ask(TURN).text == "It is so."
    assert not server.faults and asked.asked == 1 and len(asked.paid) == 1


def test_tries_that_were_of_no_use_are_counted_as_they_are_paid_for(server, path):
    server.faults = ["empty", "empty"]
    assert connect(server, path).ask(TURN).prompt_tokens == 3 * 3


@pytest.mark.parametrize(
    ("fault", "words", "kept"),
    [
        ("empty", "empty", 1),
        ("null", "empty", 1),
        ("nonsense", "no chat completion", 0),
        ("half", "no JSON", 0),
        ("page", "no JSON", 0),
    ],
)
def test_an_answer_that_stays_odd_is_a_fault_and_is_kept_if_it_was_paid_for(
    server, path, fault, words, kept
):
    server.faults = [fault] * 3
    asked = connect(server, path, retries=2)
    assert asked.ask(TURN).fault == words and len(asked.paid) == kept
    assert bool(asked.ask(TURN).fault) is bool(kept)


def test_an_answer_cut_by_the_limit_is_not_paid_for_twice(server, path, monkeypatch):
    monkeypatch.setattr(server, "found", lambda path, body, fault: (200, answer("", 7, "length")))
    found = connect(server, path).ask(TURN)
    assert "cut by the limit" in found.fault and found.prompt_tokens == 7


@pytest.mark.parametrize(
    ("fault", "words"),
    [(429, "status 429"), (500, "status 500"), ("hang", "no answer in 0.2 s"), ("drop", "3 tries"),
     ("cut", "3 tries"), (401, "set OPENAI_API_KEY"), (402, "says 402"), (404, "says 404")],
)  # fmt: skip
def test_a_lasting_fault_is_one_line_without_the_key(server, path, fault, words):
    server.hang, server.faults, server.tells = 0.5, [fault] * 40, f"odd {SECRET}"
    asked = connect(server, path, retries=2, timeout=0.2 if fault == "hang" else 5.0)
    with pytest.raises(EngineError, match="teacher server") as caught:
        asked.ask(TURN)
    message = str(caught.value)
    assert words in message and "\n" not in message and SECRET not in message
    assert "engine." not in message and len(asked.paid) == 0


def test_a_refused_request_is_a_fault_of_its_own_and_asked_again_next_time(server, path):
    server.faults = [400]
    asked = connect(server, path)
    assert asked.ask(TURN).fault == "refused: out of luck" and len(server.seen) == 0
    assert asked.ask(TURN).text == "It is so."


@pytest.mark.parametrize("fault", [400, "empty", "page"])
def test_a_teacher_that_gives_nothing_of_use_is_asked_no_further(server, path, fault):
    server.faults, server.tells = [fault] * 500, "unsupported parameter: temperature"
    asked = connect(server, path, retries=0)
    with pytest.raises(EngineError, match=r"10 answers of no use in a row \(the last: "):
        for k in range(50):
            asked.ask([{"role": "user", "content": str(k)}])
    assert len(server.faults) == 500 - chat.HOPELESS


def test_nothing_is_paid_for_twice(server, path):
    one = connect(server, path).ask(TURN)
    again = connect(server, path)
    assert again.ask(TURN) == one == again.known(TURN) and len(server.seen) == 1
    assert again.asked == 0 and again.tokens == one.tokens and SECRET not in path.read_text()


def test_another_setting_attempt_or_prompt_is_another_answer(server, path):
    server.model = ""
    for changes in ({}, {"model": "other"}, {"max_tokens": 9}, {"temperature": 0.5}):
        connect(server, path, **changes).ask(TURN)
    connect(server, path).ask(TURN, attempt=2)
    connect(server, path).ask([{"role": "user", "content": "And this?"}])
    assert len(server.seen) == 6
    connect(server, path, retries=1, timeout=3.0, concurrency=1).ask(TURN)
    assert len(server.seen) == 6


def test_half_a_surrogate_can_be_written_down(server, path):
    server.script = scripted("odd \ud800 text")
    assert connect(server, path).ask(TURN).text == "odd ? text"
    assert connect(server, path).known(TURN).text == "odd ? text"


@pytest.mark.parametrize("url", ["ftp://somewhere", "http://me:word@there/v1"])
def test_an_odd_address_is_named(tmp_path, url):
    with pytest.raises(PSRError, match=r"teacher\.url"):
        Chat(settings(url), Paid(tmp_path / "x"))


# --- the file of answers


def test_a_line_that_a_kill_cut_off_costs_one_answer(path):
    paid = Paid(path)
    paid.add("a", {"text": "one\u2028line"})
    paid.add("b", {"text": "two"})
    path.write_bytes(path.read_bytes()[:-4])
    paid = Paid(path)
    assert paid.get("a") == {"text": "one\u2028line"} and paid.get("b") is None
    assert len(paid) == 1 == paid.unreadable
    paid.add("b", {"text": "again"})
    assert Paid(path).get("b") == {"text": "again"} and len(Paid(path)) == 2


def test_threads_and_two_owners_of_one_file_lose_no_answer(path):
    owners = Paid(path), Paid(path)
    threads = [threading.Thread(target=lambda k=k: owners[k % 2].add(str(k), "x" * 4000))
               for k in range(40)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Paid(path)
    assert len(found) == 40 and found.unreadable == 0
    assert len(owners[0]) == len(owners[1]) == 20


# --- before anything is asked


def test_a_dry_run_says_what_it_would_cost_and_asks_nothing(server, path, capsys):
    turns = [[{"role": "user", "content": "x" * 400}], TURN]
    asked = connect(server, path, model="o1", dry_run=True)
    with pytest.raises(PSRError, match=r"dry run: o1: 2 calls to make, 0 answers there; .* rule"):
        asking.announce(asked, turns)
    assert "US dollars at the price of" in capsys.readouterr().out and server.seen == []


def test_only_what_is_not_there_is_estimated_and_a_dry_run_goes_on_where_nothing_is(server, path):
    connect(server, path).ask(TURN)
    other = [{"role": "user", "content": "y" * 110}]
    asked = connect(server, path, dry_run=True)
    with pytest.raises(
        PSRError, match=r"1 calls to make, 1 answers there; about 30 tokens to read"
    ):
        asking.announce(asked, [TURN, other])
    asking.announce(asked, [TURN])
