"""The whole page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

# Before Gradio is imported: it would tell its makers of every start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from edgewright.demo.about import card
from edgewright.demo.benchmark import build_benchmark
from edgewright.demo.classify import build_classify
from edgewright.demo.compare import build_compare
from edgewright.demo.models import DemoModel

__all__ = ["DemoPage", "build_page"]

_MOST_WAITING = 8
_LARGEST_UPLOAD = "64mb"


@dataclass(frozen=True)
class DemoPage:
    """The page, and the folder of examples that it may show."""

    blocks: gr.Blocks
    examples: tempfile.TemporaryDirectory[str]

    def launch(self, **how: Any) -> Any:
        """Serve it: nothing is shared, nothing is told to anybody, uploads and the queue are limited.

        Args:
            how: Of Gradio's `launch`; what is given here wins.
        """
        self.blocks.queue(max_size=_MOST_WAITING, default_concurrency_limit=2, api_open=False)
        settings: dict[str, Any] = {
            "server_name": "127.0.0.1",
            "share": False,
            "quiet": True,
            "show_error": True,
            "max_file_size": _LARGEST_UPLOAD,
            "allowed_paths": [self.examples.name],
            "footer_links": [],
            "enable_monitoring": False,
            "ssr_mode": False,
            # Fonts of the system: others would be asked of Google by every visitor's browser.
            "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            "css": files("edgewright.demo").joinpath("style.css").read_text(encoding="utf-8"),
        }
        return self.blocks.launch(**(settings | how))


def build_page(models: Mapping[str, DemoModel]) -> DemoPage:
    """Tabs for classifying, comparing, measuring, and the bundle's card.

    Args:
        models: By name, at least one; the first is shown first.
    """
    names = list(models)
    first = models[names[0]]
    with gr.Blocks(title=f"{first.name} – edgewright", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"# {'edgewright' if len(names) > 1 else _plain(first.name)}\nAn image classifier on this machine.")
        with gr.Row():
            chosen = gr.Dropdown(names, value=names[0], label="Bundle", visible=len(names) > 1, elem_id="bundle")
            artefact = gr.Dropdown(
                first.artefacts,
                value=first.default,
                label="Artefact",
                info="A form of the same model",
                elem_id="artefact",
            )
        with gr.Tab("Classify"):
            examples = build_classify(models, chosen, artefact)
        with gr.Tab("Compare"):
            build_compare(models, chosen)
        with gr.Tab("Benchmark"):
            build_benchmark(models, chosen)
        with gr.Tab("About"):
            about = gr.HTML(card(first), elem_id="about")

        def another(name: str) -> tuple[Any, str]:
            model = models[name]
            return gr.Dropdown(choices=model.artefacts, value=model.default), card(model)

        chosen.change(another, chosen, [artefact, about], api_visibility="private")
    return DemoPage(blocks, examples)


def _plain(text: str) -> str:
    """Without what Markdown would take for more than letters."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+-!|&" else letter for letter in text)
