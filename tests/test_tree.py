"""Tree search on hand-made trees: known best paths, numbers against a literal search, pairs."""

import json
from collections import Counter
from math import log, prod, sqrt
from types import SimpleNamespace

import pytest
from scripted import Scripted, questions

from psr_lib import prompts
from psr_lib.journal import Journal, search_into
from psr_lib.records import PSRError, seed_of
from psr_lib.tree import Node, Tree, sibling_pairs, tree_stream, uct

FAMILY = prompts.load("compact")
WORDS = ("left", "middle", "right")
BEST = ("right", "left", "middle")  # the one path that the PRM likes at every step
DEPTH = len(BEST)


def settings(**changes):
    """A preset's `tree` block."""
    values = {"iterations": 100, "simulation_depth": 3, "width": 6, "temperature": 0.7,
              "top_p": 0.95, "exploration": sqrt(2), "value": "min", "max_steps": 20,
              "max_step_tokens": 96, "live": 99}  # fmt: skip
    return SimpleNamespace(**(values | changes))


class TablePRM:
    """Scores steps from a function of (question, words of the steps so far)."""

    def __init__(self, table):
        self.table, self.calls, self.asked = table, 0, []

    def score(self, asked):
        """p(+) of the last step of each."""
        self.calls += bool(asked)
        self.asked += asked
        return [self.table(question, [word_of(s) for s in steps]) for question, steps in asked]


def word_of(step):
    """`left` of `Step 2: left. ...`."""
    return step.split(": ")[1].split(".")[0]


def walk(prompt, seed, k):
    """Six samples hold every word; the third step ends the solution."""
    depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
    word = WORDS[(seed_of(prompt, seed) + k) % len(WORDS)]
    box = f" \\boxed{{{word}}}" if depth == DEPTH else ""
    return f"Step {depth}: {word}.{box}", "stop"


def liking(question, words):
    """0.9 along the best path, below it less and less; three decimals, as a tree holds p(+)."""
    good = sum(a == b for a, b in zip(words, BEST, strict=False))
    return 0.9 if good == len(words) else round(0.5 * good / len(words) + 0.02 * len(words[-1]), 3)


def test_a_tree_does_not_tell_scores_that_the_batch_decides():
    def unsteady(question, words):
        return liking(question, words) + 1e-7 * len(words[-1])

    asked = questions(3)
    plain = grow(asked, iterations=20)[0]
    assert [t.to_row() for t in grow(asked, table=unsteady, iterations=20)[0]] == [
        t.to_row() for t in plain
    ]


def grow(asked, script=walk, table=liking, seed=3, **changes):
    """The trees of these questions, in order."""
    engine, prm = Scripted(script), TablePRM(table)
    found = dict(
        tree_stream(engine, prm, FAMILY, None, enumerate(asked), settings(**changes), seed)
    )
    return [found[k] for k in range(len(asked))], engine, prm


def favourite(tree):
    """The words on the most visited way down."""
    place, words = 0, []
    while tree.nodes[place].children:
        place = max(tree.nodes[place].children, key=lambda k: tree.nodes[k].visits)
        words.append(word_of(tree.nodes[place].text))
    return tuple(words)


# --- the search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["min", "product", "mean", "last"])
def test_the_known_best_path_is_the_most_visited(value):
    trees, _, _ = grow(questions(12), value=value)
    assert [favourite(tree) for tree in trees] == [BEST] * 12
    assert all(tree.nodes[0].visits == tree.iterations == 100 for tree in trees)


def test_without_scores_the_most_visited_path_is_any():
    trees, _, _ = grow(questions(12), table=lambda question, words: 0.5)
    assert len({favourite(tree) for tree in trees}) > 3


def literal(question, seed, iterations, depth, width, c, value):
    """One search by the book: a dictionary of paths, one iteration after the other."""
    visits, total, children, order = Counter(), Counter(), {}, {(): 0}

    def sample(path, leaf, use, k, steps):
        prompt = FAMILY.solve(question.text, steps)
        text, _ = walk(prompt.user + prompt.assistant, seed_of(seed, use, question.id, leaf,
                                                               len(steps)), k)  # fmt: skip
        return text

    for _ in range(iterations):
        path = ()
        while children.get(path):
            path = max(
                children[path],
                key=lambda p: total[p] / visits[p] + c * sqrt(log(visits[p[:-1]]) / visits[p])
                if visits[p] else float("inf"),
            )  # fmt: skip
        steps = list(path)
        if len(path) < DEPTH:
            leaf = order[path]
            drawn = [sample(path, leaf, "expand", k, steps) for k in range(width)]
            children[path] = [(*path, text) for text in dict.fromkeys(drawn)]
            for child in children[path]:
                order[child] = len(order)
            path = children[path][0]
            steps = list(path)
            while len(steps) < DEPTH and len(steps) < len(path) + depth:
                steps.append(sample(path, leaf, "roll", 0, steps))
        scores = [liking("", [word_of(s) for s in steps[: k + 1]]) for k in range(len(steps))]
        while True:
            visits[path] += 1
            total[path] += value(scores)
            if not path:
                break
            path = path[:-1]
    return visits, total


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize(("name", "value"), [("min", min), ("product", prod)])
@pytest.mark.parametrize("c", [0.0, 0.3, sqrt(2)])
def test_visits_and_values_are_those_of_a_search_by_the_book(depth, name, value, c):
    asked = questions(4)
    trees, _, _ = grow(asked, simulation_depth=depth, value=name, exploration=c, iterations=60)
    for question, tree in zip(asked, trees, strict=True):
        visits, total = literal(question, 3, 60, depth, 6, c, value)
        found = {tuple(tree.steps(k)): node for k, node in enumerate(tree.nodes)}
        assert {path: node.visits for path, node in found.items() if node.visits} == dict(visits)
        for path, node in found.items():
            assert node.total == pytest.approx(total[path])


def test_uct_is_the_formula_and_unvisited_nodes_come_first():
    node = Node(visits=4, total=2.0)
    assert uct(node, 10, 0.5) == pytest.approx(0.5 + 0.5 * sqrt(log(10) / 4))
    assert uct(Node(), 10, 0.0) > uct(node, 10, 100.0)


def test_every_iteration_is_one_call_for_all_problems():
    trees, engine, prm = grow(questions(30), iterations=20)
    assert engine.batches <= 20 * (1 + 3) and prm.calls <= 20
    assert sum(tree.counts["expansions"] for tree in trees) > 5 * engine.batches / 4


def test_no_result_depends_on_how_many_trees_are_open():
    asked = questions(15)
    rows = [[tree.to_row() for tree in grow(asked, live=live, iterations=30)[0]]
            for live in (1, 4, 99)]  # fmt: skip
    assert rows[0] == rows[1] == rows[2]


def test_another_seed_gives_another_tree():
    one, two = (grow(questions(1), seed=seed, iterations=8)[0][0].to_row() for seed in (1, 2))
    assert one != two


def test_a_rollout_is_as_deep_as_asked_and_ends_with_the_solution():
    def endless(prompt, seed, k):
        depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
        return f"Step {depth}: left.", "stop"

    for depth in (0, 2, 5):
        trees, _, prm = grow(questions(1), endless, iterations=1, simulation_depth=depth)
        assert trees[0].counts["rolled"] == depth
        assert max(len(steps) for _, steps in prm.asked) == 1 + depth
    trees, _, prm = grow(questions(1), iterations=1, simulation_depth=9)
    assert max(len(steps) for _, steps in prm.asked) == DEPTH


def test_equal_samples_are_one_child_and_are_counted():
    tree = grow(questions(1), iterations=1)[0][0]
    children = [tree.nodes[k] for k in tree.nodes[0].children]
    assert sum(node.copies for node in children) == 6 == tree.counts["candidates"]
    assert len({node.text for node in children}) == len(children) == tree.counts["distinct"] <= 3


# --- what can go wrong --------------------------------------------------------------------------


def test_ill_formed_samples_never_become_nodes_and_dead_ends_are_worth_nothing():
    def broken(prompt, seed, k):
        depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
        if "right" in prompt.split("Solution:\n")[1]:
            return ["Step 9: ahead.", "no mark", "Step 2: long"][k % 3], ("length" if k % 3 == 2
                                                                         else "stop")  # fmt: skip
        return walk(prompt, seed, k) if depth < 3 else ("Step 3: left. \\boxed{1}", "stop")

    tree = grow(questions(1), broken, lambda question, words: 0.9, iterations=40)[0][0]
    dead = [k for k, node in enumerate(tree.nodes) if node.dead]
    assert dead and all("right" in tree.nodes[k].text for k in dead)
    assert all(tree.nodes[k].text.startswith("Step") for k in range(1, len(tree.nodes)))
    assert all(not tree.nodes[k].children for k in dead)
    # Every visit of a dead node but the simulation that may have begun in it is worth nothing.
    assert all(tree.nodes[k].total <= 0.9 for k in dead)
    assert tree.counts["ill_formed"] > 0


def test_a_question_that_nothing_can_continue_ends_with_a_bare_root():
    trees, engine, _ = grow(questions(2), lambda *a: ("", "overflow"), iterations=50)
    assert all(len(tree.nodes) == 1 and tree.nodes[0].dead for tree in trees)
    assert all(tree.iterations == 50 and tree.nodes[0].total == 0 for tree in trees)
    assert engine.batches == 1  # a dead root is not asked again


def test_steps_that_the_prm_cannot_read_are_left_out():
    def short(question, words):
        return None if words[-1] == "left" else liking(question, words)

    tree = grow(questions(1), table=short, iterations=30)[0][0]
    assert all(word_of(node.text) != "left" for node in tree.nodes[1:])
    assert tree.counts["unscored"] > 0 and tree.nodes[0].visits == 30


def test_depth_is_limited():
    def endless(prompt, seed, k):
        depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
        return f"Step {depth}: {WORDS[k % 3]}.", "stop"

    tree = grow(questions(1), endless, lambda q, words: 0.5, max_steps=4, iterations=400)[0][0]
    deepest = max(len(tree.steps(k)) for k in range(len(tree.nodes)))
    assert deepest == 4 and tree.iterations == 400


def test_a_broken_engine_is_one_line_and_the_next_call_goes_on(tmp_path):
    asked, whole = questions(9), [t.to_row() for t in grow(questions(9), live=3, iterations=5)[0]]

    class Breaking(Scripted):
        def sample(self, prompts, **how):
            if self.batches == 25:
                raise RuntimeError("out of memory\nsomewhere")
            return super().sample(prompts, **how)

    def fill(engine):
        journal = Journal(tmp_path / "trees", "one")
        how = settings(live=3, iterations=5)
        prm = TablePRM(liking)
        try:
            search_into(journal, asked, lambda left: tree_stream(
                engine, prm, FAMILY, None, left, how, 3))  # fmt: skip
            return list(journal.rows()), prm
        finally:
            journal.close()

    with pytest.raises(PSRError, match="searching the tree: RuntimeError: out of memory") as caught:
        fill(Breaking(walk))
    assert "6 of 9 searches are kept" in str(caught.value) and "\n" not in str(caught.value)
    rows, prm = fill(Scripted(walk))
    assert rows == whole
    assert {q.text for q in asked[6:]} == {question for question, _ in prm.asked}


def test_a_tree_comes_back_from_its_row():
    tree = grow(questions(1), iterations=20)[0][0]
    again = Tree.from_row(json.loads(json.dumps(tree.to_row())))
    assert again == tree and sibling_pairs(again) == sibling_pairs(tree)


# --- pairs --------------------------------------------------------------------------------------


def by_hand(*scores, texts=None):
    """A root with children of these scores, the second of which has two children of its own."""
    tree = Tree(questions(1)[0])
    for k, p in enumerate(scores):
        tree.nodes.append(Node(f"Step 1: {k}.", 0, p, final=k == 0))
        tree.nodes[0].children.append(k + 1)
    for p in (0.2, 0.7):
        tree.nodes.append(Node(f"Step 2: {p}.", 2, p))
        tree.nodes[2].children.append(len(tree.nodes) - 1)
    return tree


def test_best_and_worst_siblings_become_a_pair():
    pairs = sibling_pairs(by_hand(0.4, 0.9, 0.1, 0.5))
    assert [(p.chosen, p.rejected, p.prefix) for p in pairs] == [
        ("Step 1: 1.", "Step 1: 2.", []),
        ("Step 2: 0.7.", "Step 2: 0.2.", ["Step 1: 1."]),
    ]
    assert [(p.meta["p_chosen"], p.meta["p_rejected"]) for p in pairs] == [(0.9, 0.1), (0.7, 0.2)]
    assert pairs[0].id != pairs[1].id and pairs[0].meta["siblings"] == 4
    final = sibling_pairs(by_hand(0.95, 0.9))[0]
    assert final.chosen_final and not final.rejected_final


def test_a_pair_is_worth_what_its_solutions_are():
    """After a step of 0.3 the value of neither sibling is above 0.3 under `min`."""
    tree = by_hand(0.2, 0.3)
    pairs = {value: sibling_pairs(tree, value) for value in ("min", "last", "product")}
    values = {value: [(p.meta["v_chosen"], p.meta["v_rejected"]) for p in found]
              for value, found in pairs.items()}  # fmt: skip
    assert values["min"] == [(0.3, 0.2), (0.3, 0.2)]
    assert values["last"] == [(0.3, 0.2), (0.7, 0.2)]
    assert values["product"][1] == pytest.approx((0.21, 0.06))


def test_siblings_that_the_prm_cannot_tell_apart_are_no_pair():
    assert [p.prefix for p in sibling_pairs(by_hand(0.5, 0.5, 0.5))] == [["Step 1: 1."]]
    lonely = Tree(questions(1)[0])
    lonely.grow(0, [])
    assert lonely.nodes[0].dead and sibling_pairs(lonely) == []


def test_pairs_of_a_search_hold_its_highest_and_lowest_scores():
    for tree in grow(questions(8))[0]:
        pairs = {pair.id: pair for pair in sibling_pairs(tree)}
        for place, node in enumerate(tree.nodes):
            scores = [tree.nodes[k].p for k in node.children]
            if len(set(scores)) > 1:
                pair = pairs.pop(f"{tree.question.id}@{place}")
                assert (pair.meta["p_chosen"], pair.meta["p_rejected"]) == (
                    max(scores),
                    min(scores),
                )
        assert not pairs
