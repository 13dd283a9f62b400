# One image for the web, the worker and beat; see compose.yaml.
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home carousel \
    && install --directory --owner carousel --mode 0700 /data
WORKDIR /app

# The requirements come first, so that a change of code does not install them again.
COPY requirements/runtime.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    -r requirements/runtime.txt
COPY . .
RUN python -m compileall -q .

USER carousel
ENV CAROUSEL_DATA_DIR=/data
EXPOSE 8000
ENTRYPOINT ["python", "manage.py"]
# Everything in one container: mount a volume on /data to keep it.
CMD ["serve", "--host", "0.0.0.0"]
