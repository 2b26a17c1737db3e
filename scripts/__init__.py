"""Scripts of the development of dsmt."""
