"""Parameters that say whom or what is meant, read as an aim."""

from service.errors import InvalidParameter
from service.focusing import Aim, Choice

Pair = tuple[float | None, float | None]


def read_aim(pixel: Pair, share: Pair, people: Choice | None, prefix: str = "") -> Aim | None:
    """The point and the people of a query; None when it names neither.

    Args:
        pixel: `x` and `y`.
        share: `rx` and `ry`.
        people: see `read_people`.
        prefix: of the parameters' names.

    Raises:
        InvalidParameter: half a point, or two.
    """
    given = [pair for pair in (pixel, share) if pair != (None, None)]
    if len(given) > 1 or any(None in pair for pair in given):
        raise InvalidParameter(
            f"Give the point as {prefix}x and {prefix}y in pixels, or as {prefix}rx and {prefix}ry between 0 and 1.",
            field=f"{prefix}x",
            value=None,
        )
    if not given and people is None:
        return None
    return Aim(_whole(pixel), _whole(share), people, prefix)


def _whole(pair: Pair) -> tuple[float, float] | None:
    x, y = pair
    return None if x is None or y is None else (x, y)


def read_people(person: list[str]) -> Choice | None:
    """`person=` as indices; None when it is not given."""
    if person == ["all"]:
        return "all"
    return tuple(int(index) for group in person for index in group.split(",")) or None
