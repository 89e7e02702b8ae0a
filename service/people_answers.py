"""People as files: the matte of all or of those chosen, cut out of the photo, or described."""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

from service.aiming import read_aim, read_people
from service.bundle import File
from service.exposure import report
from service.focusing import Aim, find_focus
from service.imaging import codec, matte
from service.imaging.cutout import cut_out
from service.negotiation import Offer
from service.pipeline import FocusScene
from service.queries import PersonChoice
from service.reading import Reading
from service.schemas import MaskReport

MASK_OFFERS: Final = (
    Offer("png", "image/png"),
    Offer("npy", "application/x-npy"),
    Offer("json", "application/json"),
)
CUTOUT_OFFERS: Final = tuple(Offer("cutout", f"image/{kind}") for kind in ("png", "webp", "avif"))

HEADERS: Final = {
    "X-Model": "model that answered",
    "X-Model-Version": "its version",
    "X-People": "of a cut-out and of chosen people: how many were found",
    "X-Person": "likewise: which of them are shown, nearest = 0, or `none`",
}


@dataclass(frozen=True, slots=True)
class PeopleWish:
    """One format of a photo's people as a query asks for it."""

    offer: Offer
    aim: Aim | None
    native: bool
    sharp: bool

    @property
    def apart(self) -> bool:
        """Whether people have to be told apart, for which depth is needed, too."""
        return self.aim is not None or self.offer.format == "cutout"

    @property
    def whole(self) -> bool:
        """Whether it needs the photo in full."""
        return self.apart or (self.sharp and not self.native)


def read_wish(choice: PersonChoice, offer: Offer, *, native: bool, sharp: bool) -> PeopleWish:
    """Check what a query asks of people.

    Raises:
        InvalidParameter: half a point, or two.
    """
    pixel, share = (choice.x, choice.y), (choice.rx, choice.ry)
    return PeopleWish(offer, read_aim(pixel, share, read_people(choice.person)), native, sharp)


async def people_file(reading: Reading, wish: PeopleWish) -> File:
    """One format of one photo's people.

    Raises:
        OutsideImage: the point is not on the photo.
        NotAPerson: nobody is there, or nobody at all, and somebody was asked for.
        UnknownPerson: nobody has that number.
    """
    pipeline, context = reading.pipeline, reading.context
    if wish.aim is not None:
        wish.aim.click(reading.upload.size)  # refused before any decode
    if wish.apart:
        scene = await reading.scene()
        return await pipeline.in_worker(context, "encode", _chosen, scene, wish)
    analysis = await reading.analysis()
    if wish.native:
        person = analysis.native("person")
    elif wish.sharp:
        photo = await reading.photo()
        native = analysis.native("person")
        person = await pipeline.in_worker(context, "render", matte.upsample_guided, native, photo.pixels)
    else:
        person = await pipeline.in_worker(context, "render", analysis.full, "person")
    said = {"X-Model": analysis.prediction.model, "X-Model-Version": analysis.prediction.version}
    return await pipeline.in_worker(context, "encode", _as_mask, person, said, wish.offer)


async def report_file(reading: Reading, token: str | None) -> File:
    """Who is in the photo, as `POST /focus?output=people` says it, with the token of its scene."""
    scene = await reading.scene()
    body = orjson.dumps(report(scene, token, None, None).model_dump())
    said = {"X-Model": scene.model, "X-Model-Version": scene.version, "X-People": str(len(scene.people))}
    return File("people.json", "application/json", body, said)


def _chosen(scene: FocusScene, wish: PeopleWish) -> File:
    if wish.aim is None:
        kept = tuple(person.index for person in scene.people)
    else:
        kept = find_focus(scene, wish.aim, "subject").people
    alpha: NDArray[Any] = np.zeros(scene.size, np.uint8)
    for index in kept:
        alpha = cv2.add(alpha, scene.scene.mattes[index])
    said = {
        "X-Model": scene.model,
        "X-Model-Version": scene.version,
        "X-People": str(len(scene.people)),
        "X-Person": ",".join(map(str, kept)) or "none",
    }
    if wish.offer.format != "cutout":
        return _as_mask(alpha.astype(np.float32) * np.float32(1 / 255), said, wish.offer)
    kind = wish.offer.media_type.removeprefix("image/")
    body = codec.encode_rgba(cut_out(scene.scene.image, alpha), kind)
    return File(f"cutout.{kind}", wish.offer.media_type, body, said)


def _as_mask(person: NDArray[np.float32], said: dict[str, str], offer: Offer) -> File:
    match offer.format:
        case "png":
            body = codec.encode_png8(matte.to_uint8(person))
        case "npy":
            body = codec.encode_npy(person)
        case _:
            described = MaskReport(
                model=said["X-Model"],
                model_version=said["X-Model-Version"],
                width=person.shape[1],
                height=person.shape[0],
                coverage=matte.coverage(person),
                box=matte.bounding_box(person),
            )
            body = orjson.dumps(described.model_dump())
    return File(f"mask.{offer.format}", offer.media_type, body, said)
