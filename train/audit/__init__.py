"""Robustness of a trained run: corruptions, adversarial examples, and what a student inherits from its teacher."""
