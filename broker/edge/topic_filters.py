"""Topic names and topic filters: which are valid, and what they match (section 4.7)."""

_SHARE = "$share"
_MAX_BYTES = 65535


def is_topic_name(topic: str) -> bool:
    """Whether a message may be published on this topic (4.7.1-1, 4.7.3)."""
    return "+" not in topic and "#" not in topic and _is_text(topic)


def is_topic_filter(pattern: str) -> bool:
    """Whether one may subscribe to this, without a `$share` prefix (4.7.1)."""
    if not _is_text(pattern):
        return False
    *before, last = pattern.split("/")
    return (last == "#" or "#" not in last) and all(
        "#" not in level and (level == "+" or "+" not in level)
        for level in (*before, "" if last == "#" else last)
    )


def split_share(pattern: str) -> tuple[str | None, str]:
    """Return the share name, or None, and the topic filter (4.8.2).

    Raises:
        ValueError: it is no valid filter.
    """
    name: str | None = None
    if pattern.startswith(f"{_SHARE}/") or pattern == _SHARE:
        _, name, pattern = (*pattern.split("/", 2), "", "")[:3]
        if not name or "+" in name or "#" in name:
            raise ValueError(f"{name!r} is no share name")
    if not is_topic_filter(pattern):
        raise ValueError(f"{pattern!r} is no topic filter")
    return name, pattern


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


def _is_text(text: str) -> bool:
    if not text or "\0" in text:
        return False
    return 4 * len(text) <= _MAX_BYTES or len(text.encode()) <= _MAX_BYTES
