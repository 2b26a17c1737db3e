"""The bus's rules: values in, values out; no I/O, no waiting, no clock."""
