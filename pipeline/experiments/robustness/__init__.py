"""The paper's two figures: what the scale of the start and the scale of the loss do to each recipe."""
