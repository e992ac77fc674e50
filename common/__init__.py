"""Code that two or more stages need. Its folders import downwards only; `pyproject.toml` lists the layers."""

__version__ = "0.2.0"
"""The version of the whole project. `pyproject.toml` reads it here; the image's label is compared with it by a test."""

USER_AGENT = f"ai-task-processor/{__version__}"
"""What requests to the API and to the token endpoint name themselves."""
