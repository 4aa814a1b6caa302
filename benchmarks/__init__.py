"""How fast a bundle is here, and on what machine that was measured."""
