# The networks, for a cluster: an init container copies them from here into the pod, file by file, each compared with
# the SHA-256 that the deployment names (k8s/base/model_store.py). The context is the model repository itself:
#
#   docker build -f docker/models.Dockerfile -t depthlens-models model_repository
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE}
COPY . /models
USER 10001:10001
# It runs once and ends.
HEALTHCHECK NONE
CMD ["python3", "-c", "import pathlib; print(*sorted(pathlib.Path('/models').rglob('*')), sep='\\n')"]

ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="depthlens-models" \
      org.opencontainers.image.description="Model repository of Depthlens" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
