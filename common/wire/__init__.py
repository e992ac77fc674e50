"""What travels between the processes, between whom, and how often."""
