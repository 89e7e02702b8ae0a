"""Files that are not what they seem."""

from .registry import without


@without("header-limits")
def _header_limits() -> None:
    """Whatever Pillow opens is decoded, without limits of its own, as OpenCV does."""
    from PIL import PngImagePlugin

    from service.imaging import codec, header
    from service.imaging.formats import sniff
    from service.imaging.structure import Structure

    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**40
    codec.survey = header.survey = lambda data, limits: Structure(sniff(data), ordinary=True)
    header.check_size = lambda *size: None


@without("killable-decoding")
def _killable_decoding() -> None:
    """Every file that is let in is decoded in a thread."""
    from dataclasses import replace

    from service.imaging import codec

    survey = codec.survey
    codec.survey = lambda data, limits: replace(survey(data, limits), ordinary=True)


@without("allowlist")
def _allowlist() -> None:
    """Pillow tries every format it has."""
    import io

    from PIL import Image, ImageFile

    from service.imaging import codec, decoding, header
    from service.imaging.structure import Structure

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    codec.survey = header.survey = lambda data, limits: Structure("png", ordinary=True)
    header.open_lazily = decoding.open_lazily = lambda data, name: Image.open(io.BytesIO(data))


@without("orientation")
def _orientation() -> None:
    """Pixels are taken as they are stored."""
    from service.imaging import header

    header.stored_orientation = lambda image: 1
