"""The worker's subcommands."""
