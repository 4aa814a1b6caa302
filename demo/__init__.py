"""The page on which people try a bundle in a browser. Needs Gradio, and no torch."""
