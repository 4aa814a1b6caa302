"""From a trained model to a bundle of artefacts, each proven equal to it."""
