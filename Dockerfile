# Two stages: the first makes a virtual environment from the lock, the second holds it and an ordinary user, and nothing else.
# Each RUN step is what a clean virtual environment needs as well: no step depends on another image's leftovers.

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/hexhail
COPY requirements.lock ./
RUN /opt/hexhail/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY hexhail hexhail
COPY location location
COPY routing routing
COPY matching matching
COPY pricing pricing
COPY simulator simulator
RUN /opt/hexhail/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 hexhail
COPY --from=build /opt/hexhail /opt/hexhail
ENV PATH=/opt/hexhail/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEXHAIL_DATA_DIR=/home/hexhail/data \
    HEXHAIL_LOCATION_ADDRESS=0.0.0.0:7601 \
    HEXHAIL_MATCHING_ADDRESS=0.0.0.0:7602 \
    HEXHAIL_PRICING_ADDRESS=0.0.0.0:7603
USER hexhail
WORKDIR /home/hexhail
RUN mkdir -p data
EXPOSE 7601 7602 7603
ENTRYPOINT ["hexhail"]
CMD ["up", "--city", "gridport"]
