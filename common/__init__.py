"""What two stages or more need: messages, wiring, the loop, the store, settings, errors, metrics and logs."""
