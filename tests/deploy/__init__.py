"""What is deployed, checked with the programs that will read it."""
