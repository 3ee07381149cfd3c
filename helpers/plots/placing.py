"""Where a name beside a point covers least of what is drawn already."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

#: A rectangle: left, low, right, high, in points (1/72 inch).
Box = tuple[float, float, float, float]
#: Offset from the point, in points, and the alignments of the text: horizontal, vertical.
Place = tuple[float, float, str, str]

#: Font size of names, and about how wide and high a letter of it is, in points.
SIZE, WIDTH, HEIGHT = 8, 4.7, 8.5

#: The usual place first, then the other corners and sides; near the point, and a little farther away.
PLACES: tuple[Place, ...] = tuple(
    place
    for r in (4, 9, 14)
    for place in (
        (r, r, "left", "bottom"), (-r, r, "right", "bottom"), (r, -r, "left", "top"), (-r, -r, "right", "top"),
        (r + 1, 0, "left", "center"), (-r - 1, 0, "right", "center"), (0, r + 1, "center", "bottom"), (0, -r - 1, "center", "top"),
    )
)  # fmt: skip


def free_place(
    ax: Axes, at: tuple[float, float], text: str, dots: Sequence[tuple[float, float]], placed: list[Box]
) -> Place:
    """The place for a name that covers least of the dots and of the names placed before, and lies inside the panel.

    Args:
        at: the point that has the name, in data units, as the ``dots``.
        placed: rectangles of earlier names; that of this one is added.
    """
    ax.get_xlim(), ax.get_ylim()  # ranges that are still to be found are found now
    scale = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    here, *others = (ax.transData.transform([at, *dots]) * scale).tolist()
    left, low, right, high = (edge * scale for edge in ax.bbox.extents)

    def cost(place: Place) -> float:
        box = _box(here, place, text)
        outside = 1 - _overlap(box, (left, low, right, high)) / _overlap(box, box)
        covered = sum(_overlap(box, (x - 2, y - 2, x + 2, y + 2)) for x, y in others)
        return 800 * outside + 12 * sum(_overlap(box, name) for name in placed) + covered + 8 * max(map(abs, place[:2]))

    best = min(PLACES, key=cost)
    placed.append(_box(here, best, text))
    return best


def _box(here: Sequence[float], place: Place, text: str) -> Box:
    x, y, ha, va = place
    left = here[0] + x - {"left": 0, "center": 0.5, "right": 1}[ha] * WIDTH * len(text)
    low = here[1] + y - {"bottom": 0, "center": 0.5, "top": 1}[va] * HEIGHT
    return left, low, left + WIDTH * len(text), low + HEIGHT


def _overlap(a: Box, b: Box) -> float:
    """Area that two rectangles share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
