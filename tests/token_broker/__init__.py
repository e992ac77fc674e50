"""Tests of the token broker."""
