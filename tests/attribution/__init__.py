"""What each failure costs, shown with the real pipeline, real signals and the sandbox's record of what it was sent."""
