"""Where the names of points go in a picture: beside them, and never on one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Box", "Place", "find_places"]

_RADII = (8, 14, 22, 32, 44, 58, 74, 92, 112, 134)
"""Distances between a point and its name that are tried, in the picture's unit, which is a point of type."""
_DIRECTIONS = ((1, 0), (0, -1), (0, 1), (-1, 0), (0.8, -0.8), (-0.8, 0.8), (0.8, 0.8), (-0.8, -0.8))
_FAR = 20
_AIR = 1.5


class Box(NamedTuple):
    """A rectangle, edges parallel to the axes."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        """Whether they have more than an edge in common."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def within(self, other: Box) -> bool:
        """Whether no part of it is outside `other`."""
        return other.x0 <= self.x0 and self.x1 <= other.x1 and other.y0 <= self.y0 and self.y1 <= other.y1

    def distance(self, point: tuple[float, float]) -> float:
        """From its edge to a point outside; 0 inside."""
        x, y = point
        return math.hypot(max(self.x0 - x, 0, x - self.x1), max(self.y0 - y, 0, y - self.y1))


class Place(NamedTuple):
    """Where a name goes: its lower left corner as seen from the point, its box with some air around it, and whether it is
    so far off that it needs a line to the point.
    """

    offset: tuple[float, float]
    box: Box
    far: bool


def find_places(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    lines: Sequence[Box],
    inside: Box,
    *,
    important: int,
) -> list[Place | None]:
    """The nearest free place for each name, one after the other; None where there is none.

    Args:
        points: What is named.
        sizes: Width and height of each name.
        obstacles: What no name may cover.
        lines: What a name covers only if it finds no other place.
        inside: What no name may leave.
        important: So many, from the first on, may go far from their points; the others stand beside them or nowhere.
    """
    taken = list(obstacles)
    found: list[Place | None] = []
    for number, (point, size) in enumerate(zip(points, sizes, strict=True)):
        others = [*points[:number], *points[number + 1 :]]
        free = [
            place
            for place in _around(point, size)
            if place.box.within(inside) and not any(place.box.overlaps(box) for box in taken)
        ]
        # Nearer to its own point than to any other, so that nobody takes it for the name of that one.
        clear = [
            place for place in free if all(place.box.distance(point) < place.box.distance(each) for each in others)
        ]
        if number >= important:
            free = clear = [place for place in clear if not place.far]
        best = [place for place in clear if not any(place.box.overlaps(box) for box in lines)] or clear or free
        if best:
            taken.append(best[0].box)
        found.append(best[0] if best else None)
    return found


def _around(point: tuple[float, float], size: tuple[float, float]) -> Iterator[Place]:
    """Places around a point, the nearest first."""
    width, height = size
    for radius in _RADII:
        for right, up in _DIRECTIONS:
            # The side or corner that looks at the point is `radius` away from it.
            x = radius * right - width * (0 if right > 0 else 1 if right < 0 else 0.5)
            y = radius * up - height * (0 if up > 0 else 1 if up < 0 else 0.5)
            left, bottom = point[0] + x, point[1] + y
            box = Box(left - _AIR, bottom - _AIR, left + width + _AIR, bottom + height + _AIR)
            yield Place((x, y), box, radius > _FAR)
