"""Several outputs of one photo from one inference: which, and as what files."""

from dataclasses import dataclass
from typing import Final, Literal

import orjson

from service import depth_answers, people_answers
from service.bundle import File
from service.context import RequestContext
from service.contract import PERSON, ModelSpec, Task
from service.depth_answers import DepthWish
from service.errors import InvalidParameter
from service.gateway import Gateway
from service.negotiation import Offer
from service.people_answers import PeopleWish
from service.pipeline import Outputs
from service.queries import AnalyzeQuery
from service.reading import Reading
from service.schemas import FileReport

Output = Literal["depth", "mask", "cutout", "people"]

REPORT: Final = "report.json"

_CUTOUTS: Final = tuple(
    Offer(offer.media_type.removeprefix("image/"), offer.media_type) for offer in people_answers.CUTOUT_OFFERS
)
_OFFERS: Final[dict[Output, tuple[Offer, ...]]] = {
    "depth": depth_answers.OFFERS,
    "mask": people_answers.MASK_OFFERS,
    "cutout": _CUTOUTS,
    "people": (Offer("json", "application/json"),),
}
FORMATS: Final = {output: list(dict.fromkeys(offer.format for offer in offers)) for output, offers in _OFFERS.items()}
"""By output, the default first."""

Wanted = tuple[tuple[Output, Offer], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made of each photo.

    Attributes:
        spec: the model that is asked, once.
        wishes: the files in the order asked for; None stands for the report on people.
        whole: whether a photo is needed in full.
        outputs: of the model, as far as they are needed.
    """

    spec: ModelSpec
    wishes: tuple[DepthWish | PeopleWish | None, ...]
    whole: bool
    outputs: Outputs


def read_outputs(text: str) -> Wanted:
    """`depth,cutout:webp` as outputs and their formats, each once.

    Raises:
        InvalidParameter: none, or one that there is not.
    """
    wanted: dict[tuple[Output, str], Offer] = {}
    for word in text.split(","):
        name, _, format = word.strip().partition(":")
        output: Output | None = next((known for known in _OFFERS if known == name), None)
        if output is None:
            raise _unknown(word, f"There is no output {name!r:.40}.")
        offer = next((offer for offer in _OFFERS[output] if offer.format == format or not format), None)
        if offer is None:
            raise _unknown(word, f"There is no {output} as {format!r:.40}; it comes as {', '.join(FORMATS[output])}.")
        wanted[output, offer.format] = offer
    return tuple((output, offer) for (output, _), offer in wanted.items())


def _unknown(word: str, detail: str) -> InvalidParameter:
    return InvalidParameter(
        f"{detail} Outputs are written depth,mask:npy,cutout,people.", field="outputs", value=word[:40], limit=FORMATS
    )


def task_of(wanted: Wanted, query: AnalyzeQuery) -> Task:
    """What the model has to do: telling people apart needs depth, too."""
    outputs = {output for output, _ in wanted}
    if outputs == {"depth"}:
        return "depth"
    aimed = people_answers.read_wish(query, people_answers.MASK_OFFERS[0], native=False, sharp=False).apart
    return "segmentation" if outputs == {"mask"} and not aimed else "focus"


def plan(query: AnalyzeQuery, wanted: Wanted, spec: ModelSpec, max_points: int) -> Plan:
    """Check what is asked for; raises as `depth_answers.read_wish` and `people_answers.read_wish`."""
    wishes: list[DepthWish | PeopleWish | None] = []
    for output, offer in wanted:
        if output == "depth":
            wishes.append(depth_answers.read_wish(query, offer, spec, max_points))
        elif output == "people":
            wishes.append(None)
        else:
            format = Offer("cutout", offer.media_type) if output == "cutout" else offer
            native, sharp = query.size == "native", query.edges == "sharp"
            wishes.append(people_answers.read_wish(query, format, native=native, sharp=sharp))
    apart = any(wish is None or (isinstance(wish, PeopleWish) and wish.apart) for wish in wishes)
    needed = {spec.depth_output if isinstance(wish, DepthWish) else PERSON.name for wish in wishes}
    outputs = None if apart else spec.only(*needed)
    return Plan(spec, tuple(wishes), any(wish is None or wish.whole for wish in wishes), outputs)


async def files_of(gateway: Gateway, context: RequestContext, data: bytes, plan: Plan) -> list[File]:
    """The files of one photo; raises whatever reading it, the model, or one of the outputs raises."""
    upload = await gateway.pipeline.open(context, data, None if plan.whole else plan.spec, plan.outputs)
    reading = Reading(gateway.pipeline, context, upload, plan.spec, whole=plan.whole, outputs=plan.outputs)
    files = []
    for wish in plan.wishes:
        if isinstance(wish, DepthWish):
            files.append(await depth_answers.depth_file(reading, wish))
        elif isinstance(wish, PeopleWish):
            files.append(await people_answers.people_file(reading, wish))
        else:
            token = gateway.scenes.keep(await reading.scene())
            files.append(await people_answers.report_file(reading, token))
    return files


def described(files: list[File]) -> list[FileReport]:
    """What the report says of each file."""
    return [FileReport(name=file.name, media_type=file.media_type, headers=file.headers) for file in files]


def with_report(files: list[File]) -> list[File]:
    """The files, and before them the report on them."""
    report = orjson.dumps({"files": [file.model_dump() for file in described(files)]})
    return [File(REPORT, "application/json", report, {}), *files]
