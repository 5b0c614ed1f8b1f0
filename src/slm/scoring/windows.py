"""Texts longer than a model reads at once, in windows that score each token once."""

from collections.abc import Sequence

Window = tuple[Sequence[int], Sequence[int]]
"""What is read ahead, and what is scored after it."""


def fitting(context: Sequence[int], continuation: Sequence[int], longest: int) -> list[Window]:
    """One window where context and continuation fit into the `longest` positions (the last token is never read). Else
    the context loses its oldest tokens; and a continuation that is too long by itself is read in `rolling` windows,
    after the context's last token."""
    room = longest + 1 - len(continuation)
    if len(context) <= room:
        return [(context, continuation)]
    if room > 0:
        return [(context[-room:], continuation)]
    return rolling(continuation, context[-1:], longest)


def rolling(ids: Sequence[int], prefix: Sequence[int], longest: int) -> list[Window]:
    """Windows of `longest` tokens whose scored parts are `ids`, in order and once each: all of a window but one token
    of context is scored, the last one, whose scored part is shorter, has more context instead (lm-eval's
    ``get_rolling_token_windows`` with a context of one, made disjoint). `prefix`, of one token or none, comes first."""
    text = [*prefix, *ids]
    begin, windows = len(prefix), list[Window]()
    first = longest if prefix else longest + 1  # of nothing ahead nothing is read
    end = min(begin + first, len(text))
    windows.append((text[:begin], text[begin:end]))
    while end < len(text):
        begin, end = end, min(end + longest, len(text))
        windows.append((text[max(0, end - 1 - longest) : begin], text[begin:end]))
    return windows
