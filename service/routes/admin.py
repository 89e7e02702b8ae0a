"""`/admin/models`: which version of a model serves; `/admin/servers`: which Tritons are asked.

There only where a key for it is set, and locked by that key.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request

from service.clients import Keys
from service.endpoint import Endpoint
from service.gateway import GatewayDependency
from service.rollout import ServedVersions
from service.routes.documentation import problems
from service.schemas import ModelVersions, ModelVersionsList, ServerState


async def _authorised(request: Request, gateway: GatewayDependency) -> None:
    Keys(gateway.settings.admin_key_hashes).check(request)


router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(_authorised)], responses=problems(401))

Version = Annotated[int, Query(ge=1, le=2**31 - 1, description="folder of the version in the model repository")]


@router.get("/models", summary="Versions of every model", responses=problems(503))
async def versions(gateway: GatewayDependency) -> ModelVersionsList:
    """What the servers have loaded, and what a rollback would go back to."""
    return ModelVersionsList(models=[_shown(served) for served in await gateway.rollout.models()])


@router.post("/models/{name}/load", summary="Serve another version", responses=problems(404, 422, 502, 503))
async def load(gateway: GatewayDependency, name: str, version: Version) -> ModelVersions:
    """Load it beside the one that serves, try it, and only then answer with it: no request fails, none sees a mixture.

    Answered when the change is over. A version that does not load or fails its trial never serves: 502.
    """
    return _shown(await gateway.rollout.load(name, str(version)))


@router.post("/models/{name}/rollback", summary="Serve the version before", responses=problems(404, 409, 502, 503))
async def rollback(gateway: GatewayDependency, name: str) -> ModelVersions:
    """Undo the last `load` of this gateway, as carefully as a load."""
    return _shown(await gateway.rollout.rollback(name))


@router.post("/models/{name}/unload", summary="Serve no version", responses=problems(404, 502, 503))
async def unload(gateway: GatewayDependency, name: str) -> ModelVersions:
    """Its routes answer 503 from then on, those of the ensembles over it too."""
    return _shown(await gateway.rollout.unload(name))


@router.get("/servers", summary="Every Triton behind this gateway")
async def servers(gateway: GatewayDependency) -> list[ServerState]:
    """Their addresses, and whether they are asked. Other gateways have a list of their own."""
    return [_state(endpoint) for endpoint in gateway.client.endpoints]


@router.post("/servers/{address}/drain", summary="Give a Triton nothing new", responses=problems(409, 422))
async def drain(gateway: GatewayDependency, address: str) -> ServerState:
    """Take it out of rotation; answered when what it worked on for this gateway has ended. It stays loaded and watched.

    409 `last_server` where no other one would be left that answers. Forgotten when this gateway starts anew.
    """
    return _state(await gateway.client.drain(address))


@router.post("/servers/{address}/resume", summary="Put a Triton back", responses=problems(422))
async def resume(gateway: GatewayDependency, address: str) -> ServerState:
    """It is asked again as soon as its readiness inferences are answered."""
    return _state(gateway.client.resume(address))


def _state(endpoint: Endpoint) -> ServerState:
    asked: Literal["serving", "unavailable"] = "serving" if endpoint.sound else "unavailable"
    left: Literal["draining", "drained"] = "draining" if endpoint.inflight else "drained"
    return ServerState(address=endpoint.address, state=left if endpoint.drained else asked, inflight=endpoint.inflight)


def _shown(served: ServedVersions) -> ModelVersions:
    return ModelVersions(
        name=served.model, version=served.version, loaded=served.loaded, previous=list(reversed(served.previous))
    )
