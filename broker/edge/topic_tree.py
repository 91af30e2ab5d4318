"""A tree of topic levels: which subscriptions a topic matches, and which topics a filter matches."""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[object, T] = {}


class TopicTree(Generic[T]):
    """Values by a path of topic levels, each under a key of its own."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, path: str, key: object, value: T) -> None:
        """Set the value of `key` at `path`."""
        node = self._root
        for level in path.split("/"):
            found = node.children.get(level)
            if found is None:
                found = node.children[level] = _Node()
            node = found
        self._size += key not in node.values
        node.values[key] = value

    def remove(self, path: str, key: object) -> T | None:
        """Remove and return the value of `key` at `path`; branches that are empty then go too."""
        trail: list[tuple[_Node[T], str]] = []
        node = self._root
        for level in path.split("/"):
            found = node.children.get(level)
            if found is None:
                return None
            trail.append((node, level))
            node = found
        if key not in node.values:
            return None
        value = node.values.pop(key)
        self._size -= 1
        while trail and not node.values and not node.children:
            node, level = trail.pop()
            del node.children[level]
        return value

    def values(self) -> Iterator[T]:
        """Yield all values."""
        pending = [self._root]
        while pending:
            node = pending.pop()
            yield from node.values.values()
            pending.extend(node.children.values())

    def matching(self, topic: str) -> list[T]:
        """Return the values at all filters that match this topic (section 4.7)."""
        levels = topic.split("/")
        found: list[T] = []
        nodes = [self._root]
        for depth, level in enumerate(levels):
            below: list[_Node[T]] = []
            wild = depth > 0 or not level.startswith("$")  # 4.7.2-1
            for node in nodes:
                children = node.children
                if not children:
                    continue
                if level in children:
                    below.append(children[level])
                if wild:
                    if "+" in children:
                        below.append(children["+"])
                    if "#" in children:
                        found.extend(children["#"].values.values())
            nodes = below
        for node in nodes:
            found.extend(node.values.values())
            if "#" in node.children:  # `a/#` matches `a` too (4.7.1.2)
                found.extend(node.children["#"].values.values())
        return found

    def matched_by(self, pattern: str) -> Iterator[T]:
        """Yield the values at all topics that this filter matches."""
        levels = pattern.split("/")
        pending: list[tuple[_Node[T], int]] = [(self._root, 0)]
        while pending:
            node, depth = pending.pop()
            if depth == len(levels):
                yield from node.values.values()
                continue
            level = levels[depth]
            if level == "#":
                yield from node.values.values()
            if level in {"#", "+"}:
                below = depth if level == "#" else depth + 1
                pending.extend(
                    (child, below)
                    for name, child in node.children.items()
                    if depth or node is not self._root or not name.startswith("$")
                )
            elif level in node.children:
                pending.append((node.children[level], depth + 1))
