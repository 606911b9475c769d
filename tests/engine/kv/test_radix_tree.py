"""The radix tree against a dictionary of owners."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.kv.radix_tree import RadixTree, common_prefix

PATHS = st.lists(st.integers(0, 2), max_size=8).map(tuple)


def plain_common(a, b):
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


@given(PATHS, PATHS)
def test_common_prefix_is_the_plain_one(a, b):
    assert common_prefix(a, b) == plain_common(a, b)


def test_an_empty_tree_matches_nothing():
    assert list(RadixTree().matches((1, 2))) == []


def test_a_partly_matched_edge_counts_for_what_is_common():
    tree = RadixTree()
    tree.insert("a", (1, 2, 3, 4))
    assert list(tree.matches((1, 2, 9))) == [(2, frozenset("a"))]


def test_the_deepest_match_comes_first():
    tree = RadixTree()
    tree.insert("a", (1, 2))
    tree.insert("b", (1, 2, 3))
    assert list(tree.matches((1, 2, 3, 4))) == [(3, frozenset("b")), (2, frozenset("ab"))]


def test_a_path_that_another_one_contains_adds_nothing():
    tree = RadixTree()
    tree.insert("a", (1, 2))
    assert list(tree.beyond("a")) == []
    tree.insert("b", (1, 2, 3))
    assert list(tree.beyond("a")) == ["b"]
    assert list(tree.beyond("b")) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["insert", "grow", "remove"]), PATHS), max_size=40), PATHS)
def test_random_operations_agree_with_a_dictionary(operations, wanted):
    tree, paths = RadixTree(), {}
    for owner, operation, path in operations:
        if operation == "insert" and owner not in paths:
            paths[owner] = path
            tree.insert(owner, path)
        elif operation == "grow" and owner in paths:
            paths[owner] += path
            tree.insert(owner, paths[owner])
        elif operation == "remove" and owner in paths:
            del paths[owner]
            tree.remove(owner)
        tree.check_integrity()
        assert len(tree) == len(paths)
        best = max((plain_common(p, wanted) for p in paths.values()), default=0)
        found = list(tree.matches(wanted))
        assert (found[0][0] if found else 0) == best
        for length, owners in found:
            assert owners == {o for o, p in paths.items() if plain_common(p, wanted) >= length}
    for owner in paths:
        others = {o for o, p in paths.items() if o != owner and p[: len(paths[owner])] == paths[owner]}
        assert set(tree.beyond(owner)) == (others if paths[owner] else set())
