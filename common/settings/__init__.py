"""The settings of the service: read once at start, and checked as a whole."""
