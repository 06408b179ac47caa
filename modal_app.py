"""The gateway on Modal: `modal deploy modal_app.py`.

Modal serves the same Flask app as gunicorn does, on real threads, one for each request.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

import modal
from dotenv import dotenv_values
from flask import Flask

HERE = Path(__file__).resolve().parent

#: Modal answers a web request that takes longer than 150 s with a redirect, which API clients do not follow.
WHOLE_ANSWER_S = 140.0


def operator_secret(folder: Path) -> modal.Secret:
    """Take the settings from the `.env` in `folder`, when there is one.

    Always one secret, if an empty one: this file is imported again in the container, where no `.env` is, and
    Modal refuses to start a function that depends on fewer objects there than where it was deployed.
    """
    if (folder / ".env").is_file():  # without this look, Modal would search the folders above for one
        return modal.Secret.from_dotenv(folder)
    return modal.Secret.from_dict({})


#: Where the operator's files lie in a container, as in that of `deploy/Dockerfile`; each by the variable that names it.
CONFIG = Path("/config")
CARRIED = {"GATEWAY_CONFIG": "gateway.yaml", "GATEWAY_PRICES": "prices.json"}


def carrying(image: modal.Image, folder: Path) -> modal.Image:
    """Add the files to an image that the `.env` in `folder` names, and without a name the `gateway.yaml` there."""
    named = dotenv_values(folder / ".env", interpolate=False, encoding="utf-8-sig")
    for variable, name in CARRIED.items():
        file = named.get(variable) or (name if variable == "GATEWAY_CONFIG" else "")
        if file and (folder / file).is_file():
            image = image.add_local_file(folder / file, str(CONFIG / name))
    return image


def point_at(config: Path, environ: MutableMapping[str, str]) -> None:
    """Have the variables name the files that came along: what `.env` calls them is a path of another machine."""
    for variable, name in CARRIED.items():
        if (config / name).is_file():
            environ[variable] = str(config / name)
    if environ.get("GATEWAY_CONFIG_YAML"):
        environ.pop("GATEWAY_CONFIG", None)  # as under gunicorn, where the text goes before a gateway.yaml


image = (
    modal.Image.debian_slim(python_version="3.12")
    # An absolute path: a relative one would be taken from where `modal` is called.
    .uv_sync(str(HERE), extra_options="--no-dev", uv_version="0.13.9")
    # uv_sync installs what the project needs, not the project.
    # Not the code alone, as Modal would: the pages are templates, scripts and styles.
    .add_local_python_source("gateway", "wsgi", ignore=["**/*.pyc"])
)
image = carrying(image, HERE)

app = modal.App("llm-gateway")


@app.cls(
    image=image,
    secrets=[operator_secret(HERE)],
    cpu=1.0,  # a cold start is mostly the import of litellm: seconds of one whole core
    memory=1024,  # MiB: litellm takes 200, each open stream its threads and its buffers
    timeout=660,  # a call may last 600 s in all, and is then still to be settled
    scaledown_window=300,  # an idle container costs less than a caller who waits for a cold start
    enable_memory_snapshot=True,  # taken after `load`: the next cold start does not import anything again
)
@modal.concurrent(max_inputs=200, target_inputs=100)  # most callers wait for a provider, and cost no CPU
class Gateway:
    """One container."""

    @modal.enter(snap=True)
    def load(self) -> None:
        """Import what is heavy. What is read here is frozen into the snapshot, so no setting is."""
        from gateway import serving  # noqa: PLC0415 - the image has it; where `modal deploy` runs it is not needed

        serving.load_heavy()

    @modal.enter(snap=False)
    def start(self) -> None:
        """Read the settings and build the app that `gunicorn wsgi:app` serves too."""
        from gateway import modal_bridge, serving  # noqa: PLC0415 - see load

        modal_bridge.install()
        point_at(CONFIG, os.environ)
        self.app = serving.application(whole_answer_s=WHOLE_ANSWER_S)

    @modal.wsgi_app()
    def web(self) -> Flask:
        """The app that Modal serves."""
        return self.app

    @modal.exit()
    def stop(self) -> None:
        """End the last calls and hand over the last traces; Modal gives a container 30 s for it."""
        self.app.extensions["gateway"].close(timeout_s=20, insist=True)
