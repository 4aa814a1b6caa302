"""A model on another machine: the client's side of the Open Inference Protocol v2 over HTTP."""
