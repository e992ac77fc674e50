"""One provider call: retries, halving, cooldowns, budget, and the check of what comes back."""
