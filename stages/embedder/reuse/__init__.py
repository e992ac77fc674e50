"""Pay once: what was embedded before, or is being embedded now."""
