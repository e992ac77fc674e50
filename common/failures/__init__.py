"""What can go wrong, and when to try again."""
