"""The two thin transports: they do what a call's steps say (`service.client.rules`), waiting or awaiting."""

import asyncio
import ipaddress
import time
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import httpx2

from service import __version__
from service.client.rules import Answer, Failure, Pause, Send, Steps

T = TypeVar("T")

_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


def _headers(api_key: str | None) -> dict[str, str]:
    return {"User-Agent": f"depthlens/{__version__}"} | ({"X-API-Key": api_key} if api_key else {})


def is_loopback(url: str) -> bool:
    """Whether the service is on this machine, so that no proxy of the environment is asked."""
    host = httpx2.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _request(send: Send) -> dict[str, Any]:
    call = send.call
    request: dict[str, Any] = {"method": call.method, "url": call.path, "params": dict(call.query)}
    # A little less than we wait ourselves, so that the service's own word on it arrives.
    headers = {"X-Request-Timeout": f"{max(0.95 * send.timeout_s, 0.001):.3f}"}
    if call.parts:
        request["files"] = {name: (name, data, "application/octet-stream") for name, data in call.parts.items()}
    elif call.content:
        request["content"] = call.content
        headers["Content-Type"] = "application/octet-stream"  # the service goes by what the file is
    return request | {"headers": headers, "timeout": send.timeout_s}


def _failure(error: Exception) -> Failure:
    timed_out = isinstance(error, httpx2.TimeoutException | TimeoutError)
    return Failure(error, begun=not isinstance(error, _NEVER_SENT), timed_out=timed_out)


def _answer(response: httpx2.Response, body: bytes) -> Answer:
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body)


class SyncTransport:
    """Waits.

    Args:
        url: the service's root.
        api_key: sent as `X-API-Key`.
        transport: of httpx2, instead of the network.
    """

    def __init__(self, url: str, api_key: str | None, transport: httpx2.BaseTransport | None = None) -> None:
        self._http = httpx2.Client(
            base_url=url, headers=_headers(api_key), transport=transport, trust_env=not is_loopback(url)
        )

    def run(self, steps: Steps[T]) -> T:
        """Take a call through its steps to what it comes to."""
        reply: Answer | Failure | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                reply = None
            else:
                reply = self._send(step)

    def _send(self, send: Send) -> Answer | Failure:
        deadline = time.monotonic() + send.timeout_s
        body = bytearray()
        try:
            with self._http.stream(**_request(send)) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:  # httpx2 bounds each silence, not their sum
                        raise TimeoutError("the answer came too slowly")
        except (httpx2.TransportError, httpx2.DecodingError, TimeoutError) as error:
            return _failure(error)
        return _answer(response, bytes(body))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTransport:
    """Awaits, on asyncio; arguments as `SyncTransport`."""

    def __init__(self, url: str, api_key: str | None, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._http = httpx2.AsyncClient(
            base_url=url, headers=_headers(api_key), transport=transport, trust_env=not is_loopback(url)
        )

    async def run(self, steps: Steps[T]) -> T:
        """Take a call through its steps to what it comes to."""
        reply: Answer | Failure | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                reply = None
            else:
                reply = await self._send(step)

    async def _send(self, send: Send) -> Answer | Failure:
        try:
            async with asyncio.timeout(send.timeout_s), self._http.stream(**_request(send)) as response:
                body = await response.aread()
        except (httpx2.TransportError, httpx2.DecodingError, TimeoutError) as error:
            return _failure(error)
        return _answer(response, body)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
