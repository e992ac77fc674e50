"""The sandbox's contract, over real HTTP with the real process."""
