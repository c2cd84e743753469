"""`realdamage serve`: the HTTP service; its options are the fields of `Settings`."""

import inspect
import sys
from typing import Annotated, Any

import typer

from realdamage.commands import app

_NAME = Annotated[str | None, typer.Argument(hidden=True, metavar="[NAME]")]
_HASH_KEY = "Read a key from standard input, print the line to store for it, and exit; may be "
_HASH_KEY += "followed by a name for the key"
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("serve", add_help_option=False, context_settings=_PASS_ON)
def serve(context: typer.Context) -> None:
    """Judge photos and claims over HTTP.

    Serves POST /v1/photos and POST /v1/claims, a review page at /, and /docs. Nothing is written to
    disk unless --store is given and a request says keep=true. Stops at SIGTERM after finishing its
    work; SIGHUP reads the keys and the model file again. Every option is also a variable:
    --max-photos as REALDAMAGE_MAX_PHOTOS.
    """
    from realdamage.service import auth, server
    from realdamage.service.settings import Settings, option_of, read_settings

    def run(hash_key: bool, name: str | None, **given: Any) -> None:
        if hash_key:
            print(auth.hash_key(sys.stdin.readline(), name or "client"))
        elif name:
            raise typer.BadParameter(f"unexpected argument {name!r}")
        else:
            server.serve(read_settings(given))

    options = []
    for name, field in Settings.model_fields.items():
        shown = field.default not in (None, "", False)
        text = f"{field.description}{f' [default: {field.default}]' if shown else ''}"
        kind = bool if field.annotation is bool else str  # pydantic reads and checks the text
        option = app.opt(text, option_of(name))
        annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
        options.append(_keyword(name, annotation, None))  # None: not given
    options.append(_keyword("hash_key", Annotated[bool, app.opt(_HASH_KEY, "--hash-key")], False))
    options.append(_keyword("name", _NAME, None))
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    # A command of its own, because `Settings` needs the packages of the extra.
    service = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    service.command(help=serve.__doc__)(run)
    service(context.args, prog_name="realdamage serve")


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
