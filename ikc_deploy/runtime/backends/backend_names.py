"""Names of the backends, as in `load(backend=...)`."""

from __future__ import annotations

from typing import Final

from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS

ONNXRUNTIME_CUDA: Final = "onnxruntime-cuda"

OPENVINO: Final = "openvino"
"""Name of the backend that has the setting `precision`, and devices with names."""

ONNXRUNTIME: Final = "onnxruntime"
"""Name of the backend that runs on every machine."""

CUDA_BACKENDS: Final = (*TENSORRT_VARIANTS, ONNXRUNTIME_CUDA)
"""Names of the backends for NVIDIA GPUs, which are selected by number."""

CPU_BACKENDS: Final = (OPENVINO, ONNXRUNTIME)
"""Names of the backends that run on a CPU, best first."""

BACKENDS: Final = (*CUDA_BACKENDS, *CPU_BACKENDS)
"""Names of the backends, best first."""
