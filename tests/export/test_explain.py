"""Maps of what speaks for a label: exact by definition, checked against torch taking the places out one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from edgewright.export.explain import explaining_graph
from edgewright.export.exporter import Export
from edgewright.export.onnx_graph import to_onnx
from edgewright.export.simulate import open_session
from edgewright.runtime.errors import EdgewrightError
from edgewright.runtime.explain import Explainer, overlay
from edgewright.runtime.predict_command import predict_command

SIZE = 16


class Pooled(nn.Module):
    """Pixels to a feature map, its average to logits, by a deep head or a linear one."""

    def __init__(self, *, deep: bool) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, 2, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(nn.Linear(8, 12), nn.Hardswish(), nn.Linear(12, 5)) if deep else nn.Linear(8, 5)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        images = functional.relu(self.body(pixels.permute(0, 3, 1, 2).contiguous().float() / 64 - 2))
        # Pooled once before, as in squeeze-and-excitation.
        return images * functional.hardsigmoid(self.gate(images.mean((2, 3), keepdim=True)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(pixels).mean((2, 3)))
        return logits


class Beside(Pooled):
    """Part of the judgement goes past the average."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = self.features(pixels)
        logits: torch.Tensor = self.head(images.mean((2, 3))) + images[:, :5, 3, 4]
        return logits


class Flat(Pooled):
    """No average at all."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = functional.relu(self.body(pixels.permute(0, 3, 1, 2).contiguous().float()))
        logits: torch.Tensor = self.head(images[:, :, 2, 2])
        return logits


def answers(graph: onnx.ModelProto, pixels: np.ndarray) -> dict[str, np.ndarray]:
    session = open_session(graph.SerializeToString())
    return dict(
        zip([output.name for output in session.get_outputs()], session.run(None, {"pixels": pixels}), strict=True)
    )


@pytest.mark.parametrize("deep", [True, False])
def test_maps_are_what_is_lost_without_a_place(deep: bool) -> None:
    torch.manual_seed(0)
    network = Pooled(deep=deep).eval()
    graph = explaining_graph(to_onnx(network, SIZE))
    assert graph is not None
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    found = answers(graph, pixels)
    with torch.inference_mode():
        features = network.features(torch.from_numpy(pixels))
        logits = network(torch.from_numpy(pixels))
        for row, column in ((0, 0), (3, 5), (7, 7)):
            without = features.clone()
            without[:, :, row, column] = 0
            added = logits - network.head(without.mean((2, 3)))
            added -= added.mean(1, keepdim=True)
            np.testing.assert_allclose(found["maps"][:, :, row, column], added, atol=1e-4)
        if not deep:
            # The class activation map: its sum is the logit, less the bias, less the average over classes.
            total = logits - network.head.bias
            np.testing.assert_allclose(found["maps"].sum((2, 3)), total - total.mean(1, keepdim=True), atol=1e-3)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    assert found["maps"].shape == (1, 5, 8, 8)


@pytest.mark.parametrize("kind", [Beside, Flat])
def test_network_that_judges_otherwise_has_no_maps(kind: type[Pooled]) -> None:
    assert explaining_graph(to_onnx(kind(deep=False).eval(), SIZE)) is None


def test_bundle_explains_the_label_that_it_gives(digits_export: Export) -> None:
    bundle = digits_export.bundle
    with Explainer(bundle) as explainer:
        for vector in bundle.manifest.golden:
            picture = bundle.read(vector.image)
            found = explainer(picture)
            assert found.index == int(np.argmax(vector.logits))
            assert found.label == bundle.manifest.labels[found.index]
            other = explainer(picture, (found.index + 1) % 10)
            assert not np.array_equal(other.added, found.added)
            drawn = overlay(found)
            assert drawn.size == found.seen.size == (48, 48)
            changed = np.abs(np.asarray(drawn).astype(int) - np.asarray(found.seen)).sum(2)
            # Where most speaks for the label, most is drawn.
            row, column = np.unravel_index(found.added.argmax(), found.added.shape)
            scale = 48 / np.array(found.added.shape)
            top, left = int(row * scale[0]), int(column * scale[1])
            assert changed[top : top + int(scale[0]), left : left + int(scale[1])].mean() > changed.mean()


def test_predict_writes_what_speaks_for_each_label(
    digits_export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = digits_export.bundle
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for vector in bundle.manifest.golden[:2]:
        (pictures / Path(vector.image).name).write_bytes(bundle.read(vector.image))
    (pictures / "zzz.png").write_bytes(b"no picture")
    with pytest.raises(EdgewrightError, match="1 of 3"):
        predict_command(bundle.path, [str(pictures)], explain=tmp_path / "maps", json=True)
    rows = json.loads(capsys.readouterr().out)["predictions"]
    maps = sorted((tmp_path / "maps").iterdir())
    assert [path.name for path in maps] == [f"{n:06d}-{Path(rows[n - 1]['file']).stem}.png" for n in (1, 2)]
    with Explainer(bundle) as explainer, Image.open(maps[1]) as drawn:
        expected = overlay(explainer(rows[1]["file"], rows[1]["index"]))
        assert np.array_equal(np.asarray(drawn), np.asarray(expected))
