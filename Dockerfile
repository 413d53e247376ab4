# stmixer_mm on a CPU:
#   docker build -t stmixer_mm .
#   docker run --rm -v "$PWD:/data" stmixer_mm detect /data/VIDEO --out /data/detections
FROM python:3.12-slim
WORKDIR /stmixer_mm
COPY . .
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
RUN python tools/setup_env.py --here --extras
ENTRYPOINT ["stmixer"]
CMD ["--help"]
