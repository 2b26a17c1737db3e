"""Here: `ps`, `status`, `logs`, `stop` and `start` of this machine alone, with no bus (`--local`)."""
