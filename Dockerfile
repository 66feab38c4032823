# The runtime on NVIDIA's TensorRT image. Not built or run by this project yet: checked with hadolint,
# and its steps as uid 10001 in plain folders (docs/cuda.md).
#
#     docker compose run --rm ikc ikc-doctor
#
# The tag decides TensorRT and CUDA, and is named nowhere else. Plans work with the TensorRT that built
# them only: build them in this image.
ARG TENSORRT_TAG=25.10-py3
FROM nvcr.io/nvidia/tensorrt:${TENSORRT_TAG}

WORKDIR /opt/ikc-deploy
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY ikc_deploy ikc_deploy
COPY engines engines
COPY training training

# The image is the environment: there is no other to protect. pip compiles pycuda against its CUDA;
# TensorRT itself is there already and satisfies the extra.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
RUN python3 -m pip install --no-cache-dir --constraint constraints.txt '.[tensorrt,video]'

# Frames, bundles and engines come from and go to the host. A new volume takes the owner of the
# folder that it is mounted on, so the cache must be there before.
RUN groupadd --gid 10001 ikc \
    && useradd --create-home --uid 10001 --gid 10001 ikc \
    && install --directory --owner=10001 --group=10001 /data /home/ikc/.cache
USER 10001:10001
WORKDIR /data

ENTRYPOINT []
CMD ["ikc-doctor"]
