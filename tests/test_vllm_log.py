"""What vLLM prints while it starts goes aside, and the cause of a failure is found in it."""

import logging
import os
import subprocess
import sys

import pytest

from psr_lib.engines import vllm_log


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    monkeypatch.delenv(vllm_log.LEVEL, raising=False)


def speak(word):
    """Print a word through Python's stream, through both descriptors and from a child."""
    print(f"{word} print")
    os.write(1, f"{word} out\n".encode())
    os.write(2, f"{word} err\n".encode())
    subprocess.run([sys.executable, "-c", f"print('{word} child')"], check=True)


def test_what_is_printed_within_goes_to_the_file_and_after_it_no_more(capfd):
    start = vllm_log.place()
    with vllm_log.aside():
        speak("within")
        late = logging.StreamHandler(sys.stdout)
    speak("after")
    late.stream.write("late log\n")
    said = capfd.readouterr()
    assert "within" not in said.out + said.err and "late" not in said.out
    assert sorted(said.out.splitlines()) == ["after child", "after out", "after print"]
    assert said.err == "after err\n"
    found = vllm_log.since(start).splitlines()
    assert set(found) == {"within print", "within out", "within err", "within child", "late log"}
    assert vllm_log.since(vllm_log.place()) == ""


def test_a_child_that_lives_on_keeps_to_the_file(capfd):
    start = vllm_log.place()
    with vllm_log.aside():
        child = subprocess.Popen([sys.executable, "-c", "input(); print('later')"],
                                 stdin=subprocess.PIPE, text=True)  # fmt: skip
    child.communicate("go\n", timeout=30)
    assert "later" not in capfd.readouterr().out and "later" in vllm_log.since(start)


def test_whoever_asks_for_vllms_log_sees_it(capfd, monkeypatch):
    monkeypatch.setenv(vllm_log.LEVEL, "DEBUG")
    with vllm_log.aside():
        speak("seen")
    assert capfd.readouterr().out.count("seen") == 3


def test_an_error_within_gives_the_streams_back(capfd):
    with pytest.raises(RuntimeError), vllm_log.aside():
        raise RuntimeError
    speak("back")
    said = capfd.readouterr()
    assert (said.out.count("back"), said.err) == (3, "back err\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("Engine core initialization failed. See root cause above.",
         "ValueError: 0.3 GiB KV cache is needed, which is larger"),
        ("its process died", "ValueError: 0.3 GiB KV cache is needed, which is larger"),
        ("no such model", "no such model"), ("", "RuntimeError"),
    ],
)  # fmt: skip
def test_the_cause_is_looked_for_where_the_error_says_only_where(error, reason):
    start = vllm_log.place()
    with vllm_log.aside():
        print("(EngineCore pid=7) ERROR 11-23 [core.py:1] ValueError: 0.3 GiB KV cache is needed, "
              "which is larger\nRuntimeError: Engine core initialization failed. See root cause "
              "above.")  # fmt: skip
    assert vllm_log.reason(RuntimeError(error), start) == reason
    assert vllm_log.reason(RuntimeError(error), vllm_log.place()) == (error or "RuntimeError")
