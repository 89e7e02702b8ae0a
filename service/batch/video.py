"""A video through a frame stream: decoded, answered frame by frame in order, encoded again; sound is carried over.

Memory is bounded by the frames that may be on their way. The result has its name once it is whole.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.batch.report import umask
from service.client import FrameError, FrameResult, FrameStream

_JPEG_QUALITY: Final = 95
_CODECS: Final = {".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4"})}
_CODEC: Final = ("libx264", {"crf": "18", "preset": "veryfast"})
_BT709: Final = 1
"""Number of that standard among primaries, transfer functions and matrices (ITU-T H.273)."""
_LIMITED_RANGE: Final = 1

Pixels = NDArray[np.uint8]


class VideoError(Exception):
    """The video cannot be read or written; one line."""


class Stopped(Exception):
    """The job was interrupted."""


@dataclass(slots=True)
class Progress:
    """What the caller wants to hear, and may say."""

    frame: Callable[[], None]
    """A frame is done."""
    failed: Callable[[str], None]
    """A frame failed; the one before it stays in its place."""
    stopped: Callable[[], bool]
    """Whether to stop."""


def frames_in(source: Path) -> int | None:
    """How many frames the file says it has, or its length and rate; None when it says neither.

    Raises:
        VideoError: not a video.
    """
    with _opened(source) as container:
        stream = container.streams.video[0]
        if stream.frames:
            return stream.frames
        if container.duration and stream.average_rate:
            return round(container.duration / av.time_base * stream.average_rate)
    return None


def convert(source: Path, target: Path, stream: FrameStream, progress: Progress) -> tuple[int, int]:
    """The video with each frame replaced by its answer; returns how many there were, and how many failed.

    Frame times and rate stay; the picture is upright, whatever the file said of its rotation; the first sound track is
    copied as it is. Odd sizes lose a row or a column, because H.264's ordinary form has none.

    Raises:
        VideoError: the source cannot be read, or the target's container cannot hold it.
        Stopped: `progress.stopped` said so.
        ClientError: the stream ended before its time.
        OSError: the target cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    try:
        with _opened(source) as reading:
            try:
                with av.open(name, "w") as writing:
                    counts = _Conversion(reading, writing, stream, progress, target.suffix.lower()).run()
            except (av.FFmpegError, ValueError) as error:
                raise VideoError(f"{target}: cannot be written so: {_said(error)}") from error
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, target)
        return counts
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


class _Conversion:
    def __init__(
        self, reading: InputContainer, writing: OutputContainer, stream: FrameStream, progress: Progress, suffix: str
    ) -> None:
        self._reading, self._writing, self._stream, self._progress = reading, writing, stream, progress
        self._picture = reading.streams.video[0]
        self._picture.thread_type = "AUTO"
        self._sound = reading.streams.audio[0] if reading.streams.audio else None
        codec, options = _CODECS.get(suffix, _CODEC)
        rate = self._picture.average_rate or Fraction(25)
        self._out: Any = writing.add_stream(codec, rate=rate, options=dict(options))
        self._sound_out: Any = None if self._sound is None else writing.add_stream_from_template(self._sound)
        self._times: deque[tuple[int | None, Fraction | None]] = deque()
        self._held: deque[Any] = deque()
        """Sound that waits for the first frame: the file's head wants to know the picture's size."""
        self._last: Pixels | None = None
        self._count = self._failed = 0

    def run(self) -> tuple[int, int]:
        for answer in self._stream.run(self._frames()):
            if self._progress.stopped():
                raise Stopped
            self._write(answer)
        if self._count == 0:
            raise VideoError("the video has no frame")
        if self._last is not None:
            self._writing.mux(self._out.encode(None))
            for packet in self._held:
                self._writing.mux(packet)
        return self._count, self._failed

    def _frames(self) -> Iterator[bytes]:
        """Frames as JPEG, upright; packets of sound are copied on the way."""
        wanted = [stream for stream in (self._picture, self._sound) if stream is not None]
        for packet in self._reading.demux(wanted):
            if packet.stream is self._sound:
                if packet.dts is not None:
                    packet.stream = self._sound_out
                    self._held.append(packet)
                continue
            for frame in self._decoded(packet):
                if self._progress.stopped():
                    raise Stopped
                self._times.append((frame.pts, frame.time_base))
                pixels = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                yield _jpeg(upright(pixels, int(frame.rotation)))

    def _decoded(self, packet: Any) -> list[VideoFrame]:
        try:
            return list(packet.decode())
        except av.InvalidDataError as error:
            self._progress.failed(f"a damaged piece of the video is left out: {_said(error)}")
            self._failed += 1
            return []

    def _write(self, answer: FrameResult | FrameError) -> None:
        pts, time_base = self._times.popleft()
        self._count += 1
        if isinstance(answer, FrameResult):
            self._last = _even(answer.pixels)
        else:
            self._failed += 1
            self._progress.failed(f"frame {answer.frame}: {answer.problem}")
        if self._last is not None:
            self._encode(self._last, pts, time_base)
        self._progress.frame()

    def _encode(self, pixels: Pixels, pts: int | None, time_base: Fraction | None) -> None:
        context = self._out.codec_context
        if not context.is_open:
            context.height, context.width = pixels.shape[:2]
            context.pix_fmt = "yuv420p"
            context.time_base = time_base or 1 / self._out.average_rate
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            context.color_range = _LIMITED_RANGE
        elif pixels.shape[:2] != (context.height, context.width):  # a stream whose size changes on the way
            pixels = cv2.resize(pixels, (context.width, context.height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709"
        )
        frame.pts, frame.time_base = pts, context.time_base
        self._writing.mux(self._out.encode(frame))
        while self._held:
            self._writing.mux(self._held.popleft())


def upright(pixels: Pixels, rotation_deg: int) -> Pixels:
    """The picture as it is to be shown.

    Args:
        pixels: uint8 (H, W, 3).
        rotation_deg: what the file says, anticlockwise; only quarter turns are known.
    """
    return np.ascontiguousarray(np.rot90(pixels, round(rotation_deg / 90) % 4))


def _even(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    return pixels[: height - height % 2, : width - width % 2]


def _jpeg(pixels: Pixels) -> bytes:
    full_chroma = int(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    options = [int(cv2.IMWRITE_JPEG_QUALITY), _JPEG_QUALITY, int(cv2.IMWRITE_JPEG_SAMPLING_FACTOR), full_chroma]
    written, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    assert written  # uint8 (H, W, 3) of a decoder
    return data.tobytes()


def _opened(source: Path) -> InputContainer:
    try:
        container = av.open(str(source))
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{source}: {_said(error)}") from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"{source}: no video in it")
    return container


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
