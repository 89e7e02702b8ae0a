"""`GET /models`: what is served, with tensors, units and terms."""

from fastapi import APIRouter

from service.contract import MODELS, STEREO, ModelSpec, TensorSpec
from service.gateway import GatewayDependency
from service.routes.documentation import problems
from service.routes.lock import KEYS, LockedRoute
from service.schemas import Model, ModelList, Tensor

router = APIRouter(tags=["service"], route_class=LockedRoute, dependencies=KEYS)


_OPTIONAL = (
    "Optional: `python -m training export --model stereo_madnet --checkpoint FILE` puts it into the model repository, "
    "and its process needs the extra `training` (torch)."
)


@router.get("/models", summary="Served models", responses=problems(401, 429, 500, 503))
async def models(gateway: GatewayDependency) -> ModelList:
    """The models of every repository, then those beside them; `ready` and `versions` come from Triton at this moment.

    Where Triton restricts its index and this gateway has no key to it, a model beside them is listed once it was asked.
    """
    served = await gateway.client.served_models()
    specs: dict[str, ModelSpec] = {**MODELS, STEREO.name: STEREO}
    versions: dict[str, list[str]] = {}
    for entry in served:
        if entry.spec is not None:
            specs[entry.name] = entry.spec
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
                not_ready_because=_OPTIONAL if spec is STEREO and spec.name not in versions else None,
                depth_kind=spec.depth_kind,
                sizes=list(spec.sizes),
                focal_share=spec.focal_share,
                precision=spec.precision,
                license=spec.license,
                description=spec.description,
                inputs=[_tensor(tensor) for tensor in spec.inputs],
                outputs=[_tensor(tensor) for tensor in spec.outputs],
            )
            for spec in specs.values()
        ],
        defaults={
            "depth": settings.depth_model,
            "segmentation": settings.segmentation_model,
            "focus": settings.focus_model,
        },
    )


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(name=spec.name, dtype=spec.dtype, dims=spec.dims, unit=spec.unit)
