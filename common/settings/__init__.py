"""The settings, read once and checked as a whole."""
