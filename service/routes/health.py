"""Liveness, readiness and metrics; never locked, never queued behind work."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.canary import Reason
from service.errors import Draining, ModelUnavailable
from service.gateway import GatewayDependency
from service.routes.documentation import problems
from service.schemas import Health, Readiness

router = APIRouter(tags=["service"])


@router.get("/health/live", summary="The process answers")
async def live() -> Health:
    """200 as long as the event loop turns; says nothing about models."""
    return Health(status="live")


@router.get("/health/ready", summary="A real inference answered lately", responses=problems(503))
async def ready(gateway: GatewayDependency) -> Readiness:
    """200 while a canary inference succeeds: Triton's own readiness stays 200 after a model's process died.

    Every model behind the routes has its canary; `degraded` when some of them do not answer. Their routes answer 503
    (502 where the model gives no usable values), the others go on.
    """
    if gateway.draining:
        raise Draining("The gateway is shutting down. Use another one.")
    states = gateway.model_states()
    if gateway.not_ready_because is not None:
        raise ModelUnavailable(f"No model answers: {gateway.not_ready_because}.", extra={"models": states})
    return Readiness(status="ready" if set(states.values()) == {Reason.OK} else "degraded", models=states)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(gateway: GatewayDependency) -> Response:
    """Prometheus text format; those of an embedded Triton (`nv_...`) behind the gateway's."""
    gateway.metrics.triton_up.set(1 if gateway.not_ready_because is None else 0)
    text = gateway.metrics.exposition()
    if gateway.embedded is not None:
        text += await gateway.embedded.exposition()
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
