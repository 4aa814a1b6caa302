"""The tab on which a picture gets its label: an upload, an example, or a camera's live picture."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from edgewright.demo.messages import sentence, with_sentences
from edgewright.demo.models import DemoModel
from edgewright.demo.picture_file import picture_file
from edgewright.runtime.classifier import Prediction
from edgewright.runtime.errors import ImageError

__all__ = ["build_classify", "verdict"]

_STAGES = (
    ("decode", "decode_ms"),
    ("resize", "preprocess_ms"),
    ("engine", "inference_ms"),
    ("label", "postprocess_ms"),
)
_STREAM_EVERY_S = 0.08


def verdict(prediction: Prediction) -> str:
    """The answer as a line of HTML."""
    label = html.escape(prediction.label)
    if prediction.known:
        return f'<p class="ew-verdict" role="status"><strong>{label}</strong>, {prediction.score:.0%}</p>'
    return (
        '<p class="ew-verdict ew-unsure" role="status"><strong>Not sure.</strong> '
        f"The best guess is {label}, {prediction.score:.0%}.</p>"
    )


def stages(prediction: Prediction) -> str:
    """Milliseconds of each stage as bars."""
    times = [(name, getattr(prediction.timings, field)) for name, field in _STAGES]
    whole = sum(ms for _, ms in times) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td><span class="ew-bar" style="width:{100 * ms / whole:.1f}%"></span></td>'
        f"<td>{ms:.2f} ms</td></tr>"
        for name, ms in times
    )
    return f'<table class="ew-stages"><caption>{whole:.1f} ms from file to label</caption>{rows}</table>'


def _examples(model: DemoModel, folder: Path) -> list[str]:
    """The golden pictures as files; their names are those of their labels."""
    found = []
    for number, vector in enumerate(model.bundle.manifest.golden):
        path = folder / f"{number}{Path(vector.image).suffix}"
        path.write_bytes(model.bundle.read(vector.image))
        found.append(str(path))
    return found


def _of(model: DemoModel, form: str) -> str | None:
    """The artefact, unless it is still that of the bundle shown before."""
    return form if form in model.artefacts else None


def build_classify(
    models: Mapping[str, DemoModel], chosen: gr.Dropdown, artefact: gr.Dropdown
) -> tempfile.TemporaryDirectory[str]:
    """Add the tab's content.

    Args:
        models: By name.
        chosen: The bundle.
        artefact: Which form of it.

    Returns:
        The folder of the examples, which the page must be allowed to show; it goes with the object.
    """
    temporary = tempfile.TemporaryDirectory(prefix="edgewright-demo-")
    folder = Path(temporary.name)
    first = next(iter(models.values()))

    @with_sentences
    def classify(file: str | bytes | None, name: str, form: str) -> tuple[Any, ...]:
        if not file:
            return "", None, None, ""
        model = models[name]
        try:
            prediction = model.label(file, _of(model, form))
        except ImageError as error:
            return sentence(error), None, None, ""
        shown = model.map_of(file, prediction.index) if model.has_maps else None
        scores = {each.label: each.score for each in prediction.top_k}
        return verdict(prediction), scores, shown, stages(prediction)

    @with_sentences
    def live(file: str | bytes | None, name: str, form: str) -> tuple[Any, ...]:
        if not file:
            return gr.skip(), gr.skip()
        model = models[name]
        prediction = model.label(file, _of(model, form), top_k=3)
        return verdict(prediction), {each.label: each.score for each in prediction.top_k}

    with gr.Row():
        with gr.Column():
            # The file as it is: our own decoder reads it, as on the device. Gradio would turn 16-bit pictures white.
            picture = picture_file(
                sources=["upload", "clipboard"],
                label="A picture: drop it, choose it, or paste it",
                elem_id="picture",
                height=320,
            )
            if examples := _examples(first, folder):
                gr.Examples(examples, picture, label="Examples: the bundle's golden pictures", elem_id="examples")
        with gr.Column():
            answer = gr.HTML(elem_id="answer")
            scores = gr.Label(num_top_classes=5, label="Scores", elem_id="scores", show_heading=False)
            maps = gr.Image(
                label="What speaks for it: yellow to red",
                interactive=False,
                buttons=["download", "fullscreen"],
                visible=any(model.has_maps for model in models.values()),
                elem_id="map",
                height=240,
            )
            times = gr.HTML(elem_id="stages")
    with gr.Accordion("Camera", open=False, elem_id="camera"):
        gr.Markdown("Pictures go to this server and are not kept.")
        with gr.Row():
            camera = picture_file(
                sources=["webcam"],
                streaming=True,
                label="Live",
                elem_id="webcam",
                height=320,
                format="jpeg",
            )
            with gr.Column():
                live_answer = gr.HTML(elem_id="live-answer")
                live_scores = gr.Label(num_top_classes=3, label="Scores", show_heading=False)
    inputs = [picture, chosen, artefact]
    outputs = [answer, scores, maps, times]
    picture.change(classify, inputs, outputs, api_name="classify", show_progress="minimal")
    for changed in (artefact, chosen):
        changed.change(classify, inputs, outputs, api_visibility="private", show_progress="minimal")
    camera.stream(
        live,
        [camera, chosen, artefact],
        [live_answer, live_scores],
        stream_every=_STREAM_EVERY_S,
        concurrency_limit=4,
        time_limit=300,
        show_progress="hidden",
        api_visibility="private",
    )
    return temporary
