"""Backbones: which there are, their weights, and how they are cut into a frozen and a trained part."""
