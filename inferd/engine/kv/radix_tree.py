"""Radix tree over token ids: the owners of every prefix. Independent of memory."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

OwnerT = TypeVar("OwnerT", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Node(Generic[OwnerT]):
    """An edge and the point it leads to. The paths of `owners` run through the whole edge."""

    token_ids: tuple[int, ...]
    depth: int  # tokens from the root to the end of this edge
    parent: _Node[OwnerT] | None
    children: dict[int, _Node[OwnerT]] = field(default_factory=dict)
    owners: dict[OwnerT, None] = field(default_factory=dict)  # oldest first, so that searches are deterministic


class RadixTree(Generic[OwnerT]):
    """Tree with one path from the root for every owner. Look-up and insertion are linear in the length of the path."""

    def __init__(self) -> None:
        self._root: _Node[OwnerT] = _Node((), 0, None)
        self._ends: dict[OwnerT, _Node[OwnerT]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def __contains__(self, owner: OwnerT) -> bool:
        return owner in self._ends

    def insert(self, owner: OwnerT, token_ids: Sequence[int]) -> None:
        """Give the owner this path; if it has one already, that is a prefix of the new one."""
        token_ids = tuple(token_ids)
        known = self._ends.get(owner)
        assert known is None or known.depth <= len(token_ids), "a path only grows"
        node = self._root
        while node.depth < len(token_ids):
            node = self._descend(node, token_ids)
            node.owners[owner] = None
        assert known is None or known.depth == 0 or owner in known.owners, "a path only grows"
        self._ends[owner] = node

    def remove(self, owner: OwnerT) -> None:
        """Remove the owner's path, and every part of it that no other owner has."""
        node: _Node[OwnerT] | None = self._ends.pop(owner)
        while node is not None and node.parent is not None:
            node.owners.pop(owner, None)
            if not node.owners:
                assert not node.children, "an edge without owners leads nowhere"
                del node.parent.children[node.token_ids[0]]
            node = node.parent

    def matches(self, token_ids: Sequence[int]) -> Iterator[tuple[int, Collection[OwnerT]]]:
        """Return (length, owners) for each point of the longest known prefix of `token_ids`, the deepest first: the
        paths of these owners agree with it for at least `length` tokens. Lengths are positive and fall strictly. The
        tree must not change meanwhile."""
        token_ids = tuple(token_ids)
        found: list[tuple[int, Collection[OwnerT]]] = []
        node = self._root
        while node.depth < len(token_ids):
            child = node.children.get(token_ids[node.depth])
            if child is None:
                break
            num_common = common_prefix(child.token_ids, token_ids[node.depth : child.depth])
            found.append((node.depth + num_common, child.owners.keys()))
            if num_common < len(child.token_ids):
                break
            node = child
        return reversed(found)

    def beyond(self, owner: OwnerT) -> Iterator[OwnerT]:
        """Iterate over the other owners whose paths go through the end of this one's, or end there too."""
        return (other for other in self._ends[owner].owners if other is not owner)

    def check_integrity(self) -> None:
        """Assert that depths, parents and owners agree."""
        ends: dict[OwnerT, int] = {}
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            for first, child in node.children.items():
                assert child.token_ids[0] == first, "a child is found by its first token"
                assert child.parent is node, "parent and child disagree"
                assert child.depth == node.depth + len(child.token_ids), "depths add up"
                assert child.owners, "an edge has an owner"
                assert node is self._root or child.owners.keys() <= node.owners.keys(), "owners come through the parent"
                for owner in child.owners:
                    ends[owner] = max(ends.get(owner, 0), child.depth)
                nodes.append(child)
        for owner, end in self._ends.items():
            assert ends.pop(owner, 0) == end.depth, "an owner's path ends at its recorded depth"
        assert not ends, "an edge belongs to an owner that is gone"

    def _descend(self, node: _Node[OwnerT], token_ids: tuple[int, ...]) -> _Node[OwnerT]:
        """Return the child towards `token_ids`, made or split so that its whole edge agrees with them."""
        rest = token_ids[node.depth :]
        child = node.children.get(rest[0])
        if child is None:
            child = _Node(rest, len(token_ids), node)
            node.children[rest[0]] = child
            return child
        num_common = common_prefix(child.token_ids, rest)
        return child if num_common == len(child.token_ids) else self._split(child, num_common)

    @staticmethod
    def _split(child: _Node[OwnerT], at: int) -> _Node[OwnerT]:
        """Cut the child's edge, and return the new node at the cut. Ends stay valid: they point at the lower part."""
        parent = child.parent
        assert parent is not None, "the root has no edge"
        middle: _Node[OwnerT] = _Node(child.token_ids[:at], parent.depth + at, parent, owners=dict(child.owners))
        parent.children[middle.token_ids[0]] = middle
        child.token_ids = child.token_ids[at:]
        child.parent = middle
        middle.children[child.token_ids[0]] = child
        return middle


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Return the length of the longest common prefix; bisects, so that tuples are compared in C."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
