"""The kinds of failure, and when to try again: errors, back-off, cooldown, circuit breaker."""
