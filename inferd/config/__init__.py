"""Settings: the only reader of files and of the environment."""
