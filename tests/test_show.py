"""What is drawn of searches, verdicts, solutions and tokens: nothing lost, nothing unescaped."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from scripted import Scripted, judge_settings, questions, random_script, search_settings
from test_rounds import FIRST, JUNK, LAST, SIGN, SLIP, TEXT, candidate, expansion, pair
from tiny_model import eft, make_tiny_model, step_pair

from psr_lib import log_ratios, manifest, prompts, show, show_tree, token_rows
from psr_lib.judge import Judge
from psr_lib.lab_pairs import PairRow
from psr_lib.mcts import TreeSearch
from psr_lib.models import load_model
from psr_lib.records import Problem, PSRError, Question
from psr_lib.robins import RoundRobin, Verdict
from psr_lib.scoring import Scored
from psr_lib.search import Search
from psr_lib.solution_traces import Solution, SolutionTrace
from psr_lib.traces import SearchTrace

COMPACT = prompts.load("compact")
EVIL = '</bdi><script>alert(1)</script>"><img src=x onerror=y> $x$ \x1b[31m\u202e'
ALLOWED = {"b", "bdi", "br", "del", "details", "div", "ins", "li", "pre", "span", "summary",
           "table", "tbody", "td", "th", "thead", "tr", "ul"}  # fmt: skip

BLOCKS = {"br", "details", "div", "li", "summary", "table", "td", "th", "tr"}


class Page(HTMLParser):
    """The elements, attributes and text of a display; an element that is not closed is an error."""

    def __init__(self, view):
        super().__init__()
        self.open, self.names, self.attributes, self.said = [], set(), set(), []
        self.feed(view._repr_html_())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.said.append(" " if tag in BLOCKS else "")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)

    @property
    def text(self):
        """What is left where every style is dropped."""
        return " ".join("".join(self.said).split())


def search_of(table, kind=Search, **changes):
    """A finished search by a script with its own share of ties, malformed steps and overflows."""
    engine = Scripted(random_script(table))
    judge = Judge(engine, COMPACT, None, judge_settings(), seed=table)
    run = kind(engine, COMPACT, None, search_settings(**changes), judge, table, False, 64)
    (question,) = questions(1, table)
    ((_, trace),) = run.stream([(0, question)])
    return trace


def all_visits(visits):
    below = [v for visit in visits for some in visit.below.values() for v in all_visits(some)]
    return [*visits, *below]


@pytest.mark.parametrize("kind", [Search, TreeSearch])
def test_every_visit_has_one_place_below_the_step_it_goes_on_from(kind):
    sizes = []
    for table in range(40):
        trace = search_of(table, kind)
        roots = show_tree.grow(trace)
        found = sorted(all_visits(roots), key=lambda visit: visit.number)
        assert [visit.expansion for visit in found] == trace.expansions
        for visit in found:
            for text, below in visit.below.items():
                assert all(b.expansion.prefix == [*visit.expansion.prefix, text] for b in below)
        assert all(not visit.expansion.prefix for visit in roots)
        sizes.append((len(found), sum(v.expansion.rolled_back for v in found)))
    assert max(sizes)[0] > 9 and (kind is TreeSearch or sum(back for _, back in sizes) > 5)


@pytest.mark.parametrize("kind", [Search, TreeSearch])
def test_the_path_and_the_pairs_are_those_of_the_search(kind):
    lengths = set()
    for table in range(40):
        trace = search_of(table, kind)
        visits = sorted(all_visits(show_tree.grow(trace)), key=lambda visit: visit.number)
        leaves = [leaf for v in visits if v.on_path for leaf in show_tree.leaves(v, "no oracle")]
        kept = [leaf.text for leaf in leaves if leaf.fate == "kept"]
        assert sorted(kept) == sorted(trace.path)
        assert sum(visit.paired for visit in visits) == len(trace.pairs)
        lengths.add(len(kept))
    assert len(lengths) > 3


def test_a_rolled_back_step_stands_beside_its_second_attempt():
    first = expansion([candidate(FIRST), candidate(SLIP)], {(0, 1): "A"}, chosen=0, rejected=1,
                      outcome="kept")  # fmt: skip
    tie = expansion([candidate(LAST)] * 2, {}, [FIRST], outcome="tie", tie=True, rolled_back=True)
    again = expansion([candidate(SIGN), candidate(FIRST)], {(1, 0): "A"}, chosen=1, rejected=0,
                      outcome="kept")  # fmt: skip
    again.attempt = 1
    trace = SearchTrace(Question(id="q/0", text=TEXT), path=[FIRST], status="cap",
                        expansions=[first, tie, again], pairs=[pair(FIRST, SIGN)])  # fmt: skip
    trace.pairs[0] = step_pair(0, id="q/0#1.1")
    page, plain = Page(show.search(trace)), repr(show.search(trace))
    assert plain.index("all equal: rolled back, step 1") < plain.index("step 1, attempt 2")
    assert "best kept, but dropped by a later tie" in page.text
    assert page.text.count("a pair for training") == 1
    assert page.text.count("dropped later ✓ right") == page.text.count("kept ✓ right") == 1
    assert "out of visits, 3 visits, 1 tie, 1 roll-back, 1 pair" in page.text
    dropped, path = re.findall(r"<details( open=\"open\")?><summary><b>Visit [13]", html(trace))
    assert not dropped and path, "what a tie dropped is folded"


def html(trace):
    return show.search(trace)._repr_html_()


def matrix_of(verdicts, scores):
    seen = [candidate(JUNK, valid=False), *map(candidate, (FIRST, SIGN, SIGN))]
    e = expansion(seen, {})
    e.robin = RoundRobin(scores, {k: Verdict(v, f"said {k}") for k, v in verdicts.items()}, 6, 6)
    return SearchTrace(Question(id="q/0", text=TEXT), expansions=[e])


def test_the_matrix_counts_valid_candidates_and_marks_order_and_error():
    verdicts = {(0, 1): "B", (1, 0): "B", (1, 1): None}
    page = Page(show.judge(matrix_of(verdicts, (4, 1, 1))))
    assert "1 ✓ right Step 1" in page.text and "2 × 2 ✗ wrong Step 1" in page.text
    rows = re.search(r"wins, each copy(.*?)A: the row's", page.text)[1].replace(" ", "")
    assert rows == "1–B≠✗42B≠?1"
    assert page.text.index("said (0, 1)") < page.text.index("said (1, 0)")
    lines = repr(show.judge(matrix_of(verdicts, (4, 1, 1)))).split("\n")
    assert "A is 1, B is 2: B ≠✗: said (0, 1)" in lines


def test_copies_of_a_sampled_judge_stand_apart():
    verdicts = {(0, 1): "A", (1, 0): "B", (0, 2): "B", (1, 2): "A"}
    page = Page(show.judge(matrix_of(verdicts, (1, 1, 0)))).text
    rows = re.search(r"wins, each copy(.*?)A: the row's", page)[1].replace(" ", "")
    assert rows == "1–AB✗12B–A13–––0" and page.count("Step 1: Tom buys 38") == 3
    e = expansion([candidate(FIRST), candidate(FIRST), candidate(FIRST), candidate(SIGN)], {},
                  chosen=1, rejected=2, outcome="kept")  # fmt: skip
    e.scores = [1, 3, 0, 1]
    after = expansion([candidate(LAST)] * 2, {}, [FIRST], outcome="tie", tie=True)
    trace = SearchTrace(Question(id="q", text=TEXT), path=[FIRST], expansions=[e, after])
    told = [(leaf.wins, leaf.copies, leaf.fate) for leaf in
            show_tree.leaves(show_tree.grow(trace)[0], TEXT)]  # fmt: skip
    assert told == [(1, 1, ""), (0, 1, "rejected"), (1, 1, ""), (3, 1, "kept")]
    assert repr(show.search(trace)).count("Visit 2") == 1


def test_a_search_without_verdicts_says_so_and_a_missing_visit_is_an_error():
    trace = matrix_of({}, (0, 0, 0))
    assert "asked for no verdict" in repr(show.judge(trace))
    with pytest.raises(PSRError, match="visit 2: q/0 has 1 to 1"):
        show.judge(matrix_of({(0, 1): "A"}, (1, 0, 0)), 2)


def test_the_visit_shown_has_right_and_wrong_steps_where_one_has():
    many = {(0, 1): "B", (1, 0): "B", (0, 2): "B", (2, 0): "B"}
    wrong = expansion([candidate(SIGN), candidate(SLIP), candidate(SIGN.replace("75", "7"))], many)
    mixed = expansion([candidate(FIRST), candidate(SIGN)], {(0, 1): "A", (1, 0): "B"})
    silent = expansion([candidate(FIRST), candidate(SIGN)], {})
    trace = SearchTrace(Question(id="q/0", text=TEXT), expansions=[wrong, silent, mixed])
    assert repr(show.judge(trace)).startswith("Step 1, visit 3 of the search: 2 verdicts")
    trace = SearchTrace(Question(id="q/0", text="What is 2 + 2?"), expansions=[mixed, wrong])
    assert repr(show.judge(trace)).startswith("Step 1, visit 2"), "without an oracle the most"


def test_steps_are_marked_by_the_oracle_where_there_is_one():
    view = show.solution(TEXT, f"{FIRST}\n{LAST.replace('80', '70')}", gold="80")
    assert "✓ right" in Page(view).text and "✗ wrong" in Page(view).text
    assert Page(view).text.endswith("answer 70; gold 80")
    unknown = Page(show.solution("What is 2 + 2?", f"{FIRST}\n{LAST}")).text
    assert "right" not in unknown and "wrong" not in unknown
    for broken in ("Tom has 5 pens.", "Tom has some pens. Then Tom has 2 times as many pens. Now "
                   "Tom has 8 pens. How many pens did Tom have at first?", ""):  # fmt: skip
        assert "wrong" not in Page(show.solution(broken, FIRST)).text


def test_a_searched_path_shows_the_share_of_wins_of_each_step():
    first = expansion([candidate(SIGN), candidate(FIRST), candidate(SLIP)], {}, chosen=1)
    first.scores = [2, 1, 0]  # by the latest visit; an earlier one of the same prefix is left out
    last = expansion([candidate(LAST), candidate(LAST)], {}, [FIRST], chosen=0)
    last.scores = [1, 1]
    dropped = expansion([candidate(FIRST)] * 3, {}, chosen=0)
    trace = SearchTrace(Question(id="q", text=TEXT), path=[FIRST, LAST],
                        expansions=[dropped, first, last])  # fmt: skip
    assert re.findall(r"\d+%", Page(show.path(trace)).text) == ["50%", "100%"]
    halves = Page(show.path(trace, "both_slots")).text  # two wins of each opponent
    assert re.findall(r"\d+%", halves) == ["25%", "50%"]


def test_the_solution_that_was_chosen_is_shown_where_whole_ones_are_searched():
    trace = solution_trace(f"{FIRST}\n{LAST}")
    page = Page(show.path(trace)).text
    assert "%" not in page and "answer 80" in page
    trace.chosen = None
    assert "no solution was chosen" in Page(show.path(trace)).text


def test_answers_are_compared_word_by_word_with_the_model_before():
    texts = {"M1": f"{SIGN}\n{LAST}", "M2": f"{FIRST}\n{LAST}", "M3": f"{FIRST}\n{LAST}"}
    drawn = show.answers(TEXT, texts)._repr_html_()
    marks = {name: re.findall(rf"<{name}[^>]*>(.*?)</{name}>", drawn) for name in ("del", "ins")}
    assert marks == {"del": ["75"], "ins": ["85"]}
    plain = repr(show.answers(TEXT, texts))
    assert plain.count("✗ wrong") == 2, "the slip, and the step that goes on from another value"


ROWS = {"M1": [("p/0", True), ("p/1", False), ("p/2", False)],
        "M2": [("p/2", True), ("p/1", False), ("p/0", False)]}  # fmt: skip


def test_the_problem_shown_is_one_that_turned():
    ways = {m: [{"problem_id": i, "strict": s, "text": f"{m} {i}"} for i, s in rows]
            for m, rows in ROWS.items()}  # fmt: skip
    sets = {"easy": [Problem(id="p/2", source="", question=TEXT, answer="80")]}
    gained = repr(show.differing(sets, ways))
    assert gained.startswith(TEXT) and "M1 p/2" in gained and "M2 p/2" in gained and "80" in gained
    assert "M1 p/0" in repr(show.differing(sets, ways, first="right"))
    assert repr(show.differing({}, ways)).startswith("p/2")
    assert "no problem was answered" in repr(show.differing({}, {}))


def solution_trace(text):
    trace = SolutionTrace(Question(id="q", text=text), [Solution(text, True, "eos", 3)] * 2)
    trace.scored, trace.chosen, trace.rejected = {text: Scored((4.0,), (text,))}, 0, 1
    return trace


def evil_search():
    """A search, and its judge, whose every text is an attack."""
    e = expansion([candidate(EVIL), candidate(EVIL + "2")], {}, chosen=0, rejected=1)
    e.robin = RoundRobin((1, 0), {(0, 1): Verdict("A", EVIL)}, 2, 2)
    e.scores = [1, 0]
    return SearchTrace(Question(id=EVIL, text=EVIL), path=[EVIL], expansions=[e], rest=EVIL)


def evil_views(tokenizer):
    row = token_rows.StepRow("r", [1], [2, 3], [4])
    told = {"better": "A", "verdict": "B", "correct": False, "explanation": EVIL}
    asked = eft(0).__class__(**vars(eft(0)) | {"question": EVIL, "prefix": [EVIL], "step_a": EVIL})
    both = PairRow(id="", problem_id="", source=EVIL, a=EVIL, b="", better=None, forward=None,
                   swapped="A")  # fmt: skip
    return {
        "search": show.search(evil_search()), "judge": show.judge(evil_search()),
        "path": show.path(evil_search()), "solution": show.solution(EVIL, EVIL, gold=EVIL),
        "answers": show.answers(EVIL, {EVIL: EVIL, "other": "x"}), "orders": show.both_orders(both),
        "pair": show.pair(step_pair(1, question=EVIL, chosen=EVIL, prefix=[EVIL])),
        "verdict": show.verdict(asked, told), "tokens": show.tokens(tokenizer, row),
        "srlm": show.search(solution_trace(EVIL)), "points": show.judge(solution_trace(EVIL)),
    }  # fmt: skip


EVIL_TOKENS = SimpleNamespace(decode=lambda ids: EVIL)


@pytest.mark.parametrize("name", evil_views(EVIL_TOKENS))
def test_a_models_text_stays_text(name):
    view = evil_views(EVIL_TOKENS)[name]
    page = Page(view)
    assert page.names <= ALLOWED and page.attributes <= {"style", "title", "class", "open"}
    for shown in (page.text, repr(view), view._repr_markdown_()):
        assert "<script>alert(1)</script>" in shown.replace(" ", "")
        assert "\x1b" not in shown and "\u202e" not in shown
    assert 'class="tex2jax_ignore mathjax_ignore"' in view._repr_html_(), "$x$ is no formula"


def test_a_fence_cannot_be_closed_from_inside():
    view = show.solution("q", "Step 1: " + "~" * 30)
    assert view._repr_markdown_().count("~" * 8) == 2


def test_scored_tokens_are_told_apart_without_styles(tmp_path):
    _, tokenizer = make_tiny_model(tmp_path / "m")
    row = token_rows.step_row(tokenizer, COMPACT, step_pair(0))
    page = Page(show.tokens(tokenizer, row))
    assert "chosen [Step] [␣] [1] [:]" in page.text and "[⏎]" in page.text
    assert "[Tom]" not in page.text, "the context carries no loss"
    assert repr(show.tokens(tokenizer, row)).startswith("chosen: ")


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """Two models, a row, and its tokens' log-probabilities under both."""
    folder = tmp_path_factory.mktemp("models")
    new, tokenizer = make_tiny_model(folder / "new", 1)
    old, _ = make_tiny_model(folder / "old", 2)
    row = token_rows.step_row(tokenizer, COMPACT, step_pair(0))
    return SimpleNamespace(new=new, old=old, tokenizer=tokenizer, row=row,
                           logs=log_ratios.log_ratios(new, old, [row])[0])  # fmt: skip


def by_hand(folder, prompt, scored):
    """log p of each scored token, one forward pass a token."""
    model, found = load_model(folder, "float32", "cpu"), []
    for k, token in enumerate(scored):
        logits = model(torch.tensor([[*prompt, *scored[:k]]])).logits[0, -1]
        found.append(torch.log_softmax(logits, -1)[token].item())
    return found


def test_token_logs_are_those_of_the_scored_tokens(moved):
    for side in ("chosen", "rejected"):
        ids = getattr(moved.row, f"{side}_ids")
        for folder, found in ((moved.new, moved.logs[side].policy),
                              (moved.old, moved.logs[side].reference)):  # fmt: skip
            assert found == pytest.approx(by_hand(folder, moved.row.prompt_ids, ids), abs=1e-4)
    same = sum(a == b for a, b in zip(moved.row.chosen_ids, moved.row.rejected_ids, strict=False))
    begin = next(k for k, ids in enumerate(zip(moved.row.chosen_ids, moved.row.rejected_ids,
                 strict=False)) if ids[0] != ids[1])  # fmt: skip
    one, two = (moved.logs[side].ratios[:begin] for side in ("chosen", "rejected"))
    assert same > begin > 3 and one == pytest.approx(two, abs=1e-5), "what both begin with cancels"
    assert moved.logs["chosen"].ratios[begin] != pytest.approx(moved.logs["rejected"].ratios[begin])


def test_tokens_are_coloured_by_their_log_ratio(moved):
    view = show.tokens(moved.tokenizer, moved.row, moved.logs)
    ratios = [r for one in moved.logs.values() for r in one.ratios]
    grounds = re.findall(r"background-color:#(0072B2|E69F00)(\w\w);padding:1px", view._repr_html_())
    assert len(grounds) == len(ratios)
    for (colour, depth), ratio in zip(grounds, ratios, strict=True):
        if abs(ratio) >= 0.005:
            assert colour == ("0072B2" if ratio > 0 else "E69F00")
            assert int(depth, 16) == round(0xB0 * abs(ratio) / max(map(abs, ratios)))
    total = sum(moved.logs["chosen"].ratios)
    assert f"chosen moved by {total:+.2f} nats" in Page(view).text
    assert f"chosen ({total:+.2f} nats):" in repr(view)


def test_large_models_are_not_loaded_for_a_display(moved, monkeypatch):
    rows, folders = [moved.row], (moved.new, moved.old)
    assert "moved by" in repr(show.moved(moved.tokenizer, rows, *folders)[0]._repr_html_())
    monkeypatch.setattr(log_ratios, "LARGEST", 1)
    (said,) = show.moved(moved.tokenizer, rows, *folders)
    assert "too large" in repr(said)


def test_a_display_lets_models_run_code_of_their_own_where_it_is_told(moved, monkeypatch):
    given = []

    def load(folder, dtype, device, trust=False):
        given.append(trust)
        return load_model(folder, dtype, device)

    monkeypatch.setattr(log_ratios, "load_model", load)
    show.moved(moved.tokenizer, [moved.row], moved.new, moved.old, True)
    show.moved(moved.tokenizer, [moved.row], moved.new, moved.old)
    assert given == [True, True, False, False]


def test_displays_make_no_stage_stale():
    for path in sorted((manifest.root() / "notebooks").glob("*.ipynb")):
        files = manifest.code_hashes(path, manifest.root() / "psr_lib")
        assert not [name for name in files if "/show" in name or "/play" in name], path.name


def test_the_search_to_look_at_is_short_and_rolled_back():
    def one(pairs, visits, back=False, status="complete"):
        made = [expansion([candidate(str(k)) for k in range(n)], {}) for n in visits]
        made[0].rolled_back = back
        return SearchTrace(Question(id="q", text=""), status=status, expansions=made,
                           pairs=[pair(FIRST, SIGN)] * pairs)  # fmt: skip

    long, short, most = one(3, [1] * 9, back=True), one(1, [1] * 4, back=True), one(5, [1] * 5)
    empty = one(0, [1] * 3, back=True)
    assert show.telling([most, long, empty, short]) is short
    assert show.telling([empty, one(1, [1]), most]) is most
    dull, varied, cut = one(0, [1, 1]), one(0, [3, 2]), one(0, [6, 6], status="cap")
    assert show.telling([dull, cut, varied]) is varied
    assert show.telling([solution_trace("a"), solution_trace("b")]).question.text == "a"
