"""Bundles over HTTP: Open Inference Protocol v2, plain uploads, metrics."""
