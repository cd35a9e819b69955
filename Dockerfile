# raw2s with the versions of constraints.txt. The first builds for a CPU, the second for NVIDIA GPUs (PyPI's torch brings its CUDA):
#   docker build -t raw2s .
#   docker build -t raw2s:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#   docker run --rm --shm-size=2g -v "$PWD/runs:/home/ray/runs" raw2s raw2s demo
# The container's user is ray, number 1000: a folder or a volume that it is to write must be that user's.
FROM python:3.11-slim-bookworm

# A compiler for Triton and for compiled layers, rsync for `ray up`, wget for KubeRay's probes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray

WORKDIR /opt/raw2s
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY raw2s raw2s
COPY jobs jobs
COPY configs configs
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt ".[crowd,ctranslate2,lora,metrics]"

USER 1000:1000
WORKDIR /home/ray
CMD ["raw2s", "--help"]
