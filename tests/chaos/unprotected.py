"""`python -m tests.chaos.unprotected NAME serve ...`: the service without one protection, as a stock system is.

Each function below is a NAME: it replaces one protection by what a service without it does, in a few lines, and only
that one; then the service's own `main` runs. The negative control of a row is started this way, and must fail.
"""

import sys
from collections.abc import Callable

Removal = Callable[[], None]

UNPROTECTED: dict[str, Removal] = {}


def without(name: str) -> Callable[[Removal], Removal]:
    """Register what removes the protection called `name`."""

    def register(remove: Removal) -> Removal:
        assert name not in UNPROTECTED, f"{name} is there twice"
        UNPROTECTED[name] = remove
        return remove

    return register


@without("cancellation")
def _cancellation() -> None:
    """The handler runs to its end, whoever has left, as in any FastAPI service."""
    from service import gateway

    async def to_the_end(request: object, work: Callable[[], object]) -> object:
        return await work()  # type: ignore[misc]

    gateway.until_left = to_the_end  # type: ignore[assignment]


@without("upload-accounts")
def _upload_accounts() -> None:
    """What an upload held is given back only when the request ends well."""
    from contextlib import contextmanager

    from service.upload import UploadMemory, UploadShare

    @contextmanager
    def share(self, client):  # type: ignore[no-untyped-def]
        held = UploadShare(self, client)
        yield held
        self.count(-held.held_bytes, client)

    UploadMemory.share = share  # type: ignore[method-assign]


@without("strict-numbers")
def _strict_numbers() -> None:
    """Numbers are read as Python and pydantic read them."""
    from service import gateway, schemas

    def stock(text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            return None

    schemas.parse_decimal = gateway.parse_decimal = stock


@without("ranges")
def _ranges() -> None:
    """A click is taken wherever it is."""
    from service.imaging import geometry

    geometry.check_inside = lambda *place, **named: None  # type: ignore[assignment]


@without("known-models")
def _known_models() -> None:
    """Any name is passed on to Triton."""
    from dataclasses import replace

    from service import inference
    from service.contract import MODELS
    from service.routes import depth, focus, segmentation

    def named(name, default, task):  # type: ignore[no-untyped-def]
        return replace(MODELS["focus_on_depth"], name=default if name is None else name)

    depth.find_model = focus.find_model = segmentation.find_model = named
    inference._contract_entry = lambda name: named(name, name, None)


@without("leak")
def _leak() -> None:
    """Nothing is removed: every request leaves 32 kB behind, which the judge of long runs has to notice."""
    from service.middleware import RequestMiddleware

    handle, kept = RequestMiddleware.__call__, []

    async def leaking(self, scope, receive, send):  # type: ignore[no-untyped-def]
        kept.append(b"x" * 32_768)
        await handle(self, scope, receive, send)

    RequestMiddleware.__call__ = leaking  # type: ignore[method-assign]


@without("admission")
def _admission() -> None:
    """Everything is worked on at once, as in a server without a bound."""
    from service.admission import Admission

    bounded = Admission.__init__
    Admission.__init__ = lambda self, places, *rest: bounded(self, 10**6, *rest)  # type: ignore[method-assign]


@without("wait-bound")
def _wait_bound() -> None:
    """Requests wait as long as their deadlines allow."""
    from service.admission import Admission

    bounded = Admission.__init__

    def patient(self, places, waiting, wait_s, metrics):  # type: ignore[no-untyped-def]
        bounded(self, places, waiting, 1e6, metrics)

    Admission.__init__ = patient  # type: ignore[method-assign]


@without("fair-share")
def _fair_share() -> None:
    """One queue for all, first come first served."""
    from service.clients import Clients

    identify = Clients.identify
    Clients.identify = lambda self, connection: identify(self, connection) and "all"  # type: ignore[method-assign]


@without("silent-errors")
def _silent_errors() -> None:
    """An error is answered with its own text, as Triton, KServe and many others do."""
    from service import inference
    from service.errors import ModelFailed

    inference.translate = lambda status, text, model: ModelFailed(f"{status}: {text}")


def main() -> int:
    """Remove the protection named first, then run the service with the rest of the arguments."""
    name, *arguments = sys.argv[1:]
    UNPROTECTED[name]()
    from service.__main__ import main as serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
