"""The example of `docs/extending.md`, run."""
