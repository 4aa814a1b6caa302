"""The part that goes to the device: bundles, pictures, engines, labels. Needs neither torch nor onnx."""
