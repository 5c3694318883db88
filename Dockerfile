# The service of docs/serve.md: exported models, without torch. Run it with a read-only file system.
FROM python:3.13-slim
COPY pyproject.toml README.md LICENSE /src/
COPY painseq /src/painseq
COPY configs /src/configs
COPY data_modules /src/data_modules
RUN pip install --no-cache-dir "/src[serve]" && rm -rf /src \
    && useradd --system --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin painseq
USER 10001
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/', timeout=3)"]
ENTRYPOINT ["painseq", "serve", "--host", "0.0.0.0"]
