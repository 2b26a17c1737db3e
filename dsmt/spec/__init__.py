"""The service file: parsed, validated, explained; and node sets. Text in, values out, no I/O."""
