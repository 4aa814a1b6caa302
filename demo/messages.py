"""What the page says when something goes wrong: a sentence for people, without paths and without a traceback."""

from __future__ import annotations

import functools
import html
import inspect
import re
import traceback
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from edgewright.runtime.console import warn
from edgewright.runtime.errors import BackendError, EdgewrightError, ImageError

__all__ = ["human_sentence", "sentence", "with_sentences"]

Function = TypeVar("Function", bound=Callable[..., Any])

_PATH = re.compile(r"(?:'[^'\n]*[/\\][^'\n]*'|\"[^\"\n]*[/\\][^\"\n]*\"|(?:[A-Za-z]:)?(?:[/\\][\w.+~-]+)+)")


def human_sentence(error: Exception) -> str:
    """What a visitor is told; the rest is for whoever runs the page and stands on the console."""
    if isinstance(error, ImageError):
        said = _PATH.sub("the file", str(error))
        return f"This is no picture that can be used here. {said}"
    if isinstance(error, BackendError):
        return "The engine could not compute this. Another artefact may work; whoever runs this page finds the reason on the console."
    if isinstance(error, EdgewrightError):
        return _PATH.sub("the file", str(error))
    return "Something went wrong on our side. Please try again; whoever runs this page finds the reason on the console."


def sentence(error: Exception) -> str:
    """The same as HTML, in the place of an answer."""
    return f'<p class="ew-verdict ew-unsure" role="alert">{html.escape(human_sentence(error))}</p>'


def with_sentences(function: Function) -> Function:
    """`function`, whose exceptions become a sentence in the page; works for generators as well."""
    import gradio as gr

    def tell(error: Exception) -> Any:
        if not isinstance(error, ImageError):
            warn("".join(traceback.format_exception(error)).rstrip())
        return gr.Error(html.escape(human_sentence(error)), print_exception=False)

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*arguments: Any, **named: Any) -> Generator[Any, None, None]:
            try:
                yield from function(*arguments, **named)
            except gr.Error:
                raise
            except Exception as error:  # whatever it is, a visitor gets a sentence
                raise tell(error) from None

        return steps  # type: ignore[return-value]

    @functools.wraps(function)
    def once(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:  # as above
            raise tell(error) from None

    return once  # type: ignore[return-value]
