"""The command line: parse, call an operation, print, exit code (floor 10)."""
