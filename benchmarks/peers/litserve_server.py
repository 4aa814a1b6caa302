"""The same model behind LitServe: a script for an interpreter that has litserve, python-multipart and edgewright.

    python litserve_server.py BUNDLE ARTEFACT WORKERS PORT

Written as LitServe's documentation does it: `decode_request` reads the uploaded file, `predict` labels, `encode_response`
makes the answer. Each worker is a process with an engine of one thread. With the artefact `eager` it labels as the examples
of LitServe do, with torchvision's transforms and network in PyTorch; the interpreter then needs torchvision as well.
"""

import io
import sys
from typing import Any

import litserve
from fastapi import Request

import edgewright
from edgewright.runtime.bundle import open_bundle


class _Prediction:
    """What `encode_response` wants of eager PyTorch."""

    def __init__(self, label: str, index: int, score: float) -> None:
        self.label, self.index, self.score = label, index, score


class _Eager:
    """Torchvision's network of the bundle's backbone; its weights do not matter here."""

    def __init__(self, bundle: str) -> None:
        import torch
        from torchvision import models
        from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

        torch.set_num_threads(1)
        manifest = open_bundle(bundle).manifest
        spec = manifest.preprocess
        self._torch, self._labels = torch, manifest.labels
        self._model = models.get_model(manifest.provenance.backbone, weights=None, num_classes=len(manifest.labels))
        self._model.eval()
        self._transforms = Compose(
            [Resize(spec.resize), CenterCrop(spec.crop), ToTensor(), Normalize(spec.mean, spec.std)]
        )

    def __call__(self, picture: bytes) -> _Prediction:
        from PIL import Image

        with self._torch.inference_mode():
            batch = self._transforms(Image.open(io.BytesIO(picture)).convert("RGB"))[None]
            scores = self._model(batch).softmax(1)[0]
        index = int(scores.argmax())
        return _Prediction(self._labels[index], index, float(scores[index]))


class _Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        bundle, artefact = sys.argv[1:3]
        self._classifier = (
            _Eager(bundle) if artefact == "eager" else edgewright.load(bundle, artefact=artefact, threads=1)
        )

    def decode_request(self, request: Request) -> bytes:
        picture: bytes = request["file"].file.read()
        return picture

    def predict(self, picture: bytes) -> Any:
        return self._classifier(picture)

    def encode_response(self, prediction: Any) -> dict[str, Any]:
        return {"label": prediction.label, "index": prediction.index, "score": prediction.score}


if __name__ == "__main__":
    server = litserve.LitServer(_Api(), accelerator="cpu", workers_per_device=int(sys.argv[3]))
    server.run(host="127.0.0.1", port=int(sys.argv[4]), generate_client_file=False, log_level="warning")
