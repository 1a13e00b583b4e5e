"""The subcommands of `capacity`."""
