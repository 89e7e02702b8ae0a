"""`Client` and `AsyncClient`: the same operations, waiting or awaiting."""

from collections.abc import Iterable
from typing import Any, Final, Literal, Self, TypeVar, Unpack

import httpx2

from service.client import operations
from service.client.arrays import MapSource, PhotoSource, photo_bytes
from service.client.operations import DepthOptions, FocusOptions, OpenPhoto, SegmentOptions, StreamTask
from service.client.results import DepthMap, File, Focused, Matte, Model, People, PointDepth
from service.client.rules import Policy, Steps
from service.client.streams import AsyncFrameStream, FrameStream
from service.client.transports import AsyncTransport, SyncTransport, is_loopback

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_TIMEOUT_S: Final = 60.0
_RETRIES: Final = 8


class Photo:
    """A photo of `Client.open`.

    It is sent with the first call to `focus` or `people`, and again only when the service has forgotten it.
    """

    def __init__(self, client: "Client", data: bytes) -> None:
        self._client = client
        self._open = OpenPhoto(data)

    def focus(
        self,
        x: float | None = None,
        y: float | None = None,
        *,
        depth: MapSource | None = None,
        mask: MapSource | None = None,
        **options: Unpack[FocusOptions],
    ) -> Focused:
        """The photo refocused on pixel (x, y), on `rx` and `ry` as shares, or on a `person`.

        Args:
            x: column of the click in pixels of the upright photo.
            y: its row.
            depth: own inverse depth, larger = nearer; the photo is then sent with it.
            mask: own matte of people.
            options: parameters of `POST /focus`.

        Raises:
            ClientError: see `service.client.errors`.
        """
        return self._client._run(
            operations.focus(self._client._policy, self._open, {"x": x, "y": y, **options}, depth, mask)
        )

    def people(self, *, model: str | None = None) -> People:
        """Who is in the photo, nearest first; raises as `focus`."""
        return self._client._run(operations.people(self._client._policy, self._open, {"model": model}))

    def depth(self, *, format: Literal["npy", "png16"] = "npy", **options: Unpack[DepthOptions]) -> DepthMap:
        """As `Client.depth`."""
        return self._client.depth(self._open.data, format=format, **options)

    def segment(self, **options: Unpack[SegmentOptions]) -> Matte:
        """As `Client.segment`."""
        return self._client.segment(self._open.data, **options)


class Client:
    """A Depthlens service; safe to share between threads.

    Args:
        url: the service's root.
        api_key: where keys are set (`depthlens keys new`).
        timeout_s: for each call as a whole, retries and pauses included; sent along as `X-Request-Timeout`. The sync
            client notices the end of it between the pieces of an answer, so one silence may be longer.
        retries: further attempts after 429, 503 and cut connections, never earlier than `Retry-After` says.
        transport: of httpx2, instead of the network.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        retries: int = _RETRIES,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._policy = Policy(timeout_s, retries)
        self._address = (url, api_key)
        self._transport = SyncTransport(url, api_key, transport)

    def _run(self, steps: Steps[T]) -> T:
        return self._transport.run(steps)

    def open(self, photo: PhotoSource) -> Photo:
        """A photo for several calls; nothing is sent yet. Raises OSError for a file that cannot be read."""
        return Photo(self, photo_bytes(photo))

    def depth(
        self, photo: PhotoSource, *, format: Literal["npy", "png16"] = "npy", **options: Unpack[DepthOptions]
    ) -> DepthMap:
        """The photo's depth map.

        Args:
            photo: path, bytes of a file, or uint8 (H, W) or (H, W, 3) sRGB.
            format: how the numbers travel: exactly, or in 16 bits, which are a third of the bytes and less.
            options: parameters of `POST /depth`.

        Raises:
            ClientError: see `service.client.errors`.
            OSError: the file cannot be read.
        """
        return self._run(operations.depth(self._policy, photo, {"format": format, **options}))

    def depth_at(
        self, photo: PhotoSource, points: Iterable[tuple[float, float]], **options: Unpack[DepthOptions]
    ) -> tuple[PointDepth, ...]:
        """Depth at (x, y) pixels of the upright photo, without the map; raises as `depth`."""
        return self._run(operations.depth_at(self._policy, photo, points, options))

    def segment(self, photo: PhotoSource, **options: Unpack[SegmentOptions]) -> Matte:
        """The matte of the people in the photo; raises as `depth`."""
        return self._run(operations.segment(self._policy, photo, options))

    def focus(
        self,
        photo: PhotoSource,
        x: float | None = None,
        y: float | None = None,
        *,
        depth: MapSource | None = None,
        mask: MapSource | None = None,
        **options: Unpack[FocusOptions],
    ) -> Focused:
        """The photo refocused once; `open` is for several clicks. Arguments and errors as `Photo.focus`."""
        return self.open(photo).focus(x, y, depth=depth, mask=mask, **options)

    def people(self, photo: PhotoSource, *, model: str | None = None) -> People:
        """Who is in the photo, nearest first; raises as `depth`."""
        return self.open(photo).people(model=model)

    def fetch(self, route: str, photo: PhotoSource, **parameters: Any) -> File:
        """Any route that takes a photo, with any of its parameters, as the file that comes back; raises as `depth`."""
        return self._run(operations.fetch(self._policy, route, photo, parameters))

    def stream(self, task: StreamTask, **parameters: Any) -> FrameStream:
        """A stream of frames, by the parameters of `WS /frames` (docs/streams.md), for a `with` block.

        Args:
            task: what is done with each frame; a frame of `stereo` is a pair, (left, right).
            parameters: of the address; `drop="none"` answers every frame.

        Raises:
            ClientError: inside the block: refused, or nobody answers. Streams are not tried again.
        """
        url, api_key = self._address
        return FrameStream(url, task, parameters, api_key, self._policy.timeout_s, is_loopback(url))

    def models(self) -> tuple[Model, ...]:
        """The served networks; raises as `depth`."""
        return self._run(operations.models(self._policy))

    def ready(self) -> dict[str, str]:
        """`ok`, or why it does not answer, of each model behind the routes; waits for a service that is starting."""
        return self._run(operations.ready(self._policy))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncPhoto:
    """A photo of `AsyncClient.open`; as `Photo`."""

    def __init__(self, client: "AsyncClient", data: bytes) -> None:
        self._client = client
        self._open = OpenPhoto(data)

    async def focus(
        self,
        x: float | None = None,
        y: float | None = None,
        *,
        depth: MapSource | None = None,
        mask: MapSource | None = None,
        **options: Unpack[FocusOptions],
    ) -> Focused:
        """As `Photo.focus`."""
        return await self._client._run(
            operations.focus(self._client._policy, self._open, {"x": x, "y": y, **options}, depth, mask)
        )

    async def people(self, *, model: str | None = None) -> People:
        """As `Photo.people`."""
        return await self._client._run(operations.people(self._client._policy, self._open, {"model": model}))

    async def depth(self, *, format: Literal["npy", "png16"] = "npy", **options: Unpack[DepthOptions]) -> DepthMap:
        """As `Client.depth`."""
        return await self._client.depth(self._open.data, format=format, **options)

    async def segment(self, **options: Unpack[SegmentOptions]) -> Matte:
        """As `Client.segment`."""
        return await self._client.segment(self._open.data, **options)


class AsyncClient:
    """A Depthlens service, for asyncio; arguments and errors as `Client`, and `timeout_s` holds exactly."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        retries: int = _RETRIES,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._policy = Policy(timeout_s, retries)
        self._address = (url, api_key)
        self._transport = AsyncTransport(url, api_key, transport)

    async def _run(self, steps: Steps[T]) -> T:
        return await self._transport.run(steps)

    def open(self, photo: PhotoSource) -> AsyncPhoto:
        """A photo for several calls; as `Client.open`."""
        return AsyncPhoto(self, photo_bytes(photo))

    async def depth(
        self, photo: PhotoSource, *, format: Literal["npy", "png16"] = "npy", **options: Unpack[DepthOptions]
    ) -> DepthMap:
        """As `Client.depth`."""
        return await self._run(operations.depth(self._policy, photo, {"format": format, **options}))

    async def depth_at(
        self, photo: PhotoSource, points: Iterable[tuple[float, float]], **options: Unpack[DepthOptions]
    ) -> tuple[PointDepth, ...]:
        """As `Client.depth_at`."""
        return await self._run(operations.depth_at(self._policy, photo, points, options))

    async def segment(self, photo: PhotoSource, **options: Unpack[SegmentOptions]) -> Matte:
        """As `Client.segment`."""
        return await self._run(operations.segment(self._policy, photo, options))

    async def focus(
        self,
        photo: PhotoSource,
        x: float | None = None,
        y: float | None = None,
        *,
        depth: MapSource | None = None,
        mask: MapSource | None = None,
        **options: Unpack[FocusOptions],
    ) -> Focused:
        """As `Client.focus`."""
        return await self.open(photo).focus(x, y, depth=depth, mask=mask, **options)

    async def people(self, photo: PhotoSource, *, model: str | None = None) -> People:
        """As `Client.people`."""
        return await self.open(photo).people(model=model)

    async def fetch(self, route: str, photo: PhotoSource, **parameters: Any) -> File:
        """As `Client.fetch`."""
        return await self._run(operations.fetch(self._policy, route, photo, parameters))

    def stream(self, task: StreamTask, **parameters: Any) -> AsyncFrameStream:
        """As `Client.stream`, for an `async with` block."""
        url, api_key = self._address
        return AsyncFrameStream(url, task, parameters, api_key, self._policy.timeout_s, is_loopback(url))

    async def models(self) -> tuple[Model, ...]:
        """As `Client.models`."""
        return await self._run(operations.models(self._policy))

    async def ready(self) -> dict[str, str]:
        """As `Client.ready`."""
        return await self._run(operations.ready(self._policy))

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
