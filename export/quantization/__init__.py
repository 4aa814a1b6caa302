"""INT8 by explicit Q/DQ nodes: one float graph, one calibration, a profile per engine."""
