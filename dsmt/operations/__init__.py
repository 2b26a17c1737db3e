"""Operations: what an operator can do, as async functions over bus and view."""
