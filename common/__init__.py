"""Code that two or more stages need. Its folders import downwards only; `pyproject.toml` lists the layers."""
