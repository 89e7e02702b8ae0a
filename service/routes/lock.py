"""What stands before every route that costs work: who asks, may he, and is there room.

It stands before anything else of the request is looked at, its query included, so that a refusal costs little. Health
and metrics have it not: probes and scrapers carry no key.
"""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_origin, get_type_hints

from fastapi import Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from service.clients import KEY_HEADER
from service.gateway import Gateway
from service.problems import from_validation
from service.schemas import Query
from service.upload import check_head

AnyQuery = TypeVar("AnyQuery", bound=Query)

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
    """A route that works on a photo: `endpoint(request, query, gateway)`.

    FastAPI documents it. It is called from here, since finding out anew for every request what it takes cost FastAPI
    0.2 ms; raises as `Gateway.admit` and `check_head`, too.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook: what runs for a request to this route."""
        endpoint, model = self.endpoint, get_type_hints(self.endpoint)["query"]

        async def handle(request: Request) -> Response:
            gateway: Gateway = request.app.state.gateway
            if not request.state.context.let_in:
                self.guard(gateway, request)
            response: Response = await endpoint(request, read_query(model, request.query_params), gateway)
            return response

        return handle

    def guard(self, gateway: Gateway, request: Request) -> None:
        """Raise for a request that is not to be handled."""
        super().guard(gateway, request)
        gateway.admit(request)
        with gateway.uploads.share(request.state.context.client) as share:
            check_head(request, gateway.settings.max_body_bytes, share)


def read_query(model: type[AnyQuery], given: QueryParams) -> AnyQuery:
    """The parameters of a query; of one given twice, which is no list, the last.

    Raises:
        InvalidParameter: one that is not known, or not as it has to be.
    """
    values: dict[str, Any] = dict(given)
    for name in values.keys() & model.model_fields.keys():
        if get_origin(model.model_fields[name].annotation) is list:
            values[name] = given.getlist(name)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise from_validation(error.errors()) from None
