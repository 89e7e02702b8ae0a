"""The door: who is not let in is told so on the request's head alone, before anything is made for it.

Under overload nine of ten requests are refused, and what a refusal costs is taken from those that are served. The rules
are those of the routes (`LockedRoute.guard`), asked here by the HTTP edge. A request that has passed is not asked again
by its route; without the edge, as in a test on the application itself, the route asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.context import RequestContext
from service.errors import DepthlensError
from service.gateway import Gateway
from service.heads import OrdinaryHead
from service.routes.lock import LockedRoute


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a locked route, let in or not.

    Args:
        route: its path, as metrics have it.
        context: begun here, and handed on to the route.
        error: why it is refused, None when it is let in.
    """

    route: str
    context: RequestContext
    error: DepthlensError | None


class Door:
    """Asks the rules of all locked routes that have a path of their own.

    Args:
        gateway: what the rules are about.
        routes: of the application; others than locked ones have no door.
    """

    def __init__(self, gateway: Gateway, routes: Iterable[BaseRoute]) -> None:
        self._gateway = gateway
        self._routes = {
            (method.encode(), route.path.encode()): route
            for route in routes
            if isinstance(route, LockedRoute) and "{" not in route.path
            for method in route.methods or ()
        }
        proxies = gateway.settings.trusted_proxies
        self._proxies = ProxyHeadersMiddleware(_nothing, list(proxies)) if proxies else None

    def ask(self, head: OrdinaryHead, client: tuple[str, int] | None) -> Visit | None:
        """Whether a request may come in; None when its route has no door, or its path is not written as the route's.

        Args:
            head: of the request.
            client: address and port of the peer.
        """
        route = self._routes.get((head.method, head.path))
        if route is None:
            return None
        context = RequestContext.named(head.value(b"x-request-id").decode())
        scope: dict[str, Any] = {
            "type": "http",
            "headers": head.headers,
            "client": client,
            "state": {"context": context},
        }
        if self._proxies is not None:
            _run(self._proxies, scope)
        try:
            route.guard(self._gateway, Request(scope))
        except DepthlensError as error:
            context.problem_code = error.code
            return Visit(route.path, context, error.with_traceback(None))
        context.let_in = True
        return Visit(route.path, context, None)


async def _nothing(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """The application behind the proxies' middleware, which is here for what it writes into the scope."""


def _run(proxies: ProxyHeadersMiddleware, scope: Any) -> None:
    """Run the middleware, which waits for nothing but its application, without a task."""
    try:
        proxies(scope, None, None).send(None)  # type: ignore[arg-type]  # neither receives nor sends
    except StopIteration:
        return
    raise AssertionError("uvicorn's middleware for proxies waits for something")
