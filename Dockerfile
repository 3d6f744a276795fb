# A bundle behind HTTP, as a user without rights on a file system that nothing writes to; see docs/serving.md.
#
#   docker build --tag multilabel .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --stop-timeout 70 --publish 127.0.0.1:8000:8000 \
#       --volume "$PWD/model:/model:ro" multilabel

FROM python:3.12-slim AS build
# With what a model in another runtime needs: --build-arg EXTRAS=serve,openvino
ARG EXTRAS=serve
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY multilabel ./multilabel
RUN python -m venv /opt/multilabel \
    && /opt/multilabel/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.12-slim
COPY --from=build /opt/multilabel /opt/multilabel
# All that is ever written goes to /tmp, and no picture does.
ENV PATH=/opt/multilabel/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["multilabel", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--model", "/model"]
