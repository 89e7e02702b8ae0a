"""One decode function: colour, depth of samples, alpha, damage; and the way back to bytes."""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from service.imaging import codec
from service.imaging.codec import decode, inspect
from service.imaging.errors import (
    DamagedImage,
    ImageError,
    ImageTooLarge,
    InvalidMap,
    TruncatedImage,
    UnsupportedFormat,
)

Saved = Callable[..., bytes]

AVIF_EXACT = {"quality": 100, "subsampling": "4:4:4"}


def test_a_broken_pixel_stream_is_never_half_a_picture(photo_like: np.ndarray, saved: Saved) -> None:
    """Also where there is no EXIF: looking for it must not swallow the decoder's error."""
    data = bytearray(saved(photo_like, "PNG"))
    start = data.index(b"IDAT") + 4
    data[start + 2000 : start + 2400] = bytes(400)
    with pytest.raises(DamagedImage):
        decode(bytes(data))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 65_535))
def test_16_bit_gray_is_scaled_not_clipped(value: int) -> None:
    array = np.full((3, 5), value, np.uint16)
    for data in (codec.encode_png16(array), tiff(array), tiff(array, byteorder=">")):
        photo = decode(data)
        assert photo.header.bit_depth == 16
        assert photo.pixels.shape == (3, 5, 3)
        assert (photo.pixels == value >> 8).all()
        assert abs(int(photo.pixels[0, 0, 0]) - value / 257) <= 1


def test_16_bit_rgb() -> None:
    values = np.random.default_rng(1).integers(0, 65_536, (8, 9, 3), dtype=np.uint16)
    _, png = cv2.imencode(".png", values[..., ::-1])
    for data in (png.tobytes(), tiff(values, photometric="rgb")):
        pixels = decode(data).pixels
        assert np.abs(pixels - values / 257).max() <= 1
        exact = decode(data).pixels == values >> 8
        assert exact.all()


def test_12_bit_and_32_bit_samples() -> None:
    ramp = np.arange(0, 256, dtype=np.int32).reshape(8, 32)
    assert (decode(tiff(ramp)).pixels[..., 0] == ramp).all()
    assert (decode(tiff(ramp * 257)).pixels[..., 0] == ramp).all()
    stretched = decode(tiff(ramp * 1_000_000 - 5_000_000)).pixels[..., 0]
    assert (stretched == ramp).all()


def test_float_samples() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(8, 32)
    expected = np.arange(256).reshape(8, 32)
    assert (decode(tiff(ramp)).pixels[..., 1] == expected).all()
    assert (decode(tiff(ramp * 255)).pixels[..., 1] == expected).all()
    assert (decode(tiff(ramp * 3000 - 40)).pixels[..., 1] == expected).all()
    ramp[0, 5], ramp[0, 6], ramp[0, 7] = np.nan, np.inf, -np.inf
    assert decode(tiff(ramp)).pixels[0, 5:8, 0].tolist() == [0, 255, 0]
    assert (decode(tiff(np.full((4, 4), np.nan, np.float32))).pixels == 0).all()


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **({"photometric": "minisblack"} | options))
    return stream.getvalue()


def test_cmyk_jpeg_without_profile(saved: Saved) -> None:
    cmyk = np.zeros((16, 32, 4), np.uint8)
    cmyk[:, :16] = (0, 255, 255, 0)  # red ink mix
    cmyk[:, 16:] = (0, 0, 0, 128)  # half black
    data = saved(Image.fromarray(cmyk, mode="CMYK") if False else Image.frombytes("CMYK", (32, 16), cmyk.tobytes()), "JPEG", quality=100)  # fmt: skip # noqa: E501
    pixels = decode(data).pixels
    assert np.abs(pixels[4, 4].astype(int) - (255, 0, 0)).max() <= 4
    assert np.abs(pixels[4, 28].astype(int) - 127).max() <= 4


def test_cmyk_profile_of_the_wrong_kind_is_ignored(saved: Saved) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.abs(decode(saved(image, "JPEG", icc_profile=profile)).pixels[4, 4].astype(int) - (255, 0, 0)).max() <= 4


def linear_profile() -> bytes:
    """A profile with sRGB's primaries and no gamma, made from littlecms' sRGB by replacing its curves."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack_from(">I", data, 128)[0]):
        kind, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * index)
        if kind in (b"rTRC", b"gTRC", b"bTRC"):
            struct.pack_into(">4sI", data, offset, b"curv", 0)
            struct.pack_into(">I", data, offset + 8, 0)  # no points: the identity
    return bytes(data)


def test_icc_profile_is_applied(saved: Saved) -> None:
    picture = np.full((8, 8, 3), 55, np.uint8)
    tagged = decode(saved(picture, "PNG", icc_profile=linear_profile()))
    assert tagged.header.has_icc
    assert np.abs(tagged.pixels.astype(int) - 128).max() <= 2  # linear 55/255 is display 128


def test_srgb_and_broken_profiles_change_nothing(asymmetric: np.ndarray, saved: Saved) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (profile, b"broken", profile[:200], bytes(3000)):
        assert (decode(saved(asymmetric, "PNG", icc_profile=icc)).pixels == asymmetric).all()


def test_gray_with_rgb_profile_stays_gray(saved: Saved) -> None:
    gray = Image.new("L", (8, 8), 100)
    assert (decode(saved(gray, "PNG", icc_profile=linear_profile())).pixels == 100).all()


def test_png_gamma(saved: Saved) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    pixels = decode(saved(np.full((4, 4, 3), 55, np.uint8), "PNG", pnginfo=info)).pixels
    assert np.abs(pixels.astype(int) - round(255 * (55 / 255) ** (1 / 2.2))).max() <= 1
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 45_455))
    assert (decode(saved(np.full((4, 4, 3), 55, np.uint8), "PNG", pnginfo=info)).pixels == 55).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode: str, saved: Saved) -> None:
    image = Image.new(mode, (3, 1))
    dark = (0, 0, 0) if mode == "RGBA" else (0,)
    for column, alpha in enumerate((0, 128, 255)):
        image.putpixel((column, 0), (*dark, alpha))
    for format in ("PNG", "TIFF", *(["WEBP"] if mode == "RGBA" else [])):
        options = {"lossless": True} if format == "WEBP" else {}
        photo = decode(saved(image, format, **options))
        assert photo.header.has_alpha
        assert photo.pixels[0, :, 0].tolist() == [255, 127, 0]


def test_transparent_colour_and_palette(saved: Saved) -> None:
    palette = Image.new("P", (4, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1, 0, 1])
    assert decode(saved(palette, "PNG")).pixels[0].tolist() == [[10, 20, 30], [200, 100, 50]] * 2
    for format in ("PNG", "GIF"):
        assert decode(saved(palette, format, transparency=1)).pixels[0, 1].tolist() == [255, 255, 255]
    assert decode(saved(palette, "PNG", transparency=bytes([255, 128]))).pixels[0, 1].tolist() == [227, 177, 152]
    gray = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert decode(saved(gray, "PNG", transparency=7)).pixels[0].tolist() == [[255] * 3, [9] * 3]


def test_16_bit_gray_with_a_transparent_level() -> None:
    data = codec.encode_png16(np.array([[7, 40_000]], np.uint16))
    chunk = b"tRNS" + struct.pack(">H", 7)
    data = data[:33] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    assert decode(data).pixels[0].tolist() == [[255] * 3, [156] * 3]


def test_one_bit_and_gray(saved: Saved) -> None:
    bits = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")
    for format in ("PNG", "TIFF", "BMP", "GIF"):
        assert decode(saved(bits, format)).pixels[0, :, 1].tolist() == [0, 255, 0]


def test_lab_and_ycbcr_tiff(saved: Saved) -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (200, 80, 40)), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )  # fmt: skip
    assert np.abs(decode(saved(lab, "TIFF")).pixels.astype(int) - (200, 80, 40)).max() <= 4
    ycbcr = Image.new("RGB", (8, 8), (200, 80, 40)).convert("YCbCr")
    assert np.abs(decode(saved(ycbcr, "TIFF")).pixels.astype(int) - (200, 80, 40)).max() <= 4


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_animations_give_their_first_frame(format: str, asymmetric: np.ndarray, saved: Saved) -> None:
    frames = [Image.fromarray(np.roll(asymmetric, shift, axis=1)) for shift in (0, 8, 16)]
    options = {"WEBP": {"lossless": True}, "AVIF": AVIF_EXACT}.get(format, {})
    pixels = decode(saved(frames[0], format, save_all=True, append_images=frames[1:], **options)).pixels
    assert np.abs(pixels.astype(int) - asymmetric).max() <= (12 if format == "AVIF" else 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (1, 65_500), (65_500, 1)])
def test_thin_pictures(shape: tuple[int, int], saved: Saved) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for format in ("PNG", "BMP", "TIFF"):
        assert (decode(saved(picture, format)).pixels == picture).all()
    assert decode(saved(picture, "JPEG")).size == shape


def test_progressive_and_interlaced(photo_like: np.ndarray, saved: Saved) -> None:
    plain = decode(saved(photo_like, "JPEG", quality=90)).pixels
    progressive = decode(saved(photo_like, "JPEG", quality=90, progressive=True)).pixels
    assert (plain == progressive).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_no_cut_gives_half_a_picture(format: str, photo_like: np.ndarray, saved: Saved) -> None:
    data = saved(photo_like, format, **({"compression": "tiff_lzw"} if format == "TIFF" else {}))
    whole = decode(data).pixels
    for share in np.linspace(0.015, 0.97, 40):
        try:
            pixels = decode(data[: int(len(data) * share)]).pixels
        except DamagedImage:
            continue
        assert (pixels == whole).all(), share  # only what follows the last pixel was cut


def test_cut_photos_say_truncated(photo_like: np.ndarray, saved: Saved) -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        data = saved(photo_like, format)
        with pytest.raises(TruncatedImage) as caught:
            decode(data[: len(data) * 2 // 3])
        assert caught.value.code == "truncated_image"
        assert str(len(data) * 2 // 3) in str(caught.value)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.data())
def test_flipped_bytes_never_crash(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    stream = io.BytesIO()
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(stream, format=format)
    stored = bytearray(stream.getvalue())
    for _ in range(3):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        photo = decode(bytes(stored))
    except ImageError:
        return
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.ndim == 3


def test_reduced_decode_of_jpeg_only(saved: Saved) -> None:
    picture = np.full((640, 800, 3), 90, np.uint8)
    photo = decode(saved(picture, "JPEG"), min_side=150)
    assert (photo.scale, photo.size) == (4, (160, 200))
    assert photo.header.size == (640, 800)
    assert decode(saved(picture, "JPEG"), min_side=161).size == (320, 400)
    assert decode(saved(picture, "PNG"), min_side=150).size == (640, 800)


def test_pixels_are_read_only(asymmetric: np.ndarray, saved: Saved) -> None:
    photo = decode(saved(asymmetric, "PNG"))
    assert not photo.pixels.flags.writeable
    assert photo.nbytes >= photo.pixels.nbytes


def test_threads_get_the_same_and_no_warning(photo_like: np.ndarray, saved: Saved) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\xff\xff\xff\xff\xff\xff\xff\xff"
    sources = [saved(photo_like, "JPEG", exif=exif), saved(photo_like, "PNG"), saved(photo_like, "TIFF")]
    expected = [decode(data).pixels.sum() for data in sources]
    before = list(warnings.filters)
    failures: list[object] = []

    def work() -> None:
        for _ in range(15):
            for data, total in zip(sources, expected, strict=True):
                try:
                    if decode(data).pixels.sum() != total:
                        failures.append("other pixels")
                except BaseException as error:
                    failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before


# encoders


def test_png16_text_chunks() -> None:
    array = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    data = codec.encode_png16(array, {"Depth-Scale": "0.5", "Title": "Tiefe \u2013 \u6df1"})
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.text == {"Depth-Scale": "0.5", "Title": "Tiefe \u2013 \u6df1"}
    assert (np.asarray(image) == array).all()
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) == array).all()


def test_png_refuses_other_arrays() -> None:
    for array in (np.zeros((3, 4), np.uint8), np.zeros((3, 4, 3), np.uint16), np.zeros((0, 4), np.uint16)):
        with pytest.raises(InvalidMap):
            codec.encode_png16(array)
    with pytest.raises(ValueError, match="keywords"):
        codec.encode_png16(np.zeros((2, 2), np.uint16), {"": "x"})


@pytest.mark.parametrize("format", list(codec.ENCODERS))
def test_photos_round_trip(format: str, photo_like: np.ndarray) -> None:
    pixels = decode(codec.encode_image(photo_like, format)).pixels
    allowed = {"png": 0, "tiff": 0, "bmp": 0, "gif": 25}.get(format, 6)
    assert np.abs(pixels.astype(int) - photo_like).mean() <= allowed
    small = codec.encode_image(photo_like, format, quality=20)
    if "quality" in codec.ENCODERS[format]:
        assert len(small) < len(codec.encode_image(photo_like, format, quality=95)) / 2


def test_encoder_refusals(photo_like: np.ndarray) -> None:
    with pytest.raises(UnsupportedFormat, match="psd"):
        codec.encode_image(photo_like, "psd")
    with pytest.raises(ImageTooLarge, match="16383"):
        codec.encode_image(np.zeros((1, 16_384, 3), np.uint8), "webp")
    with pytest.raises(InvalidMap):
        codec.encode_image(photo_like[..., 0], "png")


def test_map_encoders() -> None:
    values = np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7)
    assert (np.load(io.BytesIO(codec.encode_npy(values))) == values).all()
    packed = np.load(io.BytesIO(codec.encode_npz(inverse_depth=values, unit=np.array("relative"))))
    assert (packed["inverse_depth"] == values).all()
    assert str(packed["unit"]) == "relative"
    data = codec.encode_tiff_float(values, "inverse depth")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.pages[0].description == "inverse depth"
        assert (file.asarray() == values).all()
    assert inspect(data).mode == "F"


def test_compressed_npz_is_plain() -> None:
    with pytest.raises(ValueError, match="objects"):
        codec.encode_npz(values=np.array([object()]))
