# The runtime on NVIDIA's TensorRT image. Not built or run by this project yet: checked with hadolint.
#
#     docker compose run --rm ikc ikc-doctor
#
# The tag decides TensorRT and CUDA, and is named nowhere else. Plans work with the TensorRT that built
# them only: build them in this image.
ARG TENSORRT_TAG=25.10-py3
FROM nvcr.io/nvidia/tensorrt:${TENSORRT_TAG}

WORKDIR /opt/ikc-deploy
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY ikc_deploy ikc_deploy
COPY engines engines

# pip compiles pycuda against the image's CUDA; TensorRT itself is there already and satisfies the
# extra. setup.cfg bounds the versions.
# hadolint ignore=DL3013
RUN python3 -m pip install --no-cache-dir '.[tensorrt,video]'

# Frames, bundles and engines come from and go to the host.
RUN useradd --create-home --uid 10001 ikc && install --directory --owner=10001 /data
USER 10001
WORKDIR /data

ENTRYPOINT []
CMD ["ikc-doctor"]
