"""The tab on which all artefacts of a bundle see the same picture, or the same folder of pictures."""

from __future__ import annotations

import errno
import html
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from edgewright.demo.messages import sentence, with_sentences
from edgewright.demo.models import DemoModel
from edgewright.demo.picture_file import picture_file
from edgewright.runtime.classifier import Prediction
from edgewright.runtime.errors import BackendError, ImageError, UsageError
from edgewright.runtime.images import EXTENSIONS

__all__ = ["agreement_table", "build_compare", "compare_pictures", "comparison_table", "pictures_in_upload"]

MOST_PICTURES = 500
_LARGEST_PICTURE = 32 * 1024 * 1024
_LARGEST_ZIP = 512 * 1024 * 1024
_SHOWN = 40
# What zipfile and the decompressors raise for bytes that are no ZIP, or one of a kind they do not know.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,  # a stream that ends too early
    RuntimeError,  # NotImplementedError too: a compression or version that zipfile does not have
    ValueError,  # a date, a name or an offset that cannot be
)
_DAMAGED_ZIP = "The ZIP is damaged or of a kind that cannot be read. Make it again."
_SUFFIXES = {suffix.lower() for suffix in EXTENSIONS}


@dataclass(frozen=True)
class Row:
    """What an artefact says of a picture, or why it says nothing."""

    artefact: str
    precision: str
    backend: str
    prediction: Prediction | None
    why: str = ""


def rows_of(model: DemoModel, source: str | bytes) -> list[Row]:
    """Every artefact's answer; the first one's picture must be readable.

    Raises:
        ImageError: no picture.
    """
    rows = []
    for name in model.artefacts:
        artefact = model.bundle.manifest.artefact(name)
        try:
            rows.append(Row(name, artefact.precision, artefact.backend, model.label(source, name)))
        except BackendError:
            rows.append(Row(name, artefact.precision, artefact.backend, None, "does not run here"))
    return rows


def comparison_table(rows: Sequence[Row]) -> str:
    """A table in HTML; an artefact that disagrees with the first one stands out."""
    first = next((row.prediction.label for row in rows if row.prediction), None)
    body = []
    for row in rows:
        names = "".join(f"<td>{html.escape(text)}</td>" for text in (row.artefact, row.precision, row.backend))
        if row.prediction is None:
            body.append(f'<tr class="ew-absent">{names}<td colspan="3">{html.escape(row.why)}</td></tr>')
            continue
        found = row.prediction
        ms = found.timings.inference_ms
        differs = found.label != first
        mark = ' class="ew-differs"' if differs else ""
        note = ' <span class="ew-note">disagrees</span>' if differs else ""
        unsure = "" if found.known else ' <span class="ew-note">not sure</span>'
        body.append(
            f"<tr{mark}>{names}<td><strong>{html.escape(found.label)}</strong>{note}{unsure}</td>"
            f"<td>{found.score:.1%}</td><td>{ms:.2f}</td></tr>"
        )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("artefact", "precision", "engine", "label", "score", "engine ms")
    )
    return f'<div class="ew-scroll"><table class="ew-table"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def pictures_in_upload(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the pictures among uploaded files, those inside ZIP archives included. Nothing is unpacked to disk.

    Raises:
        UsageError: a ZIP that is damaged, encrypted, or unpacks to too much; too many pictures; none at all.
    """
    count = 0
    for file in map(Path, files):
        for name, data in _from_zip(file) if file.suffix.lower() == ".zip" else _from_file(file):
            count += 1
            if count > MOST_PICTURES:
                raise UsageError(f"More than {MOST_PICTURES} pictures. Send fewer at once.")
            yield name, data
    if not count:
        raise UsageError(f"No pictures among the files. Send {', '.join(sorted(_SUFFIXES))}, or a ZIP of them.")


def _from_file(file: Path) -> Iterator[tuple[str, bytes]]:
    if file.suffix.lower() not in _SUFFIXES:
        return
    if file.stat().st_size > _LARGEST_PICTURE:
        raise UsageError(f"A picture has more than {_LARGEST_PICTURE // 2**20} MB. Send a smaller one.")
    yield file.name, file.read_bytes()


def _from_zip(file: Path) -> Iterator[tuple[str, bytes]]:
    left = _LARGEST_ZIP
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                name = entry.filename.replace("\\", "/").rpartition("/")[2]
                if entry.is_dir() or Path(name).suffix.lower() not in _SUFFIXES or name.startswith("."):
                    continue
                if entry.flag_bits & 1:
                    raise UsageError("The ZIP is encrypted. Send it without a password.")
                with archive.open(entry) as stream:
                    # What the header says of the size is not believed.
                    data = stream.read(min(left, _LARGEST_PICTURE) + 1)
                left -= len(data)
                if left < 0 or len(data) > _LARGEST_PICTURE:
                    raise UsageError("The ZIP unpacks to too much. Send fewer or smaller pictures.")
                yield name, data
    except _DAMAGED as error:
        raise UsageError(_DAMAGED_ZIP) from error
    except OSError as error:
        # bzip2 has no error of its own, and an offset before the file's beginning is an invalid argument to the system;
        # any other is the disk's fault, not the ZIP's.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise UsageError(_DAMAGED_ZIP) from error


@dataclass
class Agreement:
    """How often artefacts name the same label, and what they differ on."""

    artefacts: list[str]
    same: dict[tuple[str, str], int]
    pictures: int
    unreadable: list[str]
    differing: list[tuple[str, bytes, dict[str, str]]]


def compare_pictures(model: DemoModel, pictures: Iterator[tuple[str, bytes]]) -> Iterator[Agreement]:
    """The agreement so far, after each picture."""
    names = []
    for name in model.artefacts:
        try:
            model.classifier(name)
        except BackendError:
            continue
        names.append(name)
    found = Agreement(names, {(one, other): 0 for one in names for other in names}, 0, [], [])
    for title, data in pictures:
        try:
            labels = {name: model.label(data, name, top_k=1).label for name in names}
        except ImageError:
            found.unreadable.append(title)
            yield found
            continue
        found.pictures += 1
        for one in names:
            for other in names:
                found.same[one, other] += labels[one] == labels[other]
        if len(set(labels.values())) > 1 and len(found.differing) < _SHOWN:
            found.differing.append((title, data, labels))
        yield found


def agreement_table(found: Agreement) -> str:
    """Shares of pictures on which two artefacts agree, as HTML."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in found.artefacts)
    rows = []
    for one in found.artefacts:
        cells = "".join(
            f'<td class="{"ew-differs" if found.same[one, other] < found.pictures else ""}">'
            f"{found.same[one, other] / max(1, found.pictures):.1%}</td>"
            for other in found.artefacts
        )
        rows.append(f'<tr><th scope="row">{html.escape(one)}</th>{cells}</tr>')
    unreadable = ""
    if found.unreadable:
        names = ", ".join(map(html.escape, found.unreadable[:10]))
        unreadable = f"<p>{len(found.unreadable)} could not be read: {names}</p>"
    return (
        f"<p>{found.pictures} pictures; how often two artefacts name the same label:</p>"
        f'<div class="ew-scroll"><table class="ew-table"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{unreadable}"
    )


def build_compare(models: Mapping[str, DemoModel], chosen: gr.Dropdown) -> None:
    """Add the tab's content."""

    @with_sentences
    def one(file: str | bytes | None, name: str) -> str:
        if not file:
            return ""
        try:
            return comparison_table(rows_of(models[name], file))
        except ImageError as error:
            return sentence(error)

    @with_sentences
    def many(files: list[str] | None, name: str, progress: gr.Progress = gr.Progress()) -> Iterator[tuple[str, Any]]:
        if not files:
            yield "", []
            return
        found = None
        for found in compare_pictures(models[name], pictures_in_upload(files)):
            progress((found.pictures, None), unit="pictures")
        assert found is not None
        yield agreement_table(found), [_shown(*each) for each in found.differing]

    with gr.Row():
        with gr.Column(scale=1):
            picture = picture_file(
                sources=["upload", "clipboard"],
                label="One picture",
                elem_id="compare-picture",
                height=260,
            )
        with gr.Column(scale=2):
            table = gr.HTML(elem_id="comparison")
    with gr.Row():
        with gr.Column(scale=1):
            files = gr.File(
                file_count="multiple",
                file_types=["image", ".zip"],
                label=f"Many pictures, or a ZIP (up to {MOST_PICTURES})",
                elem_id="compare-files",
            )
        with gr.Column(scale=2):
            agreement = gr.HTML(elem_id="agreement")
            gallery = gr.Gallery(label="On these they differ", columns=4, object_fit="contain", elem_id="differing")
    picture.change(one, [picture, chosen], table, api_name="compare")
    chosen.change(one, [picture, chosen], table, api_visibility="private")
    chosen.change(many, [files, chosen], [agreement, gallery], api_visibility="private")
    files.change(many, [files, chosen], [agreement, gallery], api_name="agreement")


def _shown(title: str, data: bytes, labels: Mapping[str, str]) -> tuple[Any, str]:
    from edgewright.runtime.images import read_image

    thumbnail = read_image(data)
    thumbnail.thumbnail((256, 256))
    return thumbnail, f"{title}: " + "; ".join(f"{name}: {label}" for name, label in labels.items())
