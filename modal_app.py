"""The gateway on Modal: `modal deploy modal_app.py`.

Modal serves the same Flask app as gunicorn does, on real threads, one for each request.
"""

from pathlib import Path

import modal
from flask import Flask

HERE = Path(__file__).resolve().parent


def operator_secret(folder: Path) -> modal.Secret:
    """Take the settings from the `.env` in `folder`, when there is one.

    Always one secret, if an empty one: this file is imported again in the container, where no `.env` is, and
    Modal refuses to start a function that depends on fewer objects there than where it was deployed.
    """
    if (folder / ".env").is_file():  # without this look, Modal would search the folders above for one
        return modal.Secret.from_dotenv(folder)
    return modal.Secret.from_dict({})


image = (
    modal.Image.debian_slim(python_version="3.12")
    # An absolute path: a relative one would be taken from where `modal` is called.
    .uv_sync(str(HERE), extra_options="--no-dev", uv_version="0.13.9")
    # uv_sync installs what the project needs, not the project.
    .add_local_python_source("gateway", "wsgi")
)

app = modal.App("llm-gateway")


@app.function(
    image=image,
    secrets=[operator_secret(HERE)],
    cpu=1.0,  # a cold start is mostly the import of litellm: seconds of one whole core
    memory=1024,  # MiB: litellm takes 200, each open stream its threads and its buffers
    timeout=660,  # a call may last 600 s in all, and is then still to be settled
    scaledown_window=300,  # an idle container costs less than a caller who waits for a cold start
)
@modal.concurrent(max_inputs=200, target_inputs=100)  # most callers wait for a provider, and cost no CPU
@modal.wsgi_app()
def web() -> Flask:
    """Build the app that `gunicorn wsgi:app` serves too: keys are taken out of the environment here as there."""
    # The image has it; where `modal deploy` runs, importing it would be work for nothing.
    from gateway.serving import application  # noqa: PLC0415

    return application()
