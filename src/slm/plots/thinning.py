"""Fewer points that look the same."""

from __future__ import annotations

from slm.plots.figure import Points


def thinned(points: Points, most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, 4 or more, in their order: the first, the last, and of each of equally many
    neighbours the lowest and the highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    pieces = (most - 2) // 2
    kept = {0, len(points) - 1}
    for piece in range(pieces):
        places = range(piece * len(points) // pieces, (piece + 1) * len(points) // pieces)
        kept |= {min(places, key=lambda at: points[at][1]), max(places, key=lambda at: points[at][1])}
    return [points[at] for at in sorted(kept)]
