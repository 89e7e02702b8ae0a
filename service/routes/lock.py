"""What stands before every route that costs work: who asks, may he, and is there room.

It stands before anything else of the request is looked at, its query included, so that a refusal costs little. Health
and metrics have it not: probes and scrapers carry no key.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.requests import Request
from starlette.responses import Response

from service.clients import KEY_HEADER
from service.gateway import Gateway
from service.upload import check_head

KEYS = [
    Security(APIKeyHeader(name=KEY_HEADER, auto_error=False, description="where keys are set")),
    Security(HTTPBearer(auto_error=False, description="where keys are set")),
]
"""For the OpenAPI document: it is `Clients` that checks them."""


class LockedRoute(APIRoute):
    """A route for known clients; raises as `Clients.identify`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook: what runs for a request to this route."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if not request.state.context.let_in:
                self.guard(request.app.state.gateway, request)
            return await handle(request)

        return guarded

    def guard(self, gateway: Gateway, request: Request) -> None:
        """Raise for a request that is not to be handled; asked at the door where there is one (`service.door`)."""
        request.state.context.client = gateway.clients.identify(request)


class PhotoRoute(LockedRoute):
    """A route that works on a photo; raises as `Gateway.admit` and `check_head`, too."""

    def guard(self, gateway: Gateway, request: Request) -> None:
        """Raise for a request that is not to be handled."""
        super().guard(gateway, request)
        gateway.admit(request)
        with gateway.uploads.share(request.state.context.client) as share:
            check_head(request, gateway.settings.max_body_bytes, share)
