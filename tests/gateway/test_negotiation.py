import pytest

from service.errors import NotAcceptable
from service.negotiation import Offer, choose

OFFERS = (
    Offer("png16", "image/png"),
    Offer("npy", "application/x-npy"),
    Offer("preview", "image/png"),
    Offer("preview", "image/jpeg"),
)


@pytest.mark.parametrize(
    ("format", "accept", "expected"),
    [
        (None, None, ("png16", "image/png")),
        (None, "", ("png16", "image/png")),
        (None, "*/*", ("png16", "image/png")),
        (None, "image/*", ("png16", "image/png")),
        (None, "application/*", ("npy", "application/x-npy")),
        (None, "image/jpeg", ("preview", "image/jpeg")),
        (None, "image/png;q=0.2, image/jpeg;q=0.9", ("preview", "image/jpeg")),
        (None, "image/*;q=0.5, application/x-npy", ("npy", "application/x-npy")),
        (None, "*/*;q=0.1, image/png;q=0, image/jpeg;q=0", ("npy", "application/x-npy")),
        (None, "IMAGE/JPEG;Q=1", ("preview", "image/jpeg")),
        ("preview", None, ("preview", "image/png")),
        ("preview", "image/jpeg", ("preview", "image/jpeg")),
        ("npy", "image/jpeg", ("npy", "application/x-npy")),
        (None, "image/jpeg;q=nonsense", ("preview", "image/jpeg")),
    ],
)
def test_choice(format: str | None, accept: str | None, expected: tuple[str, str]) -> None:
    offer = choose(OFFERS, format=format, accept=accept)
    assert (offer.format, offer.media_type) == expected


@pytest.mark.parametrize(
    ("format", "accept", "field"),
    [("jpeg", None, "format"), ("", None, "format"), (None, "text/html", "Accept"), (None, "*/*;q=0", "Accept")],
)
def test_refusal_lists_what_can_be_had(format: str | None, accept: str | None, field: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose(OFFERS, format=format, accept=accept)
    assert caught.value.field == field
    assert {"format": "npy", "media_type": "application/x-npy"} in caught.value.extra["available"]
