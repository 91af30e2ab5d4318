"""Topic names and topic filters: which are valid, and what they match (section 4.7)."""

_SHARE = "$share/"
_MAX_CHARACTERS = 1024  # the contract's topics have fewer than 200
_MAX_LEVELS = 200  # as in Mosquitto: each is a node of a tree


def is_topic_name(topic: str) -> bool:
    """Whether a message may be published on this topic (4.7.1-1, 4.7.3)."""
    return _is_short(topic) and "+" not in topic and "#" not in topic


def is_topic_filter(pattern: str) -> bool:
    """Whether one may subscribe to this, without a `$share` prefix (4.7.1)."""
    levels = pattern.split("/")
    return (
        _is_short(pattern)
        and "#" not in levels[:-1]
        and all(level in {"+", "#"} or not {"+", "#"} & {*level} for level in levels)
    )


def split_share(pattern: str) -> tuple[str | None, str]:
    """Return the share name, or None, and the topic filter (4.8.2).

    Raises:
        ValueError: it is no valid filter.
    """
    name, filter_ = None, pattern
    if pattern.startswith(_SHARE):
        name, _, filter_ = pattern.removeprefix(_SHARE).partition("/")
    if name == "" or not is_topic_filter(filter_) or (name is not None and {"+", "#"} & {*name}):
        raise ValueError(f"{pattern!r} is no topic filter")
    return name, filter_


def covers(right: str, pattern: str) -> bool:
    """Whether every topic that `pattern` matches is matched by the filter `right` too."""
    ours, theirs = right.split("/"), pattern.split("/")
    if theirs[0].startswith("$") != ours[0].startswith("$"):
        return False  # wildcards at the start do not match `$` topics (4.7.2-1)
    for position, level in enumerate(ours):
        if level == "#":
            return True
        if position == len(theirs):
            return False
        if theirs[position] == "#" or (level != "+" and level != theirs[position]):
            return False
    return len(ours) == len(theirs) or (len(ours) == len(theirs) + 1 and ours[-1] == "#")


def _is_short(text: str) -> bool:
    return 0 < len(text) <= _MAX_CHARACTERS and text.count("/") < _MAX_LEVELS
