"""Tests of what two stages need."""
