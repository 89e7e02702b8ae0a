# NVIDIA's own Triton, with the probe of docker/triton_health.py and a user that is not root. The models are a volume.
#
#   docker build -f docker/triton-gpu.Dockerfile -t depthlens-triton-gpu .
#
# For a build that gives the same image every time name a digest:
#   --build-arg TRITON=nvcr.io/nvidia/tritonserver:26.10-py3@sha256:...
ARG TRITON=nvcr.io/nvidia/tritonserver:26.10-py3

FROM ${TRITON}
COPY docker/triton_health.py /opt/healthcheck/
WORKDIR /opt/depthlens
USER 10001:10001
EXPOSE 8000 8001 8002
# Server-ready says nothing about a model whose process died; an inference does. Plans take a while to be loaded.
HEALTHCHECK --interval=5s --timeout=5s --start-period=300s --retries=3 \
  CMD ["python3", "-I", "/opt/healthcheck/triton_health.py"]
# What it serves and how is said by docker/compose.gpu.yaml and k8s/overlays/gpu.
CMD ["tritonserver", "--help"]

ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="depthlens-triton-gpu" \
      org.opencontainers.image.description="Triton Inference Server on NVIDIA GPUs for the Depthlens model repository" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
