"""Operations on other machines, over SSH."""
