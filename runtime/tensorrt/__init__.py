"""TensorRT on the device, 8.6 to 11: building engines from ONNX, keeping them, running them. Free of torch."""
