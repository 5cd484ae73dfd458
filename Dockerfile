# The project's images; `python3 hack/images build` builds them without Docker.
#
#   operator                 the operator                       entry point: triton-operator
#   engine-builder           jobs and the repository's keeper   entry point: engine-builder
#   triton-cpu               a real Triton for machines without a GPU (tests, demo)
#   tensorrt-rtx             a TensorRT that compiles without a GPU (tests, demo)
#   triton-tensorrt-double   triton-cpu with a stand-in for its TensorRT backend (tests, demo)
#
# Compilers, pip and package lists stay in the build stages. Dependencies are a layer of their own, below
# our code: a change in our code rebuilds and ships kilobytes. Bytecode is compiled here, with
# unchecked hashes, because the root file system is read-only where the images run.

ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

# ---- what all images start from --------------------------------------------------------------
FROM ${BASE_IMAGE} AS python
RUN apt-get -o Acquire::Retries=3 update \
    && DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && groupadd --gid 1000 triton \
    && useradd --uid 1000 --gid 1000 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin triton
ENV HOME=/tmp \
    PATH=/opt/app/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 1000:1000

# ---- pip, in a place of its own: what it installs into has none ------------------------------
FROM python AS pip
USER 0:0
RUN apt-get -o Acquire::Retries=3 update \
    && DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install --yes --no-install-recommends python3-venv \
    && python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/venv \
    && echo /opt/app > /opt/venv/lib/python3.11/site-packages/app.pth
# where the one who builds keeps pip's settings (mirrors, certificates); a missing file is no error
ARG PIP_CONFIG_FILE=/etc/pip.conf
ENV PIP_CONFIG_FILE=${PIP_CONFIG_FILE} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_COMPILE=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_ROOT_USER_ACTION=ignore

# ---- our own packages, built with the hatchling that the lock pins ----------------------------
FROM pip AS packager
COPY locks/build.txt /locks/
RUN /opt/pip/bin/pip install --quiet --require-hashes --requirement /locks/build.txt

FROM packager AS engine-builder-package
COPY engine_builder /source/engine_builder
RUN /opt/pip/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /wheels /source/engine_builder \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-deps --no-index --target /opt/app /wheels/*.whl \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/app

FROM packager AS operator-package
COPY engine_builder /source/engine_builder
COPY operator /source/operator
RUN /opt/pip/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /wheels /source/engine_builder /source/operator \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-deps --no-index --target /opt/app /wheels/*.whl \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/app

# ---- operator --------------------------------------------------------------------------------
FROM pip AS operator-dependencies
COPY locks/operator.txt /locks/
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --requirement /locks/operator.txt \
    && rm -rf /opt/venv/lib/python3.11/site-packages/numpy/*/tests \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM python AS operator
COPY --from=operator-dependencies /opt/venv /opt/venv
COPY --from=operator-package /opt/app /opt/app
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="triton-operator" \
      org.opencontainers.image.description="Kubernetes operator for NVIDIA Triton Inference Server" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENTRYPOINT ["triton-operator"]

# ---- engine-builder --------------------------------------------------------------------------
FROM pip AS engine-builder-dependencies
COPY locks/engine-builder.txt /locks/
# The lock is complete; --no-deps, as it overrides a limit of botocore's (pyproject.toml).
# Of onnx's test data only the small nets stay: they are the sample models of the examples; of onnxruntime's tools
# the quantiser and the FP16 converter, with what they import; of OpenVINO what reads ONNX and runs on a CPU
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --no-deps --requirement /locks/engine-builder.txt \
    && cd /opt/venv/lib/python3.11/site-packages \
    && find onnx/backend/test/data -mindepth 1 -maxdepth 1 ! -name light -exec rm -rf {} + \
    && rm -rf numpy/*/tests onnxruntime/tools onnxruntime/transformers/models \
    && rm -f openvino/libs/*_gpu_* openvino/libs/*_npu_* openvino/libs/*_jax_* openvino/libs/*_paddle_* \
        openvino/libs/*_pytorch_* openvino/libs/*_tensorflow_* openvino/libs/cache.json \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM python AS engine-builder
COPY --from=engine-builder-dependencies /opt/venv /opt/venv
COPY --from=engine-builder-package /opt/app /opt/app
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="triton-operator engine-builder" \
      org.opencontainers.image.description="Jobs and keeper of triton-operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENTRYPOINT ["engine-builder"]

# ---- triton-cpu ------------------------------------------------------------------------------
FROM pip AS triton-cpu-server
COPY locks/triton-cpu.txt /locks/
# The wheel's tritonserver laid out as in NVIDIA's image. The Python backend's stub embeds an isolated Python, which
# heeds neither PYTHONPATH nor a virtual environment but looks into the folder of the backend: what our backend
# imports lies there.
RUN /opt/pip/bin/pip install --quiet --require-hashes --no-deps --requirement /locks/triton-cpu.txt --target /site \
    && mkdir -p /opt/tritonserver/backends /packages \
    && mv /site/pytriton/tritonserver/bin /site/pytriton/tritonserver/caches /opt/tritonserver/ \
    && mv /site/pytriton/tritonserver/backends/python /opt/tritonserver/backends/ \
    && mv /site/pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub /opt/tritonserver/backends/python/ \
    && mv /site/nvidia_pytriton.libs /opt/tritonserver/lib \
    && rm -rf /opt/tritonserver/lib/libpython3* \
    && mkdir /packages/onnxruntime /packages/openvino \
    && mv /site/numpy /site/numpy.libs /site/onnxruntime /packages/onnxruntime/ \
    && mv /site/openvino /packages/openvino/ \
    && ln -s ../onnxruntime/numpy ../onnxruntime/numpy.libs /packages/openvino/ \
    && cd /packages/onnxruntime \
    && rm -rf numpy/*/tests onnxruntime/transformers onnxruntime/tools onnxruntime/quantization \
    && cd /packages/openvino/openvino/libs \
    && rm -f *_gpu_* *_npu_* *_jax_* *_paddle_* *_pytorch_* *_tensorflow_* cache.json \
    && chmod -R a+rX /opt/tritonserver /packages \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/tritonserver/backends /packages

FROM pip AS triton-cpu-backend
COPY images/triton-cpu /source
RUN for name in onnxruntime openvino; do \
        mkdir -p "/backends/$name" && cp -r /source/common/. "/source/$name/." "/backends/$name/" || exit 1; \
    done \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /backends

# From `python`, whose standard library has its bytecode: every model's process imports from it.
FROM python AS triton-cpu
USER 0:0
RUN apt-get -o Acquire::Retries=3 update \
    && DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install --yes --no-install-recommends libpython3.11 libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=triton-cpu-server /opt/tritonserver /opt/tritonserver
COPY --from=triton-cpu-server /packages /opt/tritonserver/backends
COPY --from=triton-cpu-backend /backends /opt/tritonserver/backends
# Each model has a process that imports numpy: without threads, which no backend here uses, that costs half.
ENV HOME=/tmp \
    LD_LIBRARY_PATH=/opt/tritonserver/lib \
    OPENBLAS_NUM_THREADS=1 \
    PATH=/opt/tritonserver/bin:/usr/local/bin:/usr/bin:/bin
USER 1000:1000
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="triton-operator triton-cpu" \
      org.opencontainers.image.description="Triton Inference Server with onnxruntime and OpenVINO on the CPU, for tests" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}"
ENTRYPOINT ["tritonserver"]

# ---- tensorrt-rtx ----------------------------------------------------------------------------
FROM pip AS tensorrt-rtx-compiler
COPY locks/tensorrt-rtx.txt /locks/
# The module `tensorrt_rtx` is published as source alone, and has two lines.
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --no-deps --requirement /locks/tensorrt-rtx.txt \
    && printf 'from tensorrt_rtx_bindings import *\nfrom tensorrt_rtx_bindings import __version__\n' \
        > /opt/venv/lib/python3.11/site-packages/tensorrt_rtx.py \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM python AS tensorrt-rtx
COPY --from=tensorrt-rtx-compiler /opt/venv /opt/venv
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="triton-operator tensorrt-rtx" \
      org.opencontainers.image.description="TensorRT for RTX, which compiles without a GPU, for tests; not to be published" \
      org.opencontainers.image.licenses="LicenseRef-NVIDIA-Proprietary" \
      org.opencontainers.image.version="${VERSION}"

# ---- triton-tensorrt-double ------------------------------------------------------------------
FROM pip AS triton-tensorrt-double-backend
COPY tests/images/triton-tensorrt-double/tensorrt /tensorrt
COPY engine_builder/engine_builder /tensorrt/engine_builder
# What it shares with the backend onnxruntime it finds there.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /tensorrt \
    && cd /tensorrt \
    && ln -s ../onnxruntime/model.py onnx_backend.py \
    && for shared in batching.py datatypes.py options.py served.py signature.py numpy numpy.libs onnxruntime; do ln -s "../onnxruntime/${shared}" .; done

FROM triton-cpu AS triton-tensorrt-double
COPY --from=triton-tensorrt-double-backend /tensorrt /opt/tritonserver/backends/tensorrt
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="triton-operator triton-tensorrt-double" \
      org.opencontainers.image.description="triton-cpu with a stand-in for Triton's TensorRT backend, for tests" \
      org.opencontainers.image.version="${VERSION}"
