"""`GET /models`: what is served, with tensors, units and terms."""

from fastapi import APIRouter

from service.contract import MODELS, TensorSpec
from service.gateway import GatewayDependency
from service.routes.documentation import problems
from service.routes.lock import KEYS, LockedRoute
from service.schemas import Model, ModelList, Tensor

router = APIRouter(tags=["service"], route_class=LockedRoute, dependencies=KEYS)


@router.get("/models", summary="Served models", responses=problems(401, 429, 500, 503))
async def models(gateway: GatewayDependency) -> ModelList:
    """Every model of the contract; `ready` and `versions` come from Triton at this moment."""
    served = await gateway.client.served_models()
    versions: dict[str, list[str]] = {}
    for entry in served:
        if entry.ready:
            versions.setdefault(entry.name, []).append(entry.version)
    settings = gateway.settings
    return ModelList(
        models=[
            Model(
                name=spec.name,
                kind=spec.kind,
                tasks=sorted(spec.tasks),
                versions=sorted(versions.get(spec.name, []), key=int),
                ready=spec.name in versions,
                depth_kind=spec.depth_kind,
                precision=spec.precision,
                license=spec.license,
                description=spec.description,
                inputs=[_tensor(tensor) for tensor in spec.inputs],
                outputs=[_tensor(tensor) for tensor in spec.outputs],
            )
            for spec in MODELS.values()
        ],
        defaults={
            "depth": settings.depth_model,
            "segmentation": settings.segmentation_model,
            "focus": settings.focus_model,
        },
    )


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(name=spec.name, dtype=spec.dtype, dims=spec.dims, unit=spec.unit)
