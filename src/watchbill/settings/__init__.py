"""Settings, read once from the environment and passed on as values. Nothing else reads `os.environ`."""
