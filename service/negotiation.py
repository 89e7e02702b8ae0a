"""Content negotiation: which of our formats the caller gets.

`format=` wins over `Accept`; without either the first offer is sent. RFC 9110 section 12.5.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers

from service.errors import NotAcceptable


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to send an answer: the name used in `format=`, and its media type."""

    format: str
    media_type: str


def accept_header(headers: Headers) -> str | None:
    """The Accept header, several lines of it joined; None without one."""
    return ", ".join(headers.getlist("accept")) or None


def choose(offers: Sequence[Offer], *, format: str | None, accept: str | None) -> Offer:
    """The offer to send; the earlier of two equally welcome ones.

    Args:
        offers: what can be had, best first.
        format: the query parameter; names an offer by its format.
        accept: the Accept header; with `format`, only chooses between offers of that format.

    Raises:
        NotAcceptable: none fits; the problem lists what can be had.
    """
    named = [offer for offer in offers if format is None or offer.format == format]
    if not named:
        raise _refusal(offers, f"There is no format {format!r:.40}.", field="format", value=format)
    if not accept or not accept.strip():
        return named[0]
    ranges = _parse(accept)
    welcome = [(_quality(offer.media_type, ranges), -index) for index, offer in enumerate(named)]
    quality, index = max(welcome)
    if quality > 0:
        return named[-index]
    if format is not None:
        return named[0]
    raise _refusal(offers, "The Accept header allows none of the formats.", field="Accept", value=accept)


def _refusal(offers: Sequence[Offer], reason: str, *, field: str, value: str | None) -> NotAcceptable:
    available = [{"format": offer.format, "media_type": offer.media_type} for offer in offers]
    names = ", ".join(dict.fromkeys(offer.format for offer in offers))
    shown = value[:100] if value else value
    return NotAcceptable(f"{reason} Ask for one of: {names}.", field=field, value=shown, extra={"available": available})


def _parse(accept: str) -> dict[str, float]:
    """Media ranges with their quality; a malformed quality counts as 1, as lenient servers do."""
    ranges: dict[str, float] = {}
    for item in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = min(1.0, max(0.0, float(value)))
                except ValueError:
                    quality = 1.0
        if media_range:
            ranges[media_range] = quality
    return ranges


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """The most specific matching range decides."""
    kind = media_type.split("/")[0]
    for candidate in (media_type, f"{kind}/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0
