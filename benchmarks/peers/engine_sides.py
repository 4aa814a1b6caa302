"""One inference after the other on a prepared tensor, in a process of its own: what `latency_agreement` compares.

`do` in the request is "ours", the classifier's engine, copies included, or "onnxruntime", a session as ONNX Runtime's
documentation makes one. The times in its profile would be its own as well, but writing it slows a small network by a sixth.
"""

from __future__ import annotations

from typing import Any

from edgewright.benchmarks.peers.sides import Turns, work_in_turns
from edgewright.benchmarks.subjects import golden_pictures
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.classifier import Classifier, load_request
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.preprocess import preprocess
from edgewright.runtime.timing import burst_latencies_ms

__all__ = ["run_engine"]

_WARM_UP = 20


def run_engine(request: dict[str, Any], turns: Turns) -> dict[str, Any]:
    """Milliseconds of each inference."""
    bundle = open_bundle(request["bundle"])
    artefact = bundle.manifest.artefact(request["artefact"])
    pixels = preprocess(golden_pictures(bundle)[0], bundle.manifest.preprocess)[None]
    if request["do"] == "ours":
        with Classifier(bundle, artefact) as classifier:
            for _ in range(_WARM_UP):
                classifier.run(pixels)
            return {"ms": burst_latencies_ms(lambda: classifier.run(pixels), request["seconds"])}
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cores()
    model = load_request(bundle, artefact).model
    session = ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    feeds = {bundle.manifest.input.name: pixels}
    for _ in range(_WARM_UP):
        session.run(None, feeds)
    return {"ms": burst_latencies_ms(lambda: session.run(None, feeds), request["seconds"])}


if __name__ == "__main__":
    work_in_turns(run_engine)
