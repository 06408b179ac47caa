"""The WSGI application."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

from flask import Flask, Request, Response, request, request_tearing_down
from flask.globals import request_ctx
from flask.typing import ResponseReturnValue
from werkzeug.routing import MapAdapter
from werkzeug.routing import Rule as WerkzeugRule

from gateway import admin, api, assembly, pages, web
from gateway.pipeline import Gateway
from gateway.settings import Settings


class Rule(WerkzeugRule):
    """A path, whose writer (`url_for`) is made when it is first asked.

    werkzeug makes Python of each path, twice, and compiles it: a twentieth of the start, for pages that link to few.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = super()._compile_builder
        made: Callable[..., tuple[str, str]] | None = None

        def write(_rule: WerkzeugRule, /, **values: Any) -> tuple[str, str]:
            nonlocal made
            if made is None:
                made = compiled(append_unknown)
            return made(self, **values)

        return write


class App(Flask):
    """Flask, with what it does anew for each request done once: a third of what it takes of a call.

    No function here is a coroutine, for which it looks six times a request; no session is kept, as there is no secret
    key; and most paths are the same few.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.found: dict[tuple[str, str], WerkzeugRule] = {}

    url_rule_class = Rule

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is (Flask.ensure_sync)."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """The way from a path to its rule, made when it is needed (Flask.create_url_adapter)."""
        return None if request is None else _Adapter(self, request)  # type: ignore[return-value]

    def preprocess_request(self) -> ResponseReturnValue | None:
        """Run what comes before a view (Flask.preprocess_request)."""
        if web.own(request).blueprint in self.before_request_funcs or self.url_value_preprocessors:
            return super().preprocess_request()
        for before in self.before_request_funcs.get(None, ()):
            if (answer := before()) is not None:
                return cast(ResponseReturnValue, answer)
        return None

    def process_response(self, response: Response) -> Response:
        """Run what comes after a view (Flask.process_response)."""
        context = web.own(request_ctx)
        if context._after_request_functions or context.request.blueprint in self.after_request_funcs:
            return super().process_response(response)
        for after in reversed(self.after_request_funcs.get(None, ())):
            response = cast(Response, after(response))
        return response

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """Run what comes at the end of a request, whatever became of it (Flask.do_teardown_request)."""
        if web.own(request).blueprint in self.teardown_request_funcs or request_tearing_down.receivers:
            super().do_teardown_request(exc)
            return
        for ended in reversed(self.teardown_request_funcs.get(None, ())):
            ended(exc)


class _Adapter:
    """werkzeug's MapAdapter for a request, which looks at Host, server and session of maps that this app has not."""

    def __init__(self, app: App, request: Request) -> None:
        self._app = app
        self._request = request

    @cached_property
    def whole(self) -> MapAdapter:
        """The adapter itself."""
        made = Flask.create_url_adapter(self._app, self._request)
        assert made is not None
        return made

    def match(self, return_rule: bool = True) -> tuple[WerkzeugRule, dict[str, Any]]:
        """Find the rule of the request's path (MapAdapter.match).

        Raises:
            HTTPException: there is none, or not for its method.
        """
        environ = self._request.environ
        key = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        rule = self._app.found.get(key)
        if rule is None or "HTTP_UPGRADE" in environ:  # a request for a web socket has rules of its own
            rule, values = self.whole.match(return_rule=True)
            if values or rule.rule != key[1]:
                return rule, dict(values)
            self._app.found[key] = rule  # as many as there are rules with no variable part, and no more
        return rule, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)


def create_app(
    settings: Settings | None = None,
    gateway: Gateway | None = None,
    *,
    whole_answer_s: float | None = None,
    workers: int | None = None,
) -> Flask:
    """Build the WSGI app.

    Args:
        settings: the configuration; read from `.env` and the environment where None.
        gateway: for tests and embedding; built from `settings` where None.
        whole_answer_s: the longest that a call may take that is not streamed; None for no bound of its own.
        workers: how many processes serve on this host; None for as many as the settings say, else one.

    Raises:
        SettingsError: the configuration cannot be used; it names every fault.
    """
    app = App("gateway", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # a redirect of a POST loses its body in most clients
    if gateway is None:
        gateway = assembly.build(settings or Settings.from_env(), whole_answer_s=whole_answer_s, workers=workers)
    web.bind(app, gateway)
    api.register(app)
    admin.register(app)
    pages.register(app)
    return app
