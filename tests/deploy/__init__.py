"""Checks the deployed files with the programs that read them."""
